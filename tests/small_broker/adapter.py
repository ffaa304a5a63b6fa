"""The adapter of the small broker: its words become events, and nobody else learns how it speaks.

Note: it tells only sums. A message of the stream is a `snapshot`, from which the fold infers a trade; the executions
themselves are the differences between the rows of an order's history, and what was inferred gives way to them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

import requests

from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.broker.port import (
    Adjustment,
    BrokerCheck,
    BrokerError,
    BrokerStream,
    BrokerUnavailable,
    Capabilities,
    Fields,
    Message,
    NotFound,
    Refused,
    ResendPoint,
    ResendResult,
    ResentBatch,
    StreamListener,
    Translation,
    content_digest,
    parse,
)
from compactor.core.events import Problem
from compactor.core.instants import nanos, rfc3339

STATUSES = {
    "queued": "pending_new", "working": "new", "taken": "accepted", "part": "partially_filled", "complete": "filled",
    "pulled": "canceled", "lapsed": "expired", "declined": "rejected", "amended": "replaced",
    "pulling": "pending_cancel", "amending": "pending_replace", "sleeping": "done_for_day", "guaranteed": "stopped",
    "frozen": "suspended", "checked": "pending_review", "settling": "calculated",
}  # fmt: skip
TERMS = {
    "symbol": "sym", "quantity": "size", "notional": "cash", "order_type": "kind", "limit_price": "limit",
    "stop_price": "trigger", "trail_price": "trail", "trail_percent": "trail_pct", "time_in_force": "life",
    "client_order_id": "ref",
}  # fmt: skip
TRIES = 4


def find_credentials(
    environ: Mapping[str, str], *, names: tuple[str, str] | None = None, live: bool = False, url: str | None = None
) -> Credentials:
    key, secret = names or ("SMALL_KEY", "SMALL_SECRET")
    if not environ.get(key) or not environ.get(secret):
        raise BadCredentials(f"the environment has no keys of the small broker; expected {key} and {secret}")
    return Credentials(environ[key], environ[secret], (key, secret), not live, url or environ.get("SMALL_URL"), "small")


def check_libraries() -> None:
    """It needs `requests`, which the ledger brings."""


def open_account(
    credentials: Credentials,
    *,
    budget: Budget | None = None,
    timeout_seconds: tuple[float, float] | None = None,
    tries: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> SmallAccount:
    return SmallAccount(credentials, budget or Budget(), timeout_seconds or (5.0, 20.0), tries or TRIES, sleep)


class SmallAccount:
    """One account at the small broker; implements `BrokerPort`."""

    skew_seconds = 0.0
    capabilities = Capabilities(resends=False, unique_client_ids=False, tells_positions=False, client_id_length_max=200)

    def __init__(
        self, keys: Credentials, budget: Budget, timeout: tuple[float, float], tries: int,
        sleep: Callable[[float], None],
    ) -> None:  # fmt: skip
        self.requests = 0
        self._keys, self._budget, self._timeout, self._tries, self._sleep = keys, budget, timeout, tries, sleep
        self._headers = {"X-Key": keys.key, "X-Secret": keys.secret}

    def read_account_id(self) -> str:
        return str(self._ask("/who", dict)["who"])

    def read_open_orders(self) -> Translation:
        return translate_all(self._ask("/orders", list))

    def read_orders_since(self, instant: str) -> Translation:
        return translate_all(self._ask("/orders", list, since=nanos(instant)))

    def read_order(self, order_id: str) -> Translation | None:
        try:
            return translate_all([self._ask("/order", dict, **_split(order_id))])
        except NotFound:
            return None

    def list_orders(self, wanted: Mapping[str, str | None]) -> Translation:
        return Translation([], [])

    def list_fills(self, orders: Sequence[Mapping[str, Any]]) -> Translation:
        return Translation([], [])

    def read_positions(self) -> dict[str, Decimal]:
        return {}

    def read_adjustments(self, since: str) -> Sequence[Adjustment]:
        return []

    def find_order(self, client_order_id: str) -> Translation | None:
        found = self._ask("/ref", list, ref=client_order_id)
        return translate_all(found[-1:]) if found else None

    def read_fills_since(self, instant: str) -> Translation:
        return translate_rows(self._ask("/history", list, since=nanos(instant)))

    def read_order_fills(self, order: Mapping[str, Any], since: str) -> Translation:
        return translate_rows(self._ask("/rows", list, **_split(str(order["order_id"]))))

    def read_request(self, request: Any) -> Fields:
        if not isinstance(request, Mapping):
            raise TypeError(f"expected a mapping of terms, found {type(request).__name__}")
        return {str(name): value if isinstance(value, bool) else str(value) for name, value in request.items()}

    def place(self, terms: Mapping[str, Any]) -> Translation:
        body = {theirs: terms[ours] for ours, theirs in TERMS.items() if terms.get(ours) is not None}
        return _certain(translate_all([self._send("POST", "/new", dict, {}, body | {"dir": terms["side"][0].upper()})]))

    def replace(self, order_id: str, changes: Mapping[str, Any]) -> Translation:
        body = {theirs: changes[ours] for ours, theirs in TERMS.items() if changes.get(ours) is not None}
        return _certain(translate_all([self._send("POST", "/amend", dict, _split(order_id), body)]))

    def cancel(self, order_id: str) -> None:
        self._send("POST", "/pull", dict, _split(order_id), {})

    def examine(self, per_minute: int) -> Iterator[BrokerCheck]:
        yield BrokerCheck("account", "as expected", "it answers", evidence=self._ask("/who", dict))

    def translate(self, message: Message) -> Translation:
        found = parse(message.encode(errors="surrogateescape") if isinstance(message, str) else message)
        if isinstance(found, dict) and isinstance(found.get("tell"), dict):
            return translate_all([found["tell"]])
        problem = found if isinstance(found, Problem) else Problem("bad_value", "a message that tells of no order")
        return Translation([], [problem])

    def open_stream(self, listener: StreamListener) -> BrokerStream:
        return Feed(self._keys, listener)

    def resend(self, since: str, until: str, point: ResendPoint, result: ResendResult) -> Iterator[ResentBatch]:
        return iter(())

    def _ask(self, path: str, kind: type, **query: Any) -> Any:
        for attempt in range(self._tries):
            try:
                return self._send("GET", path, kind, query, None)
            except BrokerUnavailable:
                if attempt == self._tries - 1:
                    raise
                self._sleep(0.5 * 2**attempt)
        raise AssertionError("at least one try")

    def _send(self, method: str, path: str, kind: type, query: Mapping[str, Any], body: Any) -> Any:
        self._budget.spend()
        self.requests += 1
        try:
            answer = requests.request(
                method, f"{self._keys.url}{path}", params=query, json=body, headers=self._headers,
                timeout=self._timeout, allow_redirects=False,
            )  # fmt: skip
        except requests.RequestException as error:
            raise BrokerUnavailable(f"{path}: the broker could not be reached: {self._keys.hide(str(error))}") from None
        if answer.status_code == 401:
            raise BadCredentials(f"the small broker refused the keys in {' and '.join(self._keys.names)}")
        if answer.status_code == 404:
            raise NotFound(f"{path}: the broker has no such order")
        if answer.status_code == 409:
            raise Refused(f"{path}: {answer.text}")
        found = parse(answer.content)
        if answer.status_code != 200 or isinstance(found, Problem):
            raise BrokerUnavailable(f"{path}: found HTTP {answer.status_code}, {answer.text[:80]!r}")
        if not isinstance(found, kind):
            raise BrokerError(f"{path}: found {answer.text[:80]!r}, expected a {kind.__name__}")
        return found


class Feed:
    """The stream of an account: lines of one long answer; implements `BrokerStream`."""

    def __init__(self, keys: Credentials, listener: StreamListener) -> None:
        self._keys, self._listener = keys, listener
        self._stopping, self._leaving = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            self._leaving.clear()
            reason = "the connection has ended"
            try:
                self._listen()
            except BadCredentials as error:
                self._listener.refused(error)
                reason = str(error)
            except requests.RequestException as error:
                reason = self._keys.hide(str(error))
            if not self._stopping.is_set():
                self._listener.disconnected(reason, 0.5)
                self._stopping.wait(0.5)

    def stop(self) -> None:
        self._stopping.set()
        self._leaving.set()

    def reconnect(self, why: str) -> None:
        self._leaving.set()

    def _listen(self) -> None:
        headers = {"X-Key": self._keys.key, "X-Secret": self._keys.secret}
        with requests.get(f"{self._keys.url}/feed", headers=headers, stream=True, timeout=(5, 10)) as answer:
            if answer.status_code == 401:
                raise BadCredentials(f"the small broker refused the keys in {' and '.join(self._keys.names)}")
            self._listener.connected()
            for line in answer.iter_lines(chunk_size=1):
                if line:
                    self._listener.received([line])
                if self._leaving.is_set():
                    return


def translate_all(orders: list[Any]) -> Translation:
    """Orders as snapshots; one that cannot be read is a problem, and the others are there."""
    events, problems = [], []
    for order in orders:
        try:
            events.append(translate_order(order))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            problems.append(Problem("bad_value", f"an order that cannot be read ({error!r}): {str(order)[:80]}"))
    return Translation(events, problems)


def translate_order(order: Fields) -> Fields:
    event = {
        "event": "snapshot", "order_id": f"{order['sym']}-{order['no']}", "ts": rfc3339(order["moved"]),
        "order_status": STATUSES.get(order["state"], order["state"]), "side": {"B": "buy", "S": "sell"}[order["dir"]],
        "created_at": rfc3339(order["born"]), "filled_qty": order["done"],
    }  # fmt: skip
    event |= {ours: order[theirs] for ours, theirs in TERMS.items() if order.get(theirs) is not None}
    event |= {ours: f"{order['sym']}-{order[theirs]}" for ours, theirs in RELATIONS if order.get(theirs) is not None}
    if Decimal(order["done"]):
        event["filled_avg_price"] = _exact(Decimal(order["cost"]) / Decimal(order["done"]), "1e-9")
    return {**event, "event_id": content_digest(order), "source": "rest", "raw": order}


RELATIONS = (("replaces", "was"), ("replaced_by", "now"))


def translate_rows(rows: list[Any]) -> Translation:
    """The executions of histories: each is what is done in all after it, less what was done before."""
    before: dict[str, tuple[Decimal, Decimal]] = {}
    events = []
    for row in rows:
        order_id = f"{row['sym']}-{row['no']}"
        sums = Decimal(row["done"]), Decimal(row["cost"])
        done, cost = before.get(order_id, (Decimal(0), Decimal(0)))
        before[order_id] = sums
        with localcontext(prec=80):
            quantity, price = sums[0] - done, (sums[1] - cost) / (sums[0] - done)
        name = f"{order_id}#{row['n']}"
        events.append({
            "event": "partial_fill", "order_id": order_id, "ts": rfc3339(row["at"]), "execution_id": name,
            "symbol": row["sym"], "side": {"B": "buy", "S": "sell"}[row["dir"]], "qty": f"{quantity:f}",
            "price": _exact(price), "filled_qty": row["done"], "event_id": content_digest([name, row]),
            "source": "rest", "raw": row,
        })  # fmt: skip
    return Translation(events, [])


def _exact(number: Decimal, step: str | None = None) -> str:
    with localcontext(prec=80):
        return f"{(number.quantize(Decimal(step)) if step else number).normalize():f}"


def _certain(found: Translation) -> Translation:
    if not found.events:
        raise BrokerUnavailable(f"the broker's answer cannot be read: {found.problems[0].detail}")
    return found


def _split(order_id: str) -> dict[str, str]:
    symbol, _, number = order_id.rpartition("-")
    return {"sym": symbol, "no": number}
