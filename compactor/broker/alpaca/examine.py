"""Find out how an account at Alpaca really behaves where the documentation is silent. Read-only.

Each check compares what is found with what the adapter is written for, and says what follows from a difference. The
answers that it looked at are its evidence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from compactor.broker.alpaca.access import KNOWN, find_version
from compactor.broker.alpaca.redact import redact
from compactor.broker.alpaca.resend import ADDRESSES, EventStreams, NoResend, WindowResult
from compactor.broker.alpaca.rest import AlpacaRest
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.broker.port import BrokerCheck, BrokerError, BrokerUnavailable, parse
from compactor.core.instants import rfc3339

SKEW_SECONDS_MAX = 2.0
LOOK_BACK_NS = 7 * 86_400 * 10**9
RESEND_NS = 3600 * 10**9
_ID_PARTS = 2


class AccountExaminer:
    """Examines one account; `run` yields a check after the other."""

    def __init__(self, credentials: Credentials, rest: AlpacaRest, events: EventStreams, *, per_minute: int) -> None:
        self._credentials = credentials
        self._rest = rest
        self._events = events
        self._per_minute = per_minute
        self._executions: dict[str, str] = {}
        """By order, quantity and price: the execution ids that a resend told."""

    def run(self) -> Iterator[BrokerCheck]:
        """Every check; one that fails could not tell. Raises BadCredentials if the keys are refused."""
        checks: dict[str, Callable[[], BrokerCheck]] = {
            "versions": self._check_versions,
            "permissions": self._check_permissions,
            "clock": self._check_clock,
            "rate limit": self._check_rate_limit,
            "resend of trades": self._check_trade_events,
            "resend of activities": self._check_activity_events,
            "held legs": self._check_held_legs,
            "groups": self._check_groups,
            "activity id": self._check_activity_id,
            "multi-leg fills": self._check_multi_leg,
            "positions": self._check_positions,
        }
        is_there = True
        for name, check in checks.items():
            if not is_there:
                yield BrokerCheck(name, "could not tell", "not asked, because the account could not be read")
                continue
            try:
                found = check()
                yield msgspec.structs.replace(found, evidence=redact(found.evidence))
            except BadCredentials:
                raise
            except BrokerError as error:
                # Of a broker that is not there each further question would take as long as the first one.
                is_there = name != "permissions" or not isinstance(error, BrokerUnavailable)
                yield BrokerCheck(name, "could not tell", str(error)[:200])

    def _check_versions(self) -> BrokerCheck:
        found = {one: find_version(one) for one in ("alpaca-py", *KNOWN)}
        told = ", ".join(f"{name} {number}" for name, number in found.items())
        return BrokerCheck("versions", "as expected", told, evidence=found)

    def _check_permissions(self) -> BrokerCheck:
        account, _ = self._get("/account")
        kind = "paper" if self._credentials.paper else "real money"
        blocked = [name for name in ("trading_blocked", "account_blocked") if account.get(name)]
        told = f"{kind}, status {account.get('status')}" + (f", {' and '.join(blocked)}" if blocked else "")
        if account.get("status") == "ACTIVE" and not blocked:
            return BrokerCheck("permissions", "as expected", told, evidence=account)
        return BrokerCheck("permissions", "different", told, "Orders will be refused; reading works.", account)

    def _check_clock(self) -> BrokerCheck:
        before = time.time()
        _, headers = self._get("/account")
        after = time.time()
        try:
            at = parsedate_to_datetime(headers.get("Date", "")).timestamp()
        except (TypeError, ValueError):
            return BrokerCheck("clock", "could not tell", "the answer has no Date")
        # The header has whole seconds.
        skew = before - (at + 1) if before > at + 1 else min(0.0, after - at)
        told = f"this machine is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
        if abs(skew) <= SKEW_SECONDS_MAX:
            return BrokerCheck("clock", "as expected", told)
        follows = "Orders count as quiet too early or too late by so much. Let the machine keep its time (chrony)."
        return BrokerCheck("clock", "different", told, follows)

    def _check_rate_limit(self) -> BrokerCheck:
        _, headers = self._get("/account")
        found = {name: headers[name] for name in headers if name.lower().startswith("x-ratelimit")}
        limit = next((value for name, value in found.items() if name.lower() == "x-ratelimit-limit"), "")
        if not limit.isdigit():
            return BrokerCheck("rate limit", "could not tell", "the answer has no X-Ratelimit-Limit", evidence=found)
        told = f"{limit} requests a minute, of which {self._per_minute} are the ledger's"
        if int(limit) >= self._per_minute:
            return BrokerCheck("rate limit", "as expected", told, evidence=found)
        return BrokerCheck("rate limit", "different", told, f"Set requests_per_minute below {limit}.", found)

    def _check_trade_events(self) -> BrokerCheck:
        return self._check_endpoint("trades", "a gap is closed by activities, or by the reconcile alone")

    def _check_activity_events(self) -> BrokerCheck:
        return self._check_endpoint("activities", "a gap is closed by trade events, or by the reconcile alone")

    def _check_endpoint(self, kind: Any, otherwise: str) -> BrokerCheck:
        name, (release, path) = f"resend of {kind}", ADDRESSES[kind]
        now, result = time.time_ns(), WindowResult()
        try:
            events = list(self._events.read(kind, rfc3339(now - RESEND_NS), rfc3339(now), result))
        except NoResend as error:
            return BrokerCheck(name, "different", str(error), f"It is not used; {otherwise}.")
        except BadCredentials:
            return BrokerCheck(name, "different", f"/{release}{path} refuses these keys", f"{otherwise.capitalize()}.")
        if not result.is_delivered:
            return BrokerCheck(name, "could not tell", result.reason)
        entries = [entry for entry in map(parse, events) if isinstance(entry, dict)]
        self._note_executions(entries)
        if result.unknown:
            told = f"entries of unknown kinds: {', '.join(sorted(result.unknown))}"
            return BrokerCheck(name, "different", told, "Such a resend never counts as complete.", entries[:3])
        return BrokerCheck(name, "as expected", f"{len(events)} entries of the last hour", evidence=entries[:3])

    def _note_executions(self, entries: list[Any]) -> None:
        for entry in entries:
            inner = entry.get("details") if isinstance(entry.get("details"), dict) else entry.get("order")
            order_id = (inner or {}).get("order_id") or (inner or {}).get("id")
            execution_id = entry.get("ref_id") or entry.get("execution_id")
            if order_id and execution_id and entry.get("price") is not None:
                self._executions[_name_fill(order_id, entry)] = str(execution_id)

    def _check_held_legs(self) -> BrokerCheck:
        listed = {str(order.get("id")) for order in self._rest.open_orders()}
        families = [one for one in self._list_orders() if one.get("legs")]
        held = [leg for one in families for leg in one["legs"] if isinstance(leg, dict) and leg.get("status") == "held"]
        if not held:
            return BrokerCheck("held legs", "could not tell", "no order of the last week has a leg that is held")
        missing = [leg for leg in held if str(leg.get("id")) not in listed]
        told = f"{len(held) - len(missing)} of {len(held)} held legs are in the list of open orders"
        if missing:
            return BrokerCheck("held legs", "as expected", told, evidence=families[:1])
        return BrokerCheck("held legs", "different", told, "Nothing is missing; a few requests could be saved.")

    def _check_groups(self) -> BrokerCheck:
        families = [one for one in self._list_orders() if one.get("order_class") in ("bracket", "oco", "oto")]
        if not families:
            return BrokerCheck("groups", "could not tell", "no bracket, OCO or OTO order in the last week")
        grouped = [one for one in families if one.get("group_id")]
        told = f"{len(grouped)} of {len(families)} orders with exits have a group_id"
        if grouped:
            return BrokerCheck("groups", "as expected", told, evidence=grouped[:1])
        follows = "An exit that replaces another one has no tie to its family until a nested list tells it."
        return BrokerCheck("groups", "different", told, follows, families[:1])

    def _check_activity_id(self) -> BrokerCheck:
        fills = self._list_fills()
        if not fills:
            return BrokerCheck("activity id", "could not tell", "no fill in the last week")
        parts = str(fills[-1].get("id")).split("::")
        if len(parts) != _ID_PARTS:
            told = f"the id of an activity has {len(parts)} parts around '::', expected {_ID_PARTS}"
            return BrokerCheck("activity id", "different", told, "Fills are matched by their numbers.", fills[-1])
        known = [(one, self._executions.get(_name_fill(one.get("order_id"), one))) for one in fills]
        compared = [
            (str(one.get("id")).split("::")[-1], execution) for one, execution in known if execution is not None
        ]
        if not compared:
            return BrokerCheck(
                "activity id", "could not tell", "no fill of the last hour was sent again", evidence=fills[-1]
            )
        same = sum(ours == theirs for ours, theirs in compared)
        told = f"in {same} of {len(compared)} the part behind '::' is the execution id of the stream"
        if same == len(compared):
            return BrokerCheck("activity id", "as expected", told, evidence=fills[-1])
        return BrokerCheck("activity id", "different", told, "Fills are matched by their numbers.", fills[-1])

    def _check_multi_leg(self) -> BrokerCheck:
        parents = {str(one.get("id")): one for one in self._list_orders() if one.get("legs") and not one.get("symbol")}
        legs = {str(leg.get("id")) for one in parents.values() for leg in one["legs"] if isinstance(leg, dict)}
        found = [one for one in self._list_fills() if str(one.get("order_id")) in {*parents, *legs}]
        if not found:
            return BrokerCheck("multi-leg fills", "could not tell", "no fill of a multi-leg order in the last week")
        of_parents = sum(str(one.get("order_id")) in parents for one in found)
        told = f"{of_parents} of {len(found)} activities name the parent, the others a leg"
        # Both are read; which it is has not been documented.
        return BrokerCheck("multi-leg fills", "as expected", told, evidence=found[:2])

    def _check_positions(self) -> BrokerCheck:
        positions = self._rest.positions()
        odd = [one for one in positions if not one.get("symbol") or one.get("qty") is None]
        if odd:
            told = f"{len(odd)} of {len(positions)} positions have no symbol or qty"
            return BrokerCheck("positions", "different", told, "Positions are not compared with the trades.", odd[:1])
        return BrokerCheck("positions", "as expected", f"{len(positions)} open positions", evidence=positions[:1])

    def _list_orders(self) -> list[Any]:
        return self._rest.orders_page(rfc3339(time.time_ns() - LOOK_BACK_NS))

    def _list_fills(self) -> list[Any]:
        return self._rest.fills(rfc3339(time.time_ns() - LOOK_BACK_NS), pages_max=3)

    def _get(self, path: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        found, headers = self._rest.get_with_headers(path)
        if not isinstance(found, dict):
            raise BrokerError(f"{path}: found {str(found)[:80]}, expected an object")
        return found, headers


def _name_fill(order_id: Any, fill: Mapping[str, Any]) -> str:
    return f"{order_id} {fill.get('qty')} {fill.get('price')}"
