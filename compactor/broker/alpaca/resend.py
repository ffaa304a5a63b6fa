"""Request a resend from Alpaca: the server-sent events since an instant or an id, for accounts with such an endpoint.

There are two endpoints. `/v2/events/trades` sends every update in the format of the stream, and
`/v2beta1/events/activities` only fills, busts and corrections. Which of them an account has is not documented, so both
are probed. `leg_executions` translates the events, `adapter` chooses the endpoint and the windows.

Note: a comment line can say that messages were dropped. What was sent is then kept, and the resend is incomplete.
Entries that the broker adds later come at the end of the order of ids with their old time, so a window of time misses
them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from compactor.broker.alpaca.leg_executions import find_unknown_kind
from compactor.broker.alpaca.rest import describe_refusal, is_refusal
from compactor.broker.alpaca.transport import TIMEOUT_SECONDS, DeadlineExceeded, NoAnswer, OpenAnswer, Transport
from compactor.broker.alpaca.wording import describe_answer
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.core import CompactorError
from compactor.core.instants import BadInstant, nanos

Kind = Literal["trades", "activities"]
ADDRESSES: Mapping[Kind, tuple[str, str]] = {
    "trades": ("v2", "/events/trades"),
    "activities": ("v2beta1", "/events/activities"),
}
"""In the order in which they are tried: the first one has more events."""
SECONDS_MAX = 60.0
_BEYOND_NS = 5_000_000_000
"""How far behind the end an event may be: it is sent slightly later than it happened."""
_LINE_BYTES_MAX = 16 << 20
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_TIME_DIGITS, _ULID_DIGITS = 10, 26
# Without compression, which would delay events until a block is full.
_HEADERS = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}


class NoResend(CompactorError):
    """This account does not have the endpoint, or the endpoint does not know the parameters."""


class WindowResult(msgspec.Struct):
    """The result of one request for a window of time or of ids.

    `is_delivered`: the broker ended it and reported nothing as dropped. `complete`: every entry was also understood;
    `unknown` are the kinds of those that were not. `newest_id` is the greatest ULID of an event, `newest_at` the last
    instant of one, in nanoseconds.
    """

    is_delivered: bool = False
    complete: bool = False
    reason: str = ""
    unknown: set[str] = set()
    newest_id: str = ""
    newest_at: int = 0
    is_endless: bool = False
    """It was left at the deadline, so that another try would take as long."""


class EventStreams:
    """The two endpoints of one account. Requests count against `budget`."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        budget: Budget | None = None,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        self._credentials = credentials
        self._budget = budget or Budget()
        self._seconds_max = seconds_max
        self._transport = Transport(credentials, timeout_seconds=timeout_seconds, deadline_seconds=seconds_max + 5)

    def read(
        self, kind: Kind, since: str, until: str, result: WindowResult, *, since_id: str | None = None
    ) -> Iterator[bytes]:
        """Yield the data of each event, unparsed; then `result` says whether it was complete.

        The events are those between two instants; with `since_id`, those with a greater id up to that of `until`.
        Raises NoResend if the account does not have this kind, and BadCredentials.
        """
        end = nanos(until)
        params = {"since": since, "until": until}
        if since_id is not None:
            params = {"since_id": since_id, "until_id": make_ulid(end, last=True)}
        version, path = ADDRESSES[kind]
        self._budget.spend()
        try:
            with self._transport.open("GET", path, params, version=version, headers=_HEADERS) as answer:
                self._check(f"/{version}{path}", answer)
                yield from self._read_events(answer, end, result)
        except NoAnswer as error:
            result.reason = self._credentials.hide(str(error))[:200]
            result.is_delivered = result.complete = False
            result.is_endless = isinstance(error, DeadlineExceeded)

    def _check(self, path: str, answer: OpenAnswer) -> None:
        """Tell an endpoint that is not there from one that cannot answer now."""
        status, kind = answer.status, answer.headers.get("Content-Type", "")
        if status == 200 and "event-stream" in kind:
            return
        body = next(answer.pieces, b"")
        said = self._credentials.hide(describe_answer(status, body))
        found = f"{path}: the broker answered {said}"
        if is_refusal(status, body):
            raise BadCredentials(describe_refusal(self._credentials, said))
        if status == 429:
            self._budget.pause(5.0)
        if status in (408, 429) or status >= 500 or ("html" in kind and status != 404):
            # A page of a gateway says nothing about the endpoint.
            raise NoAnswer(found)
        raise NoResend(found)

    def _read_events(self, answer: OpenAnswer, until: int, result: WindowResult) -> Iterator[bytes]:
        deadline = time.monotonic() + self._seconds_max
        data: list[bytes] = []
        for line in _read_lines(answer):
            if time.monotonic() > deadline:
                result.reason = f"it had no end after {self._seconds_max:.0f} s"
                result.is_endless = True
                return
            if line.startswith(b":"):
                result.reason = result.reason or _read_complaint(line)
            elif line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                event, data = b"\n".join(data), []
                stamp = _read_stamp(event)
                at = _read_instant(stamp)
                result.newest_id = max(result.newest_id, _find_ulid(stamp))
                result.newest_at = max(result.newest_at, at)
                unknown = find_unknown_kind(event)
                if unknown is None:
                    yield event
                else:
                    result.unknown.add(unknown[:60])
                if at > until + _BEYOND_NS:
                    break  # A server that ignores the end goes on with current events.
        result.is_delivered = not result.reason
        if result.unknown:
            result.reason = result.reason or f"entries of unknown kinds: {', '.join(sorted(result.unknown))}"
        result.complete = not result.reason


def make_ulid(at: int, *, last: bool = False) -> str:
    """The first or last ULID of a millisecond; `at` is in nanoseconds."""
    number = max(0, at) // 1_000_000 << 80 | ((1 << 80) - 1 if last else 0)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def step_back_ulid(ulid: str, seconds: int) -> str:
    """The first ULID so many seconds earlier: ids are not in order within a millisecond, and clocks differ."""
    milliseconds = 0
    for digit in ulid[:_ULID_TIME_DIGITS]:
        milliseconds = milliseconds << 5 | _CROCKFORD.index(digit)
    return make_ulid((milliseconds - seconds * 1000) * 1_000_000)


class _Stamp(msgspec.Struct):
    at: str | None = None
    event_id: str | int | None = None
    event_ulid: str | None = None


_decode_stamp = msgspec.json.Decoder(_Stamp).decode


def _read_stamp(event: bytes) -> _Stamp:
    try:
        return _decode_stamp(event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Stamp()


def _find_ulid(stamp: _Stamp) -> str:
    """The ULID of an event; empty if it has none, because ids are optional and older ones are numbers."""
    found = str(stamp.event_ulid or stamp.event_id or "")
    is_ulid = len(found) == _ULID_DIGITS and found[0] in "01234567" and set(found) <= set(_CROCKFORD)
    return found if is_ulid else ""


def _read_instant(stamp: _Stamp) -> int:
    try:
        return nanos(stamp.at or "")
    except BadInstant:
        return 0


def _read_complaint(comment: bytes) -> str:
    """The problem that a comment reports; empty for greetings and heartbeats."""
    text = comment[1:].strip().decode(errors="replace")
    return text[:120] if "dropped" in text or "too slowly" in text or "error" in text else ""


def _read_lines(answer: OpenAnswer) -> Iterator[bytes]:
    """Yield the lines of an answer as they arrive, without their ends."""
    rest = b""
    for piece in answer.pieces:
        first, *lines = piece.split(b"\n")
        rest += first
        if len(rest) > _LINE_BYTES_MAX:
            raise NoAnswer(f"found a line of more than {_LINE_BYTES_MAX} bytes, expected events")
        for line in lines:
            yield rest.removesuffix(b"\r")
            rest = line
