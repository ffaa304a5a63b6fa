"""The requests of a ledger whose outcome nobody has written: none is lost, however its line looks."""

import json
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.core.events import LINE_BYTES_MAX
from compactor.ledger import LedgerEntry
from compactor.ledger.open_intents import Intent, read_open_intents
from tests.cases import LOG
from tests.test_system_calls import opened

TS = "2026-03-02T10:00:00Z"


def submitting(name: str, **fields: Any) -> bytes:
    event = {"event": "submitting", "order_id": name, "client_order_id": name, "ts": TS, **fields}
    return json.dumps(event).encode() + b"\n"


def refused(name: str) -> bytes:
    event = {"event": "refused", "order_id": name, "client_order_id": name, "ts": TS}
    return json.dumps(event).encode() + b"\n"


@pytest.mark.parametrize("checkpoint", [None, "good", "damaged"])
def test_those_without_an_outcome_come_oldest_first(data: Path, checkpoint: str | None) -> None:
    """3.13: from a checkpoint and what came since, or from the whole log; and nothing stays open."""
    first = (
        submitting("z")
        + submitting("c", note="why", tags=["t"], request={"symbol": "SPY"}, writer="w")
        + submitting("b")
    )
    rest = refused("b") + submitting("a") + submitting("b", note="again")
    (data / LOG).write_bytes(first)
    if checkpoint:
        Ledger(data).compact(checkpoint=True)
    if checkpoint == "damaged":
        slot = data / ".state/checkpoint.0"
        slot.write_bytes(slot.read_bytes()[:100])
    with (data / LOG).open("ab") as log:
        log.write(rest + b"unfinished")
    before = opened()
    whole = first + rest
    expected = [
        Intent(client_order_id="z", team_id="default", ts=TS, offset=0),
        Intent(
            client_order_id="c", team_id="default", ts=TS, offset=len(submitting("z")), note="why", tags=["t"],
            request={"symbol": "SPY"}, writer="w",
        ),
        Intent(client_order_id="a", team_id="default", ts=TS, offset=whole.index(submitting("a"))),
        Intent(
            client_order_id="b", team_id="default", ts=TS, offset=len(whole) - len(submitting("b", note="again")),
            note="again",
        ),
    ]  # fmt: skip
    assert expected == read_open_intents(LedgerEntry(None, data))
    assert before == opened()
    assert ["alpha"] * 4 == [one.team_id for one in read_open_intents(LedgerEntry("alpha", data))]


@pytest.mark.parametrize("length", [(1 << 14) - 1, 1 << 14, (1 << 14) + 1, LINE_BYTES_MAX])
def test_the_line_of_one_may_have_any_length(data: Path, length: int) -> None:
    """2: up to a mebibyte."""
    note = "x" * (length + 1 - len(submitting("c", note="")))
    (data / LOG).write_bytes(submitting("c", note=note) + submitting("d"))
    assert [note, None] == [one.note for one in read_open_intents(LedgerEntry(None, data))]


@pytest.mark.parametrize("fields", [{"request": 5}, {"tags": "t"}, {"writer": ["w"]}])
def test_one_whose_line_has_odd_values_is_open_all_the_same(data: Path, fields: dict[str, Any]) -> None:
    """Nobody else looks at them; that the broker may have the order has to be seen."""
    (data / LOG).write_bytes(submitting("d") + submitting("c", **fields))
    found = read_open_intents(LedgerEntry(None, data))
    assert ("c", "", len(submitting("d"))) == (found[1].client_order_id, found[1].ts, found[1].offset)
