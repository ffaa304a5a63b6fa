"""Asks Alpaca to tell again what it has told since an instant: its server-sent events, where the account has them.

Two addresses do that. `/v2/events/trades` tells every update in the words of the stream, `/v2beta1/events/activities`
fills, busts and corrections alone. Whether an account has them is not documented, so it is tried. What is told is for
`jobs.streaming` to write. The rule that surprises: a comment line can say that messages were dropped; what was told is
then kept, and the replay is not complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from compactor.broker.alpaca import Fields, Translation, translate
from compactor.broker.budget import Budget
from compactor.broker.credentials import Credentials
from compactor.broker.rest import client
from compactor.core.decimals import BadDecimal, decimal_of
from compactor.core.events import Problem
from compactor.core.instants import BadInstant, nanos

if TYPE_CHECKING:
    from requests import Response, Session

Kind = Literal["trades", "activities"]
ADDRESSES: Mapping[Kind, tuple[str, str]] = {
    "trades": ("v2", "/events/trades"),
    "activities": ("v2beta1", "/events/activities"),
}
"""In the order in which they are tried: the first one tells more."""
TIMEOUT_SECONDS = (5.0, 20.0)
SECONDS_MAX = 60.0
_BEYOND_NS = 5_000_000_000
"""How far behind the end an event may lie: when it was told is a little later than when it happened."""
_LINE_BYTES_MAX = 16 << 20

# Of an activity (schema ActivityEventV2, with its details of a trade), Alpaca's name on the left, ours on the right.
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


class NoReplay(Exception):
    """This account has no such events."""


class Replayed(msgspec.Struct):
    """How a replay went: `complete` once the broker has ended it and said of nothing that it was dropped."""

    complete: bool = False
    reason: str = ""


class Replay:
    """The events of one account, told again. Requests are paid for from `budget`."""

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

    def read(self, kind: Kind, since: str, until: str, result: Replayed) -> Iterator[bytes]:
        """The data of each event between two instants, as it came; `result` says at the end whether that was all.

        Raises NoReplay where the account does not have this kind.
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
            self._client = client(self._credentials, _streaming(self._timeout))
        self._budget.take()
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
        raise NoReplay(found)

    def _events(self, answer: Response, until: int, result: Replayed) -> Iterator[bytes]:
        deadline = time.monotonic() + SECONDS_MAX
        data: list[bytes] = []
        for line in _lines(answer):
            if time.monotonic() > deadline:
                result.reason = f"it had no end after {SECONDS_MAX:.0f} s"
                return
            if line.startswith(b":"):
                result.reason = result.reason or _complaint(line)
            elif line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                event, data = b"\n".join(data), []
                yield event
                if _at(event) > until + _BEYOND_NS:
                    break  # A server that does not know `until` goes on with what happens now.
        result.complete = not result.reason


def read_replayed(message: Any) -> Translation:
    """Translate an event of either kind; a fill that leaves something of the order is a partial one."""
    if not isinstance(message, dict) or "activity_type" not in message:
        return translate(message, source="stream")
    if message["activity_type"] != "FILL":
        return Translation([], [])  # A dividend, a fee: money, but of no order.
    details = message.get("details")
    if not isinstance(details, dict):
        return Translation([], [Problem("missing_field", "an activity of a trade without its details")])
    event: Fields = {ours: message[theirs] for theirs, ours in ACTIVITY.items() if message.get(theirs)}
    event |= {ours: details[theirs] for theirs, ours in DETAILS.items() if details.get(theirs)}
    if not {"event", "order_id", "ts"} <= event.keys():
        return Translation([], [Problem("missing_field", "an activity of a trade without type, order or time")])
    if event["event"] == "fill" and _leaves_something(details.get("leaves_qty")):
        event["event"] = "partial_fill"
    if event["event"] not in ("trade_bust", "trade_correct"):
        event.pop("previous_execution_id", None)
    first = {name: event[name] for name in ("event", "order_id", "ts")}
    identity = {"event_id": str(message["event_id"])} if message.get("event_id") else {}
    return Translation([first | event | identity | {"source": "stream", "raw": message}], [])


def _leaves_something(leaves: Any) -> bool:
    try:
        return leaves is not None and decimal_of(str(leaves)) > 0
    except BadDecimal:
        return True


def _complaint(comment: bytes) -> str:
    """What a comment says is wrong; most are greetings and heartbeats."""
    text = comment[1:].strip().decode(errors="replace")
    return text[:120] if "dropped" in text or "too slowly" in text or "error" in text else ""


def _at(event: bytes) -> int:
    try:
        return nanos(_decode_at(event).at or "")
    except (msgspec.DecodeError, UnicodeDecodeError, BadInstant):
        return 0


class _Told(msgspec.Struct):
    at: str | None = None


_decode_at = msgspec.json.Decoder(_Told).decode


def _lines(answer: Response) -> Iterator[bytes]:
    """The lines of an answer, as they come; each without its end."""
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


def _streaming(timeout: tuple[float, float]) -> Callable[[str, Session, str, dict[str, Any]], Response]:
    """Sends a request whose answer is handed out while it is still being told."""

    def send(method: str, session: Session, url: str, options: dict[str, Any]) -> Response:
        # Without compression, which would hold events back until a block is full.
        options["headers"] |= {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        return session.request(method, url, stream=True, timeout=timeout, **options)

    return send
