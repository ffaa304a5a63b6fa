"""Request orders and FILL activities from Alpaca over REST, with retries, a rate limit and typed errors.

`transport` sends the requests, `adapter` translates the answers.

Note: an answer of the wrong shape is an error, never an empty list. Reads are retried after a transient failure;
placing and canceling are not, because only `placing` can do that safely.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from compactor.broker.alpaca.transport import (
    DEADLINE_SECONDS,
    TIMEOUT_SECONDS,
    BadBody,
    DeadlineExceeded,
    HttpAnswer,
    NoAnswer,
    Transport,
    read_skew,
)
from compactor.broker.alpaca.wording import describe_answer, name_request
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.broker.port import (
    BrokerError,
    BrokerTooSlow,
    BrokerUnavailable,
    NotFound,
    RateLimited,
    Refused,
    parse,
)
from compactor.core.events import Problem

if TYPE_CHECKING:
    from tenacity import RetryCallState

ORDERS_PAGE = 500
ACTIVITIES_PAGE = 100
TRIES = 4
PAUSE_SECONDS_MAX = 90
PAGES_MAX = 10_000
BY_CLIENT_ID = "/orders:by_client_order_id"
"""Placing waits for this answer, so that it is as urgent."""


class AlpacaRest:
    """One Alpaca account. All requests count against `budget`, which several clients may share.

    Each method raises BadCredentials if the keys are refused, and BrokerError. Answers are parsed JSON without floats.
    `timeout_seconds` are for connecting and for waiting for bytes, `deadline_seconds` for a whole request; `sleep`
    waits between tries.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        budget: Budget | None = None,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
        deadline_seconds: float = DEADLINE_SECONDS,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._credentials = credentials
        self._budget = budget or Budget()
        self._transport = Transport(credentials, timeout_seconds=timeout_seconds, deadline_seconds=deadline_seconds)
        self._tries = tries
        self._sleep = sleep
        self.headers: Mapping[str, str] = {}
        """Those of the last answer."""
        self.skew_seconds = 0.0
        """How far the broker's clock is ahead of ours, if it is by more than a few seconds."""
        self.requests = 0
        """The number of requests sent, failed ones included."""

    def get_with_headers(self, path: str) -> tuple[Any, Mapping[str, str]]:
        """An answer with the headers that came with it."""
        return self._ask(path), self.headers

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

    def orders_page(self, instant: str) -> list[Any]:
        """One page of the orders submitted from an instant on, in any status, with their legs nested."""
        bound = _step_back(instant)
        if bound is None:
            return []
        return self._page(
            "/orders",
            {"status": "all", "nested": "true", "direction": "asc", "limit": str(ORDERS_PAGE), "after": bound},
        )

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
        path = BY_CLIENT_ID
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
        found = self._send("POST", "/orders", body=request)
        if not isinstance(found, dict) or found.get("client_order_id") != request.get("client_order_id"):
            # The broker accepted something, but it is unknown what.
            raise BrokerUnavailable(self._describe("/orders", found, "the order that was placed"))
        return found

    def replace(self, order_id: str, changes: dict[str, Any]) -> Any:
        """Send one request to replace an order, without a retry; returns the new order. Raises NotFound and Refused."""
        path = f"/orders/{quote(order_id, safe='')}"
        found = self._send("PATCH", path, body=changes)
        if not isinstance(found, dict) or not isinstance(found.get("id"), str):
            raise BrokerUnavailable(self._describe(path, found, "the order that replaces it"))
        return found

    def cancel(self, order_id: str) -> None:
        """Request a cancel, without a retry. Raises NotFound, and Refused if the order can no longer be canceled."""
        self._send("DELETE", f"/orders/{quote(order_id, safe='')}")

    def fills(
        self, after: str, order_id: str | None = None, *, until: str | None = None, pages_max: int | None = None
    ) -> list[Any]:
        """The FILL activities after an instant, oldest first; with `order_id`, only those of this order.

        With `pages_max`, the answer is what so many pages hold.
        """
        return self._activities("/account/activities/FILL", after, order_id, until, pages_max)

    def positions(self) -> list[Any]:
        """All open positions."""
        return self._page("/positions", {})

    def other_activities(self, kinds: Iterable[str], after: str) -> list[Any]:
        """The activities of some kinds after an instant, oldest first."""
        return self._activities("/account/activities", after, activity_types=",".join(kinds))

    def _activities(
        self, path: str, after: str, order_id: str | None = None, until: str | None = None,
        pages_max: int | None = None, **filters: str,
    ) -> list[Any]:  # fmt: skip
        params = {"after": after, "direction": "asc", "page_size": str(ACTIVITIES_PAGE), **filters}
        params |= {name: value for name, value in (("order_id", order_id), ("until", until)) if value is not None}
        found: list[Any] = []
        for _ in range(pages_max or PAGES_MAX):
            page = self._page(path, params)
            # An older server may ignore the filter.
            found += [one for one in page if order_id is None or one.get("order_id") == order_id]
            if len(page) < ACTIVITIES_PAGE:
                return found
            token = page[-1].get("id")
            if not isinstance(token, str) or token == params.get("page_token"):
                raise BrokerError(self._describe(path, page[-1], "a page that goes on"))
            params["page_token"] = token
        if pages_max is not None:
            return found
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
        from tenacity import Retrying, retry_if_exception, stop_after_attempt

        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(self._tries),
            wait=_choose_pause,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(self._send, "GET", path, params)

    def _send(self, method: str, path: str, params: Mapping[str, str] | None = None, body: Any = None) -> Any:
        """Send one request within the budget; returns exact JSON, or raises a typed error without keys in it."""
        self._budget.spend(is_urgent=method != "GET" or path == BY_CLIENT_ID)
        self.requests += 1
        try:
            answer = self._transport.send(method, path, params, body)
        except DeadlineExceeded as error:
            raise BrokerTooSlow(str(error)) from None
        except BadBody as error:
            raise BrokerError(str(error)) from None
        except NoAnswer as error:
            raise BrokerUnavailable(str(error)) from None
        self.headers = answer.headers
        about = name_request(method, path, params, body)
        self._check(method, about, answer)
        found = parse(answer.body) if answer.status != 204 else None
        if isinstance(found, Problem):
            # A gateway that is being restarted answers 200 with an HTML page.
            raise BrokerUnavailable(f"{about}: {self._credentials.hide(found.detail)}")
        # An error may be a gateway's, whose clock is another one.
        self.skew_seconds = read_skew(answer.headers)
        return found

    def _check(self, method: str, about: str, answer: HttpAnswer) -> None:
        status = answer.status
        if status == 200 or (status == 204 and method != "GET"):
            return
        said = self._credentials.hide(describe_answer(status, answer.body))
        found = f"{about}: the broker answered {said}"
        if is_refusal(status, answer.body):
            message = describe_refusal(self._credentials, said)
            raise BadCredentials(message, status=status, code=_read_code(answer.body))
        if status in (401, 403) and isinstance(parse(answer.body), Problem):
            # A page of a gateway says nothing about the keys.
            raise BrokerUnavailable(found, status=status)
        if status in ((400, 403, 404, 409, 422) if method == "POST" else (400, 403, 409, 422)) and method != "GET":
            # Alpaca also answers 403 if the account has too little money, and 404 if it does not know the asset.
            raise Refused(found, status=status, code=_read_code(answer.body))
        if status == 429:
            pause = _read_pause(answer.headers)
            self._budget.pause(pause)
            raise RateLimited(found, pause)
        if status in (404, 422):  # 422 is the answer to an id that is not one of Alpaca's.
            raise NotFound(found, status=status, code=_read_code(answer.body))
        kind = BrokerUnavailable if status >= 500 or status == 408 else BrokerError
        raise kind(found, status=status, code=_read_code(answer.body))

    def _describe(self, path: str, found: Any, expected: str) -> str:
        return f"{path}: found {self._credentials.hide(repr(found)[:120])}, expected {expected}"


def _read_code(body: bytes) -> str | None:
    """The broker's own code in an answer, such as 40310000."""
    found = parse(body)
    code = found.get("code") if isinstance(found, dict) else None
    return str(code) if code is not None else None


def is_refusal(status: int, body: bytes) -> bool:
    """Whether an answer refuses the keys.

    Only JSON of the broker does: with 401, or with 403 and a code that begins with 401 or no code at all. A page of a
    gateway with the same status is an outage.
    """
    found = parse(body) if status in (401, 403) else None
    if not isinstance(found, dict):
        return False
    code = str(found.get("code") or "")
    return status == 401 or not code or code.startswith("401")


def describe_refusal(credentials: Credentials, said: str) -> str:
    """The message of BadCredentials: which variables hold the keys, what the broker said, and what to do."""
    kind = "paper" if credentials.paper else "live"
    return (
        f"the broker refused the keys in {' and '.join(credentials.names)} for the {kind} account ({said}); expected "
        "valid ones. Check them (keys for paper do not work for real money, nor the other way round) and start again."
    )


def _may_pass(error: BaseException) -> bool:
    """Whether a retry at once may succeed."""
    return isinstance(error, BrokerUnavailable) and not isinstance(error, BrokerTooSlow)


def _choose_pause(state: RetryCallState) -> float:
    """The pause before the next try; zero after a 429, because the budget waits then."""
    from tenacity import wait_random_exponential

    error = state.outcome.exception() if state.outcome is not None else None
    return 0.0 if isinstance(error, RateLimited) else wait_random_exponential(multiplier=1, max=20)(state)


def _read_pause(headers: Mapping[str, str]) -> float:
    """The pause in seconds that the headers of a 429 ask for, within limits."""
    for name, is_instant in (("Retry-After", False), ("X-Ratelimit-Reset", True)):
        text = headers.get(name, "")
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
