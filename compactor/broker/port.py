"""What a broker has to offer, in the ledger's own terms. An adapter for each broker implements it (docs/brokers.md).

Everything that an adapter returns is an event as format.md has it: an order is a `snapshot`, an execution a `fill`. No
status, field or error of a broker occurs outside its adapter. Each event has a `source`, an `event_id`, and the
broker's own message as `raw`. Adapters are found by name in `adapters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.core import CompactorError
from compactor.core.decoding import replace_half_characters
from compactor.core.events import Problem

Fields = dict[str, Any]
"""The fields of an event."""
Message = bytes | str
"""A message of a stream, as it came."""


class Translation(NamedTuple):
    """The events of a message, in its order, and the problems found in it.

    An order comes first, its legs after it. `order` is what can be told of the order of a message that is no event:
    `order_id` and `client_order_id`, as far as they are known.
    """

    events: list[Fields]
    problems: list[Problem]
    order: Mapping[str, Any] = {}


Translator = Callable[[Message], Translation]


class BrokerError(CompactorError):
    """A request failed or its answer cannot be used. Nothing was written because of it.

    `status` is the HTTP status of the answer and `code` the broker's own code in it, None where there is none;
    `what_to_do` is the next step, for people.
    """

    what_to_do = "read the message; the next reconcile compares the ledgers with the broker anyway"

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class BrokerUnavailable(BrokerError):
    """The broker did not answer, or answered that it cannot now. A later retry may succeed."""

    what_to_do = "try again later; of a replace or a cancel, let the next reconcile say what became of it"


class BrokerTooSlow(BrokerUnavailable):
    """The answer was not complete at the deadline. It is not retried at once, because each try takes as long."""


class RateLimited(BrokerUnavailable):
    """The account has reached the broker's rate limit; retry after `pause_seconds`."""

    what_to_do = "try again after `pause_seconds`"

    def __init__(self, message: str, pause_seconds: float, *, status: int | None = 429) -> None:
        super().__init__(message, status=status)
        self.pause_seconds = pause_seconds


class NotFound(BrokerError):
    """The broker does not have the thing, or says that its id is invalid."""

    what_to_do = "check the id, and that the keys are those of the account that has the order"


class Refused(BrokerError):
    """The broker rejected a request: an order that it does not accept, or a cancel that is too late."""

    what_to_do = "change the request as the message says; the same one would be refused again"


class UnsupportedLibrary(CompactorError):
    """An installed library does not have what an adapter uses of it."""


class Capabilities(msgspec.Struct, frozen=True):
    """What differs between brokers in a way that the ledger has to know.

    `resends`: what a stream missed can be requested again. `tells_fills_of_orders`: the executions of one order can be
    asked for, however old. `unique_client_ids`: an order is refused if another one has its `client_order_id`, so that
    placing can be retried. `tells_positions`: what the account holds can be asked for.
    """

    resends: bool = True
    tells_fills_of_orders: bool = True
    unique_client_ids: bool = True
    tells_positions: bool = True
    client_id_length_max: int = 128


class Adjustment(NamedTuple):
    """Something that moved a position and is no execution of an order: a split, an exercise, a fee in the asset."""

    kind: str
    symbol: str
    quantity: Decimal
    at: str


Verdict = Literal["as expected", "different", "could not tell"]


class BrokerCheck(msgspec.Struct, frozen=True):
    """How an account behaves in one respect: what was found, and what follows where it is different.

    `evidence` are the answers, with everything replaced that could tell whose they are.
    """

    check: str
    verdict: Verdict
    found: str
    follows: str = ""
    evidence: Any = None


class ResendPoint(msgspec.Struct):
    """Where the last resend ended, in an adapter's own words: which of its sources there was, and the last id."""

    kind: str | None = None
    cursor: str = ""


class ResendResult(msgspec.Struct):
    """The result of a resend. `point.kind` is None if the account has none.

    `is_delivered`: the broker sent all of it and reported nothing as dropped. `complete`: every entry was also
    understood; else `reason` says why not.
    """

    point: ResendPoint = msgspec.field(default_factory=ResendPoint)
    is_delivered: bool = False
    complete: bool = False
    reason: str = ""


class ResentBatch(NamedTuple):
    """Some messages of a resend. `tells_origin`: they also tell which order an order replaces, or whose leg it is.

    `through` is the instant, `cursor` the id up to which all has been sent with this batch, where that is known: a
    resend that is stopped goes on from there.
    """

    messages: Sequence[bytes]
    translate: Translator
    tells_origin: bool
    through: str = ""
    cursor: str = ""


class StreamListener(Protocol):
    """Receives what happens to a stream. Called in the stream's threads; must not raise."""

    def connected(self) -> None:
        """Called when signed in and subscribed."""

    def disconnected(self, reason: str, pause_seconds: float) -> None:
        """Called when a connection ended or could not be made; the next try follows after the pause."""

    def refused(self, error: BadCredentials) -> None:
        """Called when the broker refused the keys, before `disconnected`. It is retried like any other failure."""

    def received(self, messages: Sequence[Message]) -> None:
        """Called with all messages that have arrived, in order; later ones wait until this returns."""


class BrokerStream(Protocol):
    """A stream of messages: connects and reconnects until it is stopped."""

    def run(self) -> None:
        """Listen until `stop` is called."""

    def stop(self) -> None:
        """Make `run` return soon, after handing on what was received. Safe from any thread, at any time."""

    def reconnect(self, why: str) -> None:
        """Close the connection, if there is one, and open another. Safe from any thread."""


class BrokerPort(Protocol):
    """One account at a broker. Requests count against the budget that it was opened with.

    Each method that asks raises BadCredentials if the keys are refused, and BrokerError. Reads are retried after a
    transient failure; placing, replacing and canceling are not, because only `placing` can do that safely. An answer of
    the wrong shape is an error, never an empty list; one odd order in a list is a problem beside the others.
    """

    capabilities: Capabilities

    @property
    def requests(self) -> int:
        """The number of requests sent, failed ones included."""

    @property
    def skew_seconds(self) -> float:
        """How far the broker's clock is ahead of ours, as of the last answer that was no error; 0 if it is near,
        or unknown."""

    def read_account_id(self) -> str:
        """The id of the account, by which other keys are noticed."""

    def read_open_orders(self) -> Translation:
        """All open orders with their legs."""

    def read_orders_since(self, instant: str) -> Translation:
        """All orders placed after an instant (RFC 3339), in any status, with their legs."""

    def read_order(self, order_id: str) -> Translation | None:
        """One order and its legs; None if the broker has no order with this id."""

    def list_orders(self, wanted: Mapping[str, str | None]) -> Translation:
        """Some orders with their legs, in fewer requests than one each. `wanted` are ids with `created_at`, if known.

        Best effort: those that are not in the answer are asked for one by one.
        """

    def find_order(self, client_order_id: str) -> Translation | None:
        """The newest order with this client order id; None if the broker has none."""

    def read_fills_since(self, instant: str) -> Translation:
        """The executions after an instant, oldest first, each as a fill of the order whose money it is (rule 4.10)."""

    def read_order_fills(self, order: Mapping[str, Any], since: str) -> Translation:
        """All executions of one order, given as the broker's snapshot of it; none is older than `since`."""

    def list_fills(self, orders: Sequence[Mapping[str, Any]]) -> Translation:
        """The executions of several orders, in fewer requests than one each. Best effort, like `list_orders`."""

    def read_positions(self) -> dict[str, Decimal]:
        """What the account holds, by symbol; short positions are below zero."""

    def read_adjustments(self, since: str) -> Sequence[Adjustment]:
        """What moved positions without an execution since an instant."""

    def read_request(self, request: Any) -> Fields:
        """The terms that an application asks for, by the names of the ledger; other fields are kept for `place`.

        Raises TypeError for what is no request of this broker's client library, and no mapping; Refused for a number
        that is none.
        """

    def place(self, terms: Mapping[str, Any]) -> Translation:
        """Place an order, without a retry; returns the order as the broker has it, and its legs.

        Raises Refused if the broker rejects it. After BrokerUnavailable it is unknown whether the order was placed.
        """

    def replace(self, order_id: str, changes: Mapping[str, Any]) -> Translation:
        """Replace an order by one with other terms, without a retry; returns the new order, which may have a new id.
        With a `client_order_id` among the changes the new order has that.

        Raises NotFound, and Refused if the order can no longer be replaced.
        """

    def cancel(self, order_id: str) -> None:
        """Request a cancel, without a retry. Raises NotFound, and Refused if the order can no longer be canceled."""

    def examine(self, per_minute: int) -> Iterator[BrokerCheck]:
        """Check, read-only, how the account behaves where that is not documented; `per_minute` is the ledger's budget.

        Raises BadCredentials; whatever else fails could not be told.
        """

    def translate(self, message: Message) -> Translation:
        """Translate a message of the stream; never raises. What is about the connection gives no event."""

    def open_stream(self, listener: StreamListener) -> BrokerStream:
        """The stream of the account; nothing is connected before it runs."""

    def resend(self, since: str, until: str, point: ResendPoint, result: ResendResult) -> Iterator[ResentBatch]:
        """Request again what the stream sent between two instants, and since `point`; fills in `result` at the end.

        Raises BadCredentials if every source refuses the keys. Without the capability `resends` it yields nothing.
        """


class BrokerAdapter(Protocol):
    """What an entry point of the group "compactor.brokers" names, for example a module with these functions."""

    def find_credentials(
        self, environ: Mapping[str, str], *, names: tuple[str, str] | None, live: bool, url: str | None
    ) -> Credentials:
        """Read the keys of an account from the environment. Raises BadCredentials; no message contains a key."""

    def check_libraries(self) -> None:
        """Raises UnsupportedLibrary if an installed library lacks what the adapter uses."""

    def open_account(
        self, credentials: Credentials, *, budget: Budget | None, timeout_seconds: tuple[float, float] | None,
        tries: int | None, sleep: Callable[[float], None],
    ) -> BrokerPort:  # fmt: skip
        """An account. Nothing is sent yet. Without `timeout_seconds` and `tries` the adapter's own apply."""


def parse(line: bytes) -> Any:
    """Parse JSON without passing a number through a float. Returns a `Problem` for what is not JSON, such as HTML."""
    try:
        return _decode(replace_half_characters(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        start = line[:40].decode(errors="replace")
        return Problem("not_json", f"expected a JSON message, found {start!r} ({error})")


_decode = msgspec.json.Decoder(float_hook=str).decode


def content_digest(content: Any) -> str:
    """Make an id of the content of a message, independent of the order of its fields."""
    return "digest:" + blake2b(msgspec.json.encode(content, order="sorted"), digest_size=16).hexdigest()
