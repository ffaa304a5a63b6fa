"""A replacement whose sums go on from its predecessor's: what was filled before is never traded twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.books.order_index import OrderIndex
from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.leg_executions import EntryReader, LegBook
from compactor.broker.alpaca.translate import translate_message
from compactor.broker.budget import Budget
from compactor.broker.placing import Trader
from compactor.sync.answers import AskedAccount
from compactor.sync.reconcile import Reconciler
from compactor.sync.reconciled import Reconciled
from compactor.sync.stream_writer import StreamWriter
from tests.scripted_alpaca import ScriptedAlpaca, ago, make_fill, make_order

TERMS = {"symbol": "SPY", "side": "buy", "qty": "10", "time_in_force": "day"}
FIRST: dict[str, Any] = {"id": "a", **TERMS, "client_order_id": "alice:1", "filled_avg_price": "10"}
SECOND: dict[str, Any] = {"id": "b", **TERMS, "client_order_id": "b", "replaces": "a", "filled_avg_price": "10"}


def fill(order: dict[str, Any], execution: str, qty: str, filled: str, at: int) -> bytes:
    told = {**order, "filled_qty": filled, "status": "partially_filled"}
    return frame("partial_fill", told, at, execution_id=execution, qty=qty, price="10")


def frame(event: str, order: dict[str, Any], at: int, **more: Any) -> bytes:
    data = {"event": event, "timestamp": f"2026-03-02T15:00:{at:02}Z", "order": order, **more}
    return json.dumps({"stream": "trade_updates", "data": data}).encode()


BEFORE = [
    fill(FIRST, "x-1", "3", "3", 0),
    frame("replaced", {**FIRST, "filled_qty": "3", "replaced_by": "b", "status": "replaced"}, 1),
]
NEW = frame("new", {**SECOND, "filled_qty": "3", "status": "new"}, 2)
NEXT = fill(SECOND, "x-2", "2", "5", 3)


def make_writer(data: Path) -> StreamWriter:
    return StreamWriter(data, translate_message, index=OrderIndex(data, ["alice"]))


def quantities(data: Path, team: str = "alice") -> list[str]:
    with Ledger(data / "team" / team) as ledger:
        ledger.compact()
        return [row["quantity"] for row in ledger.rows("trades")]


def filled(data: Path, team: str = "alice") -> list[str]:
    with Ledger(data / "team" / team) as ledger:
        ledger.compact()
        assert [] == list(ledger.rows("findings"))
        return [row["filled_qty"] for row in ledger.rows("pending_orders")]


@pytest.mark.parametrize("restarts", [(), (3,), (1, 2, 3)], ids=["at once", "before the fill", "between all"])
def test_what_a_replacement_carries_over_is_no_fill_of_its_own(data: Path, restarts: tuple[int, ...]) -> None:
    """Issue 16, 5: told in one run, or by processes that end in between: the log has what was carried."""
    writer = make_writer(data)
    for number, message in enumerate([*BEFORE, NEW, NEXT]):
        if number in restarts:
            writer = make_writer(data)
        writer.store([message])
    assert (["3", "2"], ["2"]) == (quantities(data), filled(data))
    line = (data / "team/alice/events.jsonl").read_text().splitlines()[-1]
    assert ("2", "3") == (json.loads(line)["filled_qty"], json.loads(line)["carried_qty"])


def test_sums_of_which_nobody_can_say_whose_they_are_tell_nothing(data: Path) -> None:
    """The `new` was not heard: five of ten may be its own or not, and the execution is two, whatever they are."""
    make_writer(data).store([*BEFORE, NEXT])
    assert (["3", "2"], ["2"]) == (quantities(data), filled(data))


@pytest.mark.parametrize("heard", [[], [frame("new", {**FIRST, "status": "new", "filled_qty": "0"}, 0)]])
def test_a_rejected_replacement_of_an_order_whose_fills_nobody_heard_has_no_trade(
    data: Path, heard: list[bytes]
) -> None:
    """What it says is filled is its predecessor's, for all that is known."""
    rejected = frame("rejected", {**SECOND, "client_order_id": "alice:2", "filled_qty": "3", "status": "rejected"}, 4)
    make_writer(data).store([*heard, rejected])
    assert [] == quantities(data)


def test_a_replacement_of_an_order_without_a_fill_is_believed(data: Path) -> None:
    """A fill that was missed is still inferred where nothing can have been carried over."""
    replaced = frame("replaced", {**FIRST, "filled_qty": "0", "replaced_by": "b", "status": "replaced"}, 1)
    make_writer(data).store([frame("new", {**FIRST, "status": "new"}, 0), replaced, NEXT])
    assert ["3", "2"] == sorted(quantities(data), reverse=True)


def test_a_replacement_that_begins_at_zero_carries_nothing(data: Path) -> None:
    """What the broker usually does; a fill that was missed before a restart is inferred."""
    new = frame("new", {**SECOND, "filled_qty": "0", "status": "new"}, 2)
    make_writer(data).store([*BEFORE, new])
    make_writer(data).store([fill(SECOND, "x-3", "2", "5", 5)])
    assert ["3", "3", "2"] == sorted(quantities(data), reverse=True)


def test_a_resend_after_a_restart_carries_nothing_either(data: Path) -> None:
    """Issue 16, 2 and 5: an entry of the activity stream has the sum, and does not tell what its order replaces."""
    make_writer(data).store([*BEFORE, NEW])
    details = {"execution_type": "fill", "order_id": "b", "symbol": "SPY", "side": "buy", "cum_qty": "5"}
    entry = {
        "activity_type": "TRD", "executed_at": "2026-03-02T15:00:03Z", "ref_id": "x-2", "price": "10", "qty": "2",
        "details": {**details, "leaves_qty": "5"},
    }  # fmt: skip
    reader = EntryReader(LegBook(lambda order_id: None))
    make_writer(data).store([json.dumps(entry).encode()], reader.translate, adopt=False)
    assert (["3", "2"], ["2"]) == (quantities(data), filled(data))


def test_several_replacements_in_a_row(data: Path) -> None:
    """Each one's sums begin where its predecessor's ended."""
    third = {**SECOND, "id": "c", "replaces": "b"}
    messages = [
        *BEFORE, NEW, NEXT,
        frame("replaced", {**SECOND, "filled_qty": "5", "replaced_by": "c", "status": "replaced"}, 4),
        frame("new", {**third, "filled_qty": "5", "status": "new"}, 5),
        fill(third, "x-3", "1", "6", 6),
    ]  # fmt: skip
    for message in messages:
        make_writer(data).store([message])
    assert (["3", "2", "1"], ["1"]) == (quantities(data), filled(data))


@pytest.fixture
def server() -> Iterator[ScriptedAlpaca]:
    with ScriptedAlpaca() as one:
        yield one


def reconcile(server: ScriptedAlpaca, data: Path) -> Reconciled:
    broker = open_broker(find_credentials(server.environment), budget=Budget(100_000), tries=1)
    return Reconciler(data, [AskedAccount("default", broker)], teams=["alpha"]).run()


def place_and_replace(server: ScriptedAlpaca, data: Path) -> None:
    """Three of ten are filled, then it is replaced by one that says so, too; the predecessor is old."""
    server.orders["p"] = make_order(
        "p", seconds_ago=20_000, status="partially_filled", filled_qty="3", filled_avg_price="100"
    )
    server.fills.append(make_fill("p", "x1", "3", "100", "3", 19_000))
    reconcile(server, data)
    server.orders["p"].update(status="replaced", replaced_by="q", updated_at=ago(90), replaced_at=ago(90))
    server.orders["q"] = make_order("q", seconds_ago=90, replaces="p", filled_qty="3", filled_avg_price="100")
    reconcile(server, data)


@pytest.mark.parametrize("is_continued", [True, False], ids=["its activities go on, too", "they begin at zero"])
@pytest.mark.parametrize("is_gone", [False, True], ids=["listed nowhere", "gone"])
def test_a_reconcile_asks_for_a_predecessor_that_no_list_has(
    server: ScriptedAlpaca, data: Path, is_continued: bool, is_gone: bool
) -> None:
    """Issue 16, 5: without its sum, what it had filled would be traded again, long after it was replaced."""
    place_and_replace(server, data)
    server.hide.add("p")
    if is_gone:
        server.orders["gone"] = server.orders.pop("p")
    server.orders["q"].update(status="partially_filled", filled_qty="5", updated_at=ago(40))
    server.fills.append(make_fill("q", "x2", "2", "100", "5" if is_continued else "2", 40))
    reconcile(server, data)
    assert (["3", "2"], ["2"]) == (quantities(data, "alpha"), filled(data, "alpha"))
    assert {"position_differs"} == {one.kind for one in reconcile(server, data).problems}, "nor while it is open"
    server.orders["q"].update(status="canceled", updated_at=ago(30), canceled_at=ago(30))
    reconcile(server, data)
    assert (["3", "2"], []) == (quantities(data, "alpha"), filled(data, "alpha"))
    done = reconcile(server, data)
    assert (0, {"position_differs"}) == (done.events, {one.kind for one in done.problems}), "the sums agree"


def test_a_cancel_tells_no_sum_of_a_replacement(server: ScriptedAlpaca, data: Path) -> None:
    """How it ended is in the log at once; what was filled of it the executions tell."""
    place_and_replace(server, data)
    server.orders["q"].update(status="canceled", updated_at=ago(0), canceled_at=ago(0))
    server.answers["DELETE", "/v2/orders/*"] = lambda _request: {}
    Trader(data, find_credentials(server.environment), budget=Budget(1000)).cancel("q")
    assert (["3"], []) == (quantities(data, "alpha"), filled(data, "alpha"))
