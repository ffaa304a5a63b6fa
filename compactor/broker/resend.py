"""Request a resend from Alpaca: the server-sent events since an instant, for accounts that have such an endpoint.

There are two endpoints. `/v2/events/trades` sends every update in the format of the stream, and
`/v2beta1/events/activities` only fills, busts and corrections. Which of them an account has is not documented, so both
are probed. `sync.stream_writer` writes the events.

Note: a comment line can say that messages were dropped. What was sent is then kept, and the resend is incomplete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from compactor.broker.alpaca import Fields, Translation, translate
from compactor.broker.budget import Budget
from compactor.broker.credentials import Credentials
from compactor.broker.rest import make_client
from compactor.core.decimals import BadDecimal, parse_decimal
from compactor.core.events import Problem
from compactor.core.exceptions import CompactorError
from compactor.core.instants import BadInstant, nanos

if TYPE_CHECKING:
    from requests import Response, Session

Kind = Literal["trades", "activities"]
ADDRESSES: Mapping[Kind, tuple[str, str]] = {
    "trades": ("v2", "/events/trades"),
    "activities": ("v2beta1", "/events/activities"),
}
"""In the order in which they are tried: the first one has more events."""
TIMEOUT_SECONDS = (5.0, 20.0)
SECONDS_MAX = 60.0
_BEYOND_NS = 5_000_000_000
"""How far behind the end an event may be: it is sent slightly later than it happened."""
_LINE_BYTES_MAX = 16 << 20

# An activity (schema ActivityEventV2, and its trade details): Alpaca's name on the left, ours on the right.
ACTIVITY: Mapping[str, str] = {
    "executed_at": "ts",
    "ref_id": "execution_id",  # "For trades the execution_id is used", says the schema.
    "previous_id": "previous_execution_id",
    "price": "price",
    "qty": "qty",
}
DETAILS: Mapping[str, str] = {
    "execution_type": "event",
    "order_id": "order_id",
    "symbol": "symbol",
    "side": "side",
    "cum_qty": "filled_qty",
    "order_status": "order_status",
    "client_order_id": "client_order_id",
}


class NoResend(CompactorError):
    """This account does not have the endpoint."""


class ResendResult(msgspec.Struct):
    """The result of a resend: `complete` if the broker ended it and reported nothing as dropped."""

    complete: bool = False
    reason: str = ""


class Resend:
    """The resends of one account. Requests count against `budget`."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        budget: Budget | None = None,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
    ) -> None:
        self._credentials = credentials
        self._budget = budget or Budget()
        self._timeout = timeout_seconds
        self._client: Any = None

    def read(self, kind: Kind, since: str, until: str, result: ResendResult) -> Iterator[bytes]:
        """Yield the data of each event between two instants, unparsed; then `result` says whether it was complete.

        Raises NoResend if the account does not have this kind.
        """
        import requests

        try:
            with self._ask(kind, since, until) as answer:
                yield from self._events(answer, nanos(until), result)
        except requests.RequestException as error:
            result.reason = self._credentials.hide(str(error))[:200]

    def _ask(self, kind: Kind, since: str, until: str) -> Response:
        version, path = ADDRESSES[kind]
        if self._client is None:
            self._client = make_client(self._credentials, _make_sender(self._timeout))
        self._budget.spend()
        answer: Response = self._client.get(path, {"since": since, "until": until}, api_version=version)
        if answer.status_code == 200 and "event-stream" in answer.headers.get("Content-Type", ""):
            return answer
        answer.close()
        found = f"{path}: the broker answered HTTP {answer.status_code}"
        if answer.status_code == 429:
            self._budget.pause(5.0)
        if answer.status_code == 429 or answer.status_code >= 500:
            import requests

            raise requests.RequestException(found)
        raise NoResend(found)

    def _events(self, answer: Response, until: int, result: ResendResult) -> Iterator[bytes]:
        deadline = time.monotonic() + SECONDS_MAX
        data: list[bytes] = []
        for line in _read_lines(answer):
            if time.monotonic() > deadline:
                result.reason = f"it had no end after {SECONDS_MAX:.0f} s"
                return
            if line.startswith(b":"):
                result.reason = result.reason or _read_complaint(line)
            elif line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                event, data = b"\n".join(data), []
                yield event
                if _read_instant(event) > until + _BEYOND_NS:
                    break  # A server that ignores `until` goes on with current events.
        result.complete = not result.reason


def translate_resent(message: Any) -> Translation:
    """Translate an event of either kind; a fill that leaves a part of the order open is a partial fill."""
    if not isinstance(message, dict) or "activity_type" not in message:
        return translate(message, source="stream")
    if message["activity_type"] != "FILL":
        return Translation([], [])  # A dividend or a fee does not belong to an order.
    details = message.get("details")
    if not isinstance(details, dict):
        return Translation([], [Problem("missing_field", "an activity of a trade without its details")])
    event: Fields = {ours: message[theirs] for theirs, ours in ACTIVITY.items() if message.get(theirs)}
    event |= {ours: details[theirs] for theirs, ours in DETAILS.items() if details.get(theirs)}
    if not {"event", "order_id", "ts"} <= event.keys():
        return Translation([], [Problem("missing_field", "an activity of a trade without type, order or time")])
    if event["event"] == "fill" and _leaves_quantity(details.get("leaves_qty")):
        event["event"] = "partial_fill"
    if event["event"] not in ("trade_bust", "trade_correct"):
        event.pop("previous_execution_id", None)
    first = {name: event[name] for name in ("event", "order_id", "ts")}
    identity = {"event_id": str(message["event_id"])} if message.get("event_id") else {}
    return Translation([first | event | identity | {"source": "stream", "raw": message}], [])


def _leaves_quantity(leaves: Any) -> bool:
    try:
        return leaves is not None and parse_decimal(str(leaves)) > 0
    except BadDecimal:
        return True


def _read_complaint(comment: bytes) -> str:
    """The problem that a comment reports; empty for greetings and heartbeats."""
    text = comment[1:].strip().decode(errors="replace")
    return text[:120] if "dropped" in text or "too slowly" in text or "error" in text else ""


def _read_instant(event: bytes) -> int:
    try:
        return nanos(_decode_at(event).at or "")
    except (msgspec.DecodeError, UnicodeDecodeError, BadInstant):
        return 0


class _Stamp(msgspec.Struct):
    at: str | None = None


_decode_at = msgspec.json.Decoder(_Stamp).decode


def _read_lines(answer: Response) -> Iterator[bytes]:
    """Yield the lines of an answer as they arrive, without their ends."""
    rest = b""
    for piece in answer.iter_content(1 << 16):
        first, *lines = piece.split(b"\n")
        rest += first
        if len(rest) > _LINE_BYTES_MAX:
            import requests

            raise requests.RequestException(f"a line of more than {_LINE_BYTES_MAX} bytes, expected events")
        for line in lines:
            yield rest.removesuffix(b"\r")
            rest = line


def _make_sender(timeout: tuple[float, float]) -> Callable[[str, Session, str, dict[str, Any]], Response]:
    """Make a function that sends a request and returns the answer before its body has arrived."""

    def send(method: str, session: Session, url: str, options: dict[str, Any]) -> Response:
        # Compression would delay events until a block is full.
        options["headers"] |= {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        return session.request(method, url, stream=True, timeout=timeout, **options)

    return send
