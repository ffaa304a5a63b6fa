"""Where an order came from, and what became of requests that led to none: from the log alone, wherever one begins."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger, LedgerEntry, OrderTracker
from compactor.history.lookup import find_histories

Event = dict[str, Any]


def intent(event: str, name: str, **fields: Any) -> Event:
    """An event of an intent."""
    return {"event": event, "order_id": name, "client_order_id": name, "ts": "2026-01-05T15:00:00Z", **fields}


def many_lives(placed: Callable[..., Event]) -> list[Event]:
    """An order of ours with its leg, one of ours whose stream was faster, one of somebody else, and one refused."""
    return [
        intent("submitting", "a:1", request={"symbol": "SPY"}, tags=["x"], note="why"),
        placed("ours", client_order_id="a:1", order_class="bracket"),
        intent("submitted", "a:1", broker_order_id="ours"),
        placed("leg", client_order_id="of-the-broker", parent_order_id="ours"),
        placed("theirs", client_order_id="b:1"),
        intent("submitting", "a:2"),
        intent("refused", "a:2", reason="no"),
        placed("nameless"),
    ]


WANTED = {"ours": "submitted", "leg": "submitted", "theirs": "adopted", "nameless": "adopted"}


async def read_all(data: Path) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The origins that a tracker has, those of all changes from the first byte on, and what was not placed."""
    async with OrderTracker(data, compact=False) as tracker:
        shown = {name: tracker.origin(name, "alpha") for name in tracker.pending_orders}
        assert shown == {name: await tracker.read_origin(name) for name in shown}
        told: dict[str, Any] = {}
        async for change in tracker.changes("alpha", after=0):
            if change.kind == "order":
                assert change.order_id is not None
                told[change.order_id] = change.origin
            if change.offset >= tracker.offset("alpha"):
                break
        return shown, told, [one.client_order_id for one in tracker.unplaced("alpha")]


@pytest.mark.parametrize("recent_bytes", [0, 1 << 17])
@pytest.mark.parametrize("sealed", ["nothing", "half", "all"])
def test_an_origin_is_the_same_wherever_a_tracker_begins(
    data: Path, write_log: Callable[..., Path], placed: Callable[..., Event], monkeypatch: pytest.MonkeyPatch,
    recent_bytes: int, sealed: str,
) -> None:  # fmt: skip
    """From the log as it is told, from a checkpoint, and from sealed segments."""
    monkeypatch.setattr("compactor.tracker.tracked_ledger.RECENT_BYTES", recent_bytes)
    lives = many_lives(placed)
    parts = {"nothing": [lives], "half": [lives[:3], lives[3:]], "all": [lives, [placed("last")]]}[sealed]
    for number, part in enumerate(parts):
        ledger = write_log("alpha", *part)
        with Ledger(ledger) as one:
            one.compact(checkpoint=True)
            if number == 0 and sealed != "nothing":
                assert one.seal(now=True).segments
    wanted = WANTED | ({"last": "adopted"} if sealed == "all" else {})
    shown, told, unplaced = asyncio.run(read_all(data))
    assert (wanted, wanted) == (shown, told)
    assert unplaced == ([] if sealed == "all" and not recent_bytes else ["a:2"])


def test_an_origin_stays_when_its_intent_is_sealed_under_a_tracker(
    data: Path, write_log: Callable[..., Path], placed: Callable[..., Event], filled: Callable[..., Event]
) -> None:
    """What is forgotten, because a segment has it, is looked up there."""

    async def run() -> None:
        ledger = write_log("alpha", *many_lives(placed))
        async with OrderTracker(data, compact=False) as tracker:
            with Ledger(ledger) as one:
                one.compact(checkpoint=True)
                one.seal(now=True)
            write_log("alpha", filled("ours", qty="4", filled_qty="4", event="partial_fill"), placed("other"))
            async with asyncio.timeout(20):
                while tracker.order("other") is None:
                    await asyncio.sleep(0.002)
            assert {**WANTED, "other": "adopted"} == {one: tracker.origin(one) for one in tracker.pending_orders}
            assert "4" == str(tracker.pending_orders["ours"].filled_qty)

    asyncio.run(run())


def test_a_request_that_led_to_no_order_says_what_was_asked_and_why(data: Path, write_log: Callable[..., Path]) -> None:
    """Also where its outcome is told after the start, and its intent was open before; an odd line is not hidden."""

    async def run() -> None:
        write_log("alpha", intent("submitting", "a:1", request={"symbol": "SPY"}, tags=["x"], note="why"))
        async with OrderTracker(data, compact=False) as tracker:
            assert ["a:1"] == [one.client_order_id for one in tracker.intents("alpha")]
            odd = json.dumps(intent("never_placed", "a:3", status="odd"))
            write_log("alpha", intent("refused", "a:1", status=403, code="40310000", reason="buying power"), odd)
            async with asyncio.timeout(20):
                while len(tracker.unplaced("alpha")) < 2:
                    await asyncio.sleep(0.002)
            first, second = tracker.unplaced("alpha")
            assert ("refused", 403, "40310000", "buying power") == (
                first.outcome,
                first.status,
                first.code,
                first.reason,
            )
            assert ({"symbol": "SPY"}, ["x"], "why") == (first.request, first.tags, first.note)
            assert ("a:3", "never_placed", None) == (second.client_order_id, second.outcome, second.status)
            assert [] == tracker.intents("alpha")

    asyncio.run(run())


def test_the_story_says_the_same(data: Path, write_log: Callable[..., Path], placed: Callable[..., Event]) -> None:
    """`compactor history` and the tracker cannot differ."""
    ledger = write_log("alpha", *many_lives(placed))
    entry = LedgerEntry("alpha", ledger)
    assert WANTED == {name: find_histories(entry, name)[0].story.origin for name in WANTED}
