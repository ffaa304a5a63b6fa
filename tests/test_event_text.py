"""Whatever the reader of lines takes for an event, every reader shows: with marks, blanks, halves of characters."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from compactor import Ledger, OrderTracker
from compactor.books.order_index import OrderIndex
from compactor.core.lines import Placed, read_line
from compactor.ledger import LedgerEntry
from compactor.ledger.event_text import cut_event
from compactor.ledger.open_intents import read_open_intents
from compactor.ui.cli import app
from tests.cases import LOG

TS = "2026-03-09T14:30:00.123456789Z"
MARK = b"\xef\xbb\xbf"
ODD = {
    "mark": MARK + b"%s",
    "blanks": b" \t%s \t\r",
    "mark and blanks": MARK + b" \t%s\t \r",
    "mark behind": b"%s" + MARK,
    "marks around": MARK + b"%s" + MARK + b" ",
    "torn before": b'{"event":"fil' + MARK + b"%s",
    "torn behind": MARK + b'%s{"event":"fil',
    "not UTF-8 before": b"\xff" + b"%s",
}
RAW = b'{"id":1,"note":"a\\ud83d","deep":[{"x":"\\ud83d\\ude00 \\uDC00"}]}'
SEEN = {"id": 1, "note": "a\ufffd", "deep": [{"x": "\U0001f600 \ufffd"}]}


def line_of(event: str, order_id: str, **fields: Any) -> bytes:
    """An event with halves of characters in its `raw`."""
    known = {"event": event, "order_id": order_id, "ts": TS, "recorded_at": TS, "symbol": "SPY", "side": "buy"}
    return json.dumps({**known, **fields}).encode()[:-1] + b',"raw":' + RAW + b"}"


FILL = line_of("fill", "o-1", quantity="1", qty="1", price="5", execution_id="x-1")


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest) -> bytes:
    """How a line is written around its event."""
    return ODD[request.param]


@pytest.fixture
def alpha(data: Path, odd: bytes) -> Path:
    """A ledger with an event in such a line, and one more."""
    path = data / "team/alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(odd % FILL + b"\n" + line_of("new", "o-2", quantity="1") + b"\n")
    with Ledger(path) as ledger:
        ledger.compact()
    return path


def run(data: Path, *arguments: str) -> list[dict[str, Any]]:
    """The lines that a command prints."""
    done = CliRunner().invoke(app, [*arguments, "--data", str(data)])
    assert done.exit_code == 0, (done.output, done.exception)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_event_is_cut_out_of_its_line(odd: bytes) -> None:
    """Any reader of JSON takes what is left."""
    (placed,) = [found for found in read_line(odd % FILL, 0) if isinstance(found, Placed)]
    cut = cut_event((odd % FILL)[placed.offset :][: placed.length])
    assert SEEN == json.loads(cut)["raw"]


def test_the_table_of_events_has_it(alpha: Path, data: Path) -> None:
    """`export`, `tail` and `sql` read it, each with the same values."""
    exported = run(data, "export", "events", "--format", "jsonl")
    tailed = run(data, "tail", "--json")
    for rows in (exported, tailed):
        assert [("o-1", TS), ("o-2", TS)] == [(row["order_id"], row["recorded_at"]) for row in rows]
        assert SEEN == (json.loads(rows[0]["raw"]) if isinstance(rows[0]["raw"], str) else rows[0]["raw"])
    ids = run(data, "sql", "select order_id from events order by order_id", "--json")
    assert [{"order_id": "o-1"}, {"order_id": "o-2"}] == ids


@pytest.mark.parametrize(
    "command",
    [
        ["export", "findings", "--since", "2026-03-01", "--format", "jsonl"],
        ["export", "trades", "--since", "2026-03-01", "--format", "jsonl"],
        ["export", "events", "--since", "2026-03-01", "--format", "jsonl"],
        ["tail", "--json", "--findings"],
        ["tail", "--json", "--from", "2026-03-01"],
    ],
)  # fmt: skip
def test_windows_of_time_hold_it(alpha: Path, data: Path, command: list[str]) -> None:
    """Its time is read like that of any event."""
    rows = run(data, *command)
    assert rows or "findings" in " ".join(command)


def test_history_shows_the_message_of_it(alpha: Path, data: Path) -> None:
    """`recorded_at` to the letter, and `raw` as a value."""
    (story,) = run(data, "history", "o-1", "--raw", "--json")
    (event,) = story["story"]["events"]
    assert (TS, SEEN) == (event["recorded_at"], event["raw"])
    done = CliRunner().invoke(app, ["history", "o-1", "--raw", "--data", str(data)])
    assert (0, True) == (done.exit_code, '"id":1' in done.stdout), done.output


def test_the_order_index_gives_its_json(alpha: Path, data: Path) -> None:
    """What reads an order out of its ledger decodes it."""
    index = OrderIndex(data, ["alpha"])
    index.follow()
    ((_event, line),) = index.read_order("o-1", "alpha")
    assert SEEN == json.loads(line)["raw"]


def test_an_intent_says_what_was_asked(data: Path, odd: bytes) -> None:
    """For `status`, the tracker and `history`: not only that something was asked."""
    path = data / "team/alpha"
    path.mkdir(parents=True)
    asked = line_of("submitting", "c-1", client_order_id="c-1", note="why", request={"symbol": "SPY"})
    again = line_of("submitting", "c-2", client_order_id="c-2", note="why too", request={"symbol": "SPY"})
    refused = line_of("refused", "c-2", client_order_id="c-2", status=403, reason="no")
    (path / LOG).write_bytes(b"".join(odd % one + b"\n" for one in (asked, again, refused)))
    (one,) = read_open_intents(LedgerEntry("alpha", path))
    assert ("c-1", "why", {"symbol": "SPY"}) == (one.client_order_id, one.note, one.request)

    async def read_unplaced() -> list[Any]:
        async with OrderTracker(data) as tracker:
            return list(tracker.unplaced("alpha"))

    (unplaced,) = asyncio.run(read_unplaced())
    assert ("c-2", "why too", 403, "no") == (unplaced.client_order_id, unplaced.note, unplaced.status, unplaced.reason)
    (story,) = run(data, "history", "c-1", "--json")
    assert ["why"] == [one["note"] for one in story["story"]["intents"]]
