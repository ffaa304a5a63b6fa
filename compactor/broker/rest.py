"""Request orders and FILL activities from Alpaca over REST, with retries, timeouts and typed errors.

alpaca-py knows the addresses and how to sign. The rest of a request is done here, because that client has no timeout,
ignores the broker's rate limit headers and reads JSON numbers as floats. `sync.answers` interprets the answers.

Note: an answer of the wrong shape is an error, never an empty list. Reads are retried after a transient failure;
placing and canceling are not, because only `placing` can do that safely.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from compactor.broker.alpaca import parse
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.core.events import Problem
from compactor.core.exceptions import CompactorError

if TYPE_CHECKING:
    from alpaca.trading.client import TradingClient
    from requests import Response, Session
    from tenacity import RetryCallState

ORDERS_PAGE = 500
ACTIVITIES_PAGE = 100
TIMEOUT_SECONDS = (5.0, 20.0)
"""For connecting, and between two bytes of the answer."""
TRIES = 4
PAUSE_SECONDS_MAX = 90
PAGES_MAX = 10_000
_BODY_BYTES_MAX = 64 << 20


class BrokerError(CompactorError):
    """A request failed or its answer cannot be used. Nothing was written because of it."""


class BrokerUnavailable(BrokerError):
    """The broker did not answer, or answered that it cannot now. A later retry may succeed."""


class RateLimited(BrokerUnavailable):
    """The account has reached the broker's rate limit; retry after `pause_seconds`."""

    def __init__(self, message: str, pause_seconds: float) -> None:
        super().__init__(message)
        self.pause_seconds = pause_seconds


class NotFound(BrokerError):
    """The broker does not have the thing, or says that its id is invalid."""


class Refused(BrokerError):
    """The broker rejected a request: an order that it does not accept, or a cancel that is too late."""


class Broker:
    """One Alpaca account. All requests count against `budget`, which several clients may share.

    Each method raises BadCredentials if the keys are refused, and BrokerError. Answers are parsed JSON without floats.
    `timeout_seconds` are for connecting and for waiting for bytes; `sleep` waits between tries.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        budget: Budget | None = None,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._credentials = credentials
        self._budget = budget or Budget()
        self._timeout = timeout_seconds
        self._tries = tries
        self._sleep = sleep
        self._client = make_client(credentials, self._send)
        self.requests = 0
        """The number of requests sent, failed ones included."""

    def account(self) -> str:
        """The id of the account."""
        found = self._ask("/account")
        if not isinstance(found, dict) or not isinstance(found.get("id"), str):
            raise BrokerError(self._describe("/account", found, "an object with an id"))
        return str(found["id"])

    def open_orders(self) -> list[Any]:
        """All open orders, each leg separately, because nested lists can hide legs whose parent has ended."""
        return list(self._orders({"status": "open", "nested": "false"}))

    def orders_since(self, after: str) -> list[Any]:
        """All orders submitted after an instant, in any status, with their legs nested."""
        return list(self._orders({"status": "all", "nested": "true"}, after))

    def order(self, order_id: str) -> Any | None:
        """One order with its legs, or None if the broker has no order with this id."""
        path = f"/orders/{quote(order_id, safe='')}"
        try:
            found = self._ask(path, {"nested": "true"})
        except NotFound:
            return None
        if not isinstance(found, dict) or found.get("id") != order_id:
            raise BrokerError(self._describe(path, found, "that order"))
        return found

    def order_by_client_id(self, client_order_id: str) -> Any | None:
        """The order with this client order id, or None if the broker has none."""
        path = "/orders:by_client_order_id"
        try:
            found = self._ask(path, {"client_order_id": client_order_id})
        except NotFound:
            return None
        if not isinstance(found, dict) or found.get("client_order_id") != client_order_id:
            raise BrokerError(self._describe(path, found, "that order"))
        return found

    def place(self, request: dict[str, Any]) -> Any:
        """Send one request to place an order, without a retry; returns the order as the broker has it.

        Raises Refused if the broker rejects it. After BrokerUnavailable it is unknown whether the order was placed.
        """
        found = self._client.post("/orders", request)
        if not isinstance(found, dict) or found.get("client_order_id") != request.get("client_order_id"):
            # The broker accepted something, but it is unknown what.
            raise BrokerUnavailable(self._describe("/orders", found, "the order that was placed"))
        return found

    def cancel(self, order_id: str) -> None:
        """Request a cancel, without a retry. Raises NotFound, and Refused if the order can no longer be canceled."""
        self._client.delete(f"/orders/{quote(order_id, safe='')}")

    def fills(self, after: str, order_id: str | None = None) -> list[Any]:
        """The FILL activities after an instant, oldest first; with `order_id`, only those of this order."""
        params = {"after": after, "direction": "asc", "page_size": str(ACTIVITIES_PAGE)}
        if order_id is not None:
            params["order_id"] = order_id
        found: list[Any] = []
        for _ in range(PAGES_MAX):
            page = self._page("/account/activities/FILL", params)
            # An older server may ignore the filter.
            found += [one for one in page if order_id is None or one.get("order_id") == order_id]
            if len(page) < ACTIVITIES_PAGE:
                return found
            token = page[-1].get("id")
            if not isinstance(token, str) or token == params.get("page_token"):
                raise BrokerError(self._describe("/account/activities/FILL", page[-1], "a page that goes on"))
            params["page_token"] = token
        raise BrokerError(f"the broker's activities have no end after {PAGES_MAX} pages; expected the last one")

    def _orders(self, params: dict[str, str], after: str | None = None) -> Iterator[Any]:
        """Read all pages by `submitted_at`, oldest first, so that orders that arrive meanwhile are at the end.

        `after` excludes its bound, so each page begins slightly before the end of the previous one, and duplicates are
        dropped here. A page without new orders is full of orders of one instant; going on would skip some of them.
        """
        seen: set[str] = set()
        params = {**params, "direction": "asc", "limit": str(ORDERS_PAGE)} | ({"after": after} if after else {})
        for _ in range(PAGES_MAX):
            page = self._page("/orders", params)
            fresh = [one for one in page if str(one.get("id")) not in seen]
            seen |= {str(one.get("id")) for one in fresh}
            yield from fresh
            if len(page) < ORDERS_PAGE:
                return
            last = page[-1].get("submitted_at") or page[-1].get("created_at")
            bound = _step_back(last)
            if bound is None or not fresh:
                # A page is full of orders of one instant, which cannot be paged by time.
                raise BrokerError(self._describe("/orders", page[-1], "a page that leads to the next one"))
            params["after"] = bound
        raise BrokerError(f"the broker's orders have no end after {PAGES_MAX} pages; expected the last one")

    def _page(self, path: str, params: dict[str, str]) -> list[Any]:
        found = self._ask(path, params)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise BrokerError(self._describe(path, found, "a list of objects"))
        return found

    def _ask(self, path: str, params: dict[str, str] | None = None) -> Any:
        """Send a request and retry transient failures, with growing random pauses or as the broker's headers say."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        retrying = Retrying(
            retry=retry_if_exception_type(BrokerUnavailable),
            stop=stop_after_attempt(self._tries),
            wait=_choose_pause,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(self._client.get, path, params or {})

    def _send(self, method: str, session: Session, url: str, options: dict[str, Any]) -> Any:
        """Send one request within the budget; returns exact JSON, or raises a typed error without keys in it."""
        import requests

        self._budget.spend()
        self.requests += 1
        path = url.partition("/v2")[2] or url
        try:
            answer = session.request(method, url, timeout=self._timeout, **options)
        except requests.Timeout:
            raise BrokerUnavailable(f"{path}: no answer within {self._timeout[1]:g} s; is the network up?") from None
        except requests.RequestException as error:
            detail = self._credentials.hide(str(error))[:200]
            raise BrokerUnavailable(f"{path}: the broker could not be reached: {detail}") from None
        self._check(method, path, answer)
        if answer.status_code == 204:
            return None
        if len(answer.content) > _BODY_BYTES_MAX:
            raise BrokerError(f"{path}: found {len(answer.content)} bytes, expected an answer of at most 64 MiB")
        found = parse(answer.content)
        if isinstance(found, Problem):
            # A gateway that is being restarted answers 200 with an HTML page.
            raise BrokerUnavailable(f"{path}: {self._credentials.hide(found.detail)}")
        return found

    def _check(self, method: str, path: str, answer: Response) -> None:
        status = answer.status_code
        if status == 200 or (status == 204 and method != "GET"):
            return
        said = self._credentials.hide(answer.content[:200].decode(errors="replace")).strip()
        found = f"{path}: the broker answered HTTP {status}: {said!r}"
        if status in (403, 422) and method != "GET" and not _is_about_keys(answer):
            # Alpaca also answers 403 if the account has too little money.
            raise Refused(found)
        if status in (401, 403):
            kind = "paper" if self._credentials.paper else "live"
            names = " and ".join(self._credentials.names)
            hint = "keys for paper do not work for real money, nor the other way round"
            raise BadCredentials(
                f"the broker refused the keys in {names} for the {kind} account (HTTP {status}); expected valid ones. "
                f"Check them ({hint}) and start again."
            )
        if status == 429:
            pause = _read_pause(answer)
            self._budget.pause(pause)
            raise RateLimited(found, pause)
        if status in (404, 422):  # 422 is the answer to an id that is not one of Alpaca's.
            raise NotFound(found)
        raise (BrokerUnavailable if status >= 500 or status == 408 else BrokerError)(found)

    def _describe(self, path: str, found: Any, expected: str) -> str:
        return f"{path}: found {self._credentials.hide(repr(found)[:120])}, expected {expected}"


def make_client(credentials: Credentials, send: Callable[[str, Session, str, dict[str, Any]], Any]) -> TradingClient:
    """Make alpaca-py's own client, whose every request goes through `send`."""
    # The import takes about a second, and most commands do not need it.
    from alpaca.trading.client import TradingClient

    class Client(TradingClient):
        def _one_request(self, method: str, url: str, opts: dict[str, Any], retry: int) -> Any:
            return send(method, self._session, url, opts)

    return Client(
        credentials.key, credentials.secret, paper=credentials.paper, raw_data=True, url_override=credentials.url
    )


def _is_about_keys(answer: Response) -> bool:
    """Whether a refusal is about the keys: Alpaca's code for that begins with 401."""
    found = parse(answer.content)
    return not isinstance(found, dict) or str(found.get("code", "")).startswith("401")


def _choose_pause(state: RetryCallState) -> float:
    """The pause before the next try; zero after a 429, because the budget waits then."""
    from tenacity import wait_random_exponential

    error = state.outcome.exception() if state.outcome is not None else None
    return 0.0 if isinstance(error, RateLimited) else wait_random_exponential(multiplier=1, max=20)(state)


def _read_pause(answer: Response) -> float:
    """The pause in seconds that the headers of a 429 ask for, within limits."""
    for name, is_instant in (("Retry-After", False), ("X-Ratelimit-Reset", True)):
        text = answer.headers.get(name, "")
        if text.isascii() and text.isdigit():
            pause = float(text) - (time.time() if is_instant else 0.0)
            return min(max(pause, 1.0), PAUSE_SECONDS_MAX)
    return 5.0


def _step_back(instant: Any) -> str | None:
    """The instant one microsecond earlier, so that the next page includes the orders of this instant."""
    from compactor.core.instants import BadInstant, nanos, rfc3339

    try:
        return rfc3339(nanos(instant) - 1000)
    except (BadInstant, TypeError):
        return None
