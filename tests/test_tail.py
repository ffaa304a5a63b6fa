"""Follower: the last rows and those that come, each once, whatever happens to the files meanwhile."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compactor import Ledger, LogRewritten
from compactor.ledger import LedgerEntry
from compactor.tables.follow import Follower, Start
from compactor.tables.schema import EVENTS, FINDINGS, TRADES
from compactor.ui.cli import app
from tests.conftest import ROOT
from tests.test_tables import Made, WriteLog, sample

Show = Callable[..., Result]


@pytest.fixture
def show(data: Path, monkeypatch: pytest.MonkeyPatch) -> Show:
    """Show the tail of `data`."""
    monkeypatch.setenv("COMPACTOR_DATA", str(data))
    monkeypatch.delenv("COMPACTOR_DEBUG", raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["tail", *arguments], prog_name="compactor")


def objects(result: Result) -> list[dict[str, Any]]:
    assert 0 == result.exit_code, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def read(descriptor: int) -> bytes:
    """What comes next, at the latest within a time that no machine needs."""
    ready, _, _ = select.select([descriptor], [], [], 30)
    assert ready, "expected a row, found none for 30 seconds"
    data = os.read(descriptor, 65536)
    assert data, "expected a row, found the end"
    return data


class Following:
    """A `compactor tail -f` in a process of its own, whose lines are read as they come."""

    def __init__(self, data: Path, *arguments: str, **options: Any) -> None:
        environment = {**os.environ, "COMPACTOR_DATA": str(data), "COLUMNS": "200"}
        command = [sys.executable, "-m", "compactor", "tail", "-f", *arguments]
        self._read = b""
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, **{"stdout": subprocess.PIPE, **options}
        )

    def orders(self, count: int) -> list[str]:
        """The orders of the next rows; fails where they do not come."""
        assert self.process.stdout is not None
        while self._read.count(b"\n") < count:
            self._read += read(self.process.stdout.fileno())
        *lines, self._read = self._read.split(b"\n", count)
        return [json.loads(line)["order_id"] for line in lines]

    def stop(self, number: int = signal.SIGINT) -> tuple[int, bytes, bytes]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out or b"", err


@pytest.fixture
def follow(data: Path) -> Iterator[Callable[..., Following]]:
    started: list[Following] = []

    def start(*arguments: str, **options: Any) -> Following:
        started.append(Following(data, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def append(ledger: Path, text: str) -> None:
    with open(ledger / "events.jsonl", "a") as log:
        log.write(text)


class TestWhereItBegins:
    def test_the_last_ten_of_all_teams(self, show: Show, data: Path) -> None:
        """Several teams in one order, each row with its team, as they were recorded."""
        sample(data)
        found = objects(show())
        everything = objects(show("--from", "0"))
        assert found == everything[-10:]
        times = [row["recorded_at"] for row in everything]
        assert (sorted(times), 254) == (times, len(times))
        assert ["charlie", "alpha"] == [row["team_id"] for row in (found[-1], found[-5])]

    @pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (100, 100), (1000, 254)])
    def test_the_last_n(self, show: Show, data: Path, count: int, expected: int) -> None:
        """-N is the last N, and all where there are fewer."""
        sample(data)
        everything = objects(show("--from", "0"))
        assert everything[len(everything) - expected :] == objects(show("--from", f"-{count}"))

    def test_an_offset_is_an_address_in_one_log(self, show: Show, data: Path) -> None:
        """1.5: from the line at an offset, or the next one; in trades and findings it is the event's."""
        sample(data)
        rows = objects(show("--from", "0", "--team", "alpha"))
        assert rows[3:] == objects(show("--from", str(rows[3]["offset"]), "--team", "alpha"))
        assert rows[3:] == objects(show("--from", str(rows[3]["offset"] - 1), "--team", "alpha"))
        assert rows[3:] == objects(show("--from", str(rows[2]["offset"] + 1), "--team", "alpha"))
        assert [] == objects(show("--from", "99999999", "--team", "alpha"))
        trades = objects(show("--trades", "--from", str(rows[3]["offset"]), "--team", "alpha"))
        assert trades == [
            one for one in Ledger(data / "team/alpha").rows("trades") if one["offset"] >= rows[3]["offset"]
        ]
        refused = show("--from", "5")
        assert (2, "name it with --team") == (refused.exit_code, refused.stderr.strip()[-19:])

    @pytest.mark.parametrize("team", ["alpha", "bravo", "charlie"])
    def test_a_time_is_when_a_line_was_recorded(self, show: Show, data: Path, team: str) -> None:
        """From the first line that was recorded then or later; a trade and a finding have the time of their event."""
        sample(data)
        rows = objects(show("--from", "0", "--team", team))
        assert rows == objects(show("--from", "2026-03-02", "--team", team))
        for row in rows[::17]:
            found = objects(show("--from", row["recorded_at"], "--team", team))
            assert row == found[0]
        trades = objects(show("--trades", "--from", "0", "--team", team))
        assert trades[5:] == objects(show("--trades", "--from", trades[5]["timestamp"], "--team", team))

    def test_a_time_in_a_long_log_is_found_by_halves(self, show: Show, write_log: WriteLog, placed: Made) -> None:
        """A time in a log of many blocks, with garbage and long lines in it, is the line that was written then."""
        start = datetime(2026, 3, 2, tzinfo=UTC)
        ledger = write_log("alpha")
        lines = [json.dumps(placed(f"o{n}", ts=(start + timedelta(seconds=n)).isoformat())) for n in range(4000)]
        for place in range(0, 4000, 150):
            lines[place] = "garbage" * (20_000 if place == 1500 else 1)
        append(ledger, "\n".join(lines) + "\n")
        for number in (1, 149, 1499, 1501, 2222, 3999):
            at = (start + timedelta(seconds=number)).isoformat()
            assert f"o{number}" == objects(show("--from", at))[0]["order_id"]
        assert [] == objects(show("--from", "2027-01-01"))

    def test_lines_of_one_instant_are_all_shown(self, show: Show, write_log: WriteLog, placed: Made) -> None:
        """From the first line that was recorded then: a burst of many blocks within one instant is shown whole."""
        write_log("alpha", placed("before", ts="2026-03-02T09:00:00Z"))
        write_log("alpha", *(placed(f"o{n}", ts="2026-03-02T10:00:00Z") for n in range(2000)))
        assert 2000 == len(objects(show("--from", "2026-03-02T10:00:00Z")))

    def test_findings_of_all_teams(self, show: Show, data: Path) -> None:
        """--findings shows what was unreadable or suspicious, by the time of its event."""
        sample(data)
        assert [
            ("alpha", "late_fill"),
            ("charlie", "not_json"),
            ("alpha", "unknown_status"),
        ] == [(row["team_id"], row["kind"]) for row in objects(show("--findings"))]

    @pytest.mark.parametrize(
        "arguments", [["--from", "soon"], ["--from", "-x"], ["--team", "nobody"], ["--from", "-1.5"]]
    )
    def test_wrong_use(self, show: Show, write_log: WriteLog, arguments: list[str]) -> None:
        """Exit code 2 and one message."""
        write_log("alpha")
        result = show(*arguments)
        assert (2, "") == (result.exit_code, result.stdout)

    def test_a_ledger_that_cannot_be_read_stops_no_other(self, show: Show, data: Path) -> None:
        """It is named on stderr, once, and the exit code is 1."""
        sample(data)
        (data / "team/bravo/trades.jsonl").write_text("garbage\n")
        result = show("--trades")
        assert (1, 10) == (result.exit_code, len(result.stdout.splitlines()))
        assert f"{data}/team/bravo/trades.jsonl: at offset 0 expected a derived line" in result.stderr


class TestTail:
    def test_every_row_is_told_once_across_sealing(self, data: Path, write_log: WriteLog, placed: Made) -> None:
        """8: sealing between any two looks changes no offset, and no row is told twice or never."""
        ledger = write_log("alpha")
        tail = Follower(LedgerEntry("alpha", ledger), EVENTS)
        told: list[str] = []
        book = Ledger(ledger)
        for number in range(40):
            append(ledger, json.dumps(placed(f"o{number}", raw="x" * 5000)) + "\n")
            if number % 3 == 0:
                book.seal(now=True)
            if number % 2:
                told += [one.row[4] for one in tail.rows()]
        told += [one.row[4] for one in tail.rows()]
        assert [f"o{number}" for number in range(40)] == told

    @pytest.mark.parametrize("table", [TRADES, FINDINGS])
    def test_derived_files_that_are_made_again(self, data: Path, table: Any) -> None:
        """1.3: a file that was deleted comes back with the same bytes, and its rows are not told again."""
        sample(data)
        ledger = data / "team/alpha"
        tail = Follower(LedgerEntry("alpha", ledger), table)
        before = len(list(tail.rows()))
        for name in ("trades.jsonl", "findings.jsonl"):
            (ledger / name).unlink()
        for slot in (ledger / ".state").glob("checkpoint*"):
            slot.unlink()
        assert [] == list(tail.rows())
        append(
            ledger,
            '{"event":"fill","order_id":"late","ts":"2026-03-02T22:00:00Z","price":"1","qty":"2","execution_id":"x"}\n',
        )
        append(ledger, '{"event":"new","order_id":"late","ts":"2026-03-02T22:00:00Z","symbol":"SPY","side":"buy"}\n')
        Ledger(ledger).compact()
        assert before > 0
        assert 1 == len(list(tail.rows()))

    def test_a_log_that_was_cut_is_an_error(self, write_log: WriteLog, placed: Made) -> None:
        """The log only grows: what was there and is gone is said, not skipped."""
        ledger = write_log("alpha", placed("a"), placed("b"))
        tail = Follower(LedgerEntry("alpha", ledger), EVENTS)
        assert 2 == len(list(tail.rows()))
        (ledger / "events.jsonl").write_text(json.dumps(placed("a")) + "\n")
        with pytest.raises(LogRewritten, match="truncated or replaced"):
            list(tail.rows())

    def test_a_finding_longer_than_an_event_may_be(self, write_log: WriteLog) -> None:
        """Section 5: the line of a finding is in it, escaped, so that its own line may be longer than a mebibyte."""
        ledger = write_log("alpha", '"' * (1 << 20))
        Ledger(ledger).compact()
        told = next(Follower(LedgerEntry("alpha", ledger), FINDINGS).begin(Start(last=5)))
        assert 1 << 20 == len(told.row[FINDINGS.find("line")])


class TestFollowing:
    def test_it_goes_on_through_partial_lines_sealing_and_new_teams(
        self, follow: Callable[..., Following], data: Path, write_log: WriteLog, placed: Made
    ) -> None:
        """-f: a line when it is whole, sealing and a new team in between, Ctrl-C ends it cleanly with 0."""
        ledger = write_log("alpha", placed("a"), placed("b"))
        tail = follow("--from", "-1")
        assert ["b"] == tail.orders(1)
        whole = json.dumps(placed("c"))
        append(ledger, whole[:50])
        time.sleep(0.1)
        append(ledger, whole[50:] + "\n")
        assert ["c"] == tail.orders(1)
        Ledger(ledger).seal(now=True)
        append(ledger, json.dumps(placed("d")) + "\n")
        assert ["d"] == tail.orders(1)
        write_log("bravo", placed("e"))
        assert ["e"] == tail.orders(1)
        assert (0, b"", b"") == tail.stop()

    def test_trades_as_the_daemon_derives_them_and_a_second_daemon(
        self, follow: Callable[..., Following], data: Path, write_log: WriteLog, placed: Made, filled: Made
    ) -> None:
        """Survives restarts of the daemon: each trade once, in the order in which it was derived."""
        ledger = write_log("alpha", placed("a"))
        tail = follow("--trades", "--from", "0")
        for order in "abc":
            daemon = subprocess.Popen(
                [sys.executable, "-m", "compactor", "watch", str(data), "--log-level", "error"], cwd=ROOT
            )
            append(ledger, json.dumps(placed(order)) + "\n" + json.dumps(filled(order)) + "\n")
            assert [order] == tail.orders(1)
            daemon.kill()
            daemon.wait()
        assert (0, b"", b"") == tail.stop(signal.SIGTERM)

    def test_it_ends_when_nobody_reads_any_more(
        self, follow: Callable[..., Following], write_log: WriteLog, placed: Made
    ) -> None:
        """As in `compactor tail -f | head -1`: it need not wait for something to write."""
        write_log("alpha", placed("a"))
        tail = follow()
        assert ["a"] == tail.orders(1)
        assert tail.process.stdout is not None
        tail.process.stdout.close()
        tail.process.stdout = None
        assert 0 == tail.process.wait(timeout=10)

    def test_on_a_terminal_it_is_for_people(
        self, follow: Callable[..., Following], data: Path, write_log: WriteLog, placed: Made, filled: Made
    ) -> None:
        """Colours, the team, and side and symbol that a fill does not tell; no escape of a log reaches the terminal."""
        write_log("alpha", placed("a"), filled("a"), placed("b", symbol="\x1b[2J"))
        reading, writing = pty.openpty()
        tail = follow(stdout=writing)
        os.close(writing)
        text = b""
        while text.count(b"\n") < 3:
            text += read(reading)
        lines = text.decode().splitlines()
        tail.stop()
        os.close(reading)
        assert "\x1b[32mfill" in lines[1]
        assert "buy 10 SPY limit 530.00" in lines[0]
        assert "buy 10 SPY @ 529.98" in lines[1]
        assert all("alpha" in line for line in lines)
        assert "\\x1b[2J" in lines[2]
        assert "\x1b[2J" not in text.decode()
