"""The command line: what it shows, on which stream, and with which exit code."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compactor.core.events import LINE_BYTES_MAX
from compactor.core.printable import printable
from compactor.ui.cli import app
from compactor.ui.output import aligned, columns, fitted
from tests.conftest import ROOT

Event = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]
Run = Callable[..., Result]

COMMANDS = [
    ["compact"], ["append"], ["show"], ["status"], ["import"], ["import", "legacy"], ["import", "alpaca"], ["compare"],
    ["watch"], ["run"], ["stream"], ["seal"], ["cat"], ["config"], ["doctor"], ["systemd"],
    ["replay"], ["diff"], ["history"],
    ["verify"], ["rebuild"], ["keygen"], ["prove"], ["check-proof"],
    ["export"], ["sql"], ["tail"],
]  # fmt: skip


@pytest.fixture
def run(data: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with `data` as the data directory."""
    monkeypatch.setenv("COMPACTOR_DATA", str(data))
    monkeypatch.delenv("COMPACTOR_DEBUG", raising=False)

    def invoke(*arguments: str, stdin: str | bytes = "") -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="compactor")

    return invoke


def start(*arguments: str, data: Path, **options: Any) -> subprocess.Popen[bytes]:
    """The real program in a process of its own."""
    environment = {**os.environ, "COMPACTOR_DATA": str(data), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "compactor", *arguments], env=environment, **options)


def objects(output: str) -> list[dict[str, Any]]:
    """The lines of --json."""
    return [json.loads(line) for line in output.splitlines()]


class TestCompact:
    def test_a_table_says_what_came_out(self, run: Run, write_log: WriteLog, placed: Event, filled: Event) -> None:
        """Per team: events, open orders, trades, findings, bytes, time."""
        write_log("alice", placed(), filled(), placed("o2"), "{")
        result = run("compact")
        head, row = result.stdout.splitlines()
        assert ["team", "events", "open", "orders", "trades", "findings", "bytes", "time"] == head.split()
        assert ["alice", "3", "1", "1", "1"] == row.split()[:5]
        assert (0, "") == (result.exit_code, result.stderr)

    def test_json_is_one_object_for_each_ledger(self, run: Run, write_log: WriteLog, placed: Event) -> None:
        """--json: one flat object per ledger with every number."""
        write_log("alice", placed())
        write_log("bob", placed(), placed("o2"))
        found = objects(run("compact", "--json").stdout)
        assert [("alice", 1), ("bob", 2)] == [(row["team_id"], row["open_orders"]) for row in found]
        assert {"path", "events", "new_events", "offset", "tail_bytes", "elapsed_ms"} <= set(found[0])

    def test_a_broken_ledger_is_named_and_the_others_are_done(
        self, run: Run, data: Path, write_log: WriteLog, placed: Event
    ) -> None:
        """1 when a ledger could not be compacted; it is named in the result and stops no other."""
        write_log("alice", placed())
        (data / "team/broken/events.jsonl").mkdir(parents=True)
        write_log("carol", placed())
        result = run("compact")
        assert 1 == result.exit_code
        assert ["team", "alice", "carol"] == [line.split()[0] for line in result.stdout.splitlines()]
        assert result.stderr.startswith("broken: ")
        assert "1 of 3 ledgers could not be compacted" in result.stderr

    def test_a_broken_ledger_has_its_error_in_json(
        self, run: Run, data: Path, write_log: WriteLog, placed: Event
    ) -> None:
        """A program reads the failure where it reads the results."""
        (data / "team/broken/events.jsonl").mkdir(parents=True)
        write_log("carol", placed())
        broken, carol = objects(run("compact", "--json").stdout)
        assert {"kind", "message"} == set(broken["error"])
        assert "error" not in carol

    def test_one_of_five_is_broken(
        self, run: Run, data: Path, write_log: WriteLog, placed: Event, filled: Event
    ) -> None:
        """A broken ledger among five leaves the other four complete; it is named, and the exit code is 1."""
        for team in "abcde":
            write_log(team, placed(), filled())
        (data / "team/c/trades.jsonl").write_text('{"trade_id":"somebody else"}\n')
        result = run("compact", "--workers", "4")
        assert 1 == result.exit_code
        assert ["team", *"abde"] == [line.split()[0] for line in result.stdout.splitlines()]
        assert result.stderr.startswith("c: ")
        assert result.stderr.endswith("1 of 5 ledgers could not be compacted; the others are not affected.\n")
        assert [1] * 4 == [(data / "team" / t / "trades.jsonl").read_bytes().count(b"\n") for t in "abde"]

    def test_findings_are_no_failure(self, run: Run, write_log: WriteLog) -> None:
        """Exit 0 when the work was done: findings are reported, not an error."""
        write_log("alice", "{", "not json", '{"event":"new"}')
        assert 0 == run("compact").exit_code

    def test_one_team_of_several(self, run: Run, write_log: WriteLog, placed: Event) -> None:
        """--team compacts one ledger."""
        write_log("alice", placed())
        write_log("bob", placed())
        assert ["bob"] == [row["team_id"] for row in objects(run("compact", "--team", "bob", "--json").stdout)]

    def test_the_directory_as_an_argument_wins(
        self, run: Run, tmp_path: Path, write_log: WriteLog, placed: Event
    ) -> None:
        """DIR, else COMPACTOR_DATA, else data."""
        other = tmp_path / "other"
        other.mkdir()
        (other / "events.jsonl").write_text(json.dumps(placed(team_id="solo")) + "\n")
        write_log("alice", placed())
        assert ["solo"] == [row["team_id"] for row in objects(run("compact", str(other), "--json").stdout)]


class TestWrongUse:
    def test_a_path_that_is_not_there(self, run: Run, tmp_path: Path) -> None:
        """A wrong path: what, where, expected, what to do; exit 2."""
        result = run("compact", str(tmp_path / "nowhere"))
        assert (2, "") == (result.exit_code, result.stdout)
        assert f"{tmp_path / 'nowhere'}: no such file or directory" in result.stderr
        assert "events.jsonl" in result.stderr

    def test_a_file_in_place_of_a_directory(self, run: Run, tmp_path: Path) -> None:
        """A wrong path: found, expected; exit 2."""
        (tmp_path / "file").touch()
        result = run("status", str(tmp_path / "file"))
        assert 2 == result.exit_code
        assert "found a file, expected a data directory" in result.stderr

    def test_an_empty_path_is_not_the_directory_one_is_in(self, run: Run) -> None:
        """`compact "$DIR"` with DIR unset is a mistake, and no wish to fold what lies here."""
        result = run("compact", "")
        assert 2 == result.exit_code
        assert "the path is empty" in result.stderr

    def test_the_inside_of_a_data_directory(self, run: Run, data: Path, write_log: WriteLog, placed: Event) -> None:
        """`data/team` for `data` is a near miss; the message names the directory that was meant."""
        write_log("alice", placed())
        result = run("compact", str(data / "team"))
        assert 2 == result.exit_code
        assert result.stderr.endswith(f"name {data}\n")

    @pytest.mark.parametrize("command", [["compact"], ["status"], ["show", "trades"]])
    def test_a_directory_without_ledgers(self, run: Run, command: list[str]) -> None:
        """A directory without any ledger is nearly always a wrong path."""
        result = run(*command)
        assert 2 == result.exit_code
        assert "no ledger in" in result.stderr

    @pytest.mark.parametrize("command", [["compact"], ["status"], ["show", "trades"]])
    def test_a_team_that_is_not_there(self, run: Run, write_log: WriteLog, placed: Event, command: list[str]) -> None:
        """A mistyped team is wrong use, not an empty result."""
        write_log("alice", placed())
        result = run(*command, "--team", "alcie")
        assert (2, "") == (result.exit_code, result.stdout)
        assert "no ledger of team 'alcie'" in result.stderr

    @pytest.mark.parametrize("command", [["compact"], ["status"], ["show", "trades"]])
    def test_a_team_that_cannot_be_one(self, run: Run, write_log: WriteLog, placed: Event, command: list[str]) -> None:
        """A team id that is not one is refused before a path is built from it (1.1)."""
        write_log("alice", placed())
        result = run(*command, "--team", "../alice")
        assert 2 == result.exit_code
        assert "'../alice' is no team id" in result.stderr

    @pytest.mark.parametrize("arguments", [["nothing"], ["show"], ["show", "money"], ["compact", "--workers", "0"]])
    def test_an_unknown_word(self, run: Run, arguments: list[str]) -> None:
        """2 for wrong usage."""
        assert 2 == run(*arguments).exit_code

    @pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError(5, "Input/output error", "/dev/sda")])
    def test_no_traceback_reaches_a_user(
        self, run: Run, write_log: WriteLog, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        """Whatever happens is one message and exit 1; COMPACTOR_DEBUG=1 shows where."""

        def fail(*_: object, **__: object) -> None:
            raise error

        write_log("alice")
        monkeypatch.setattr("compactor.books.compact.discover", fail)
        result = run("compact")
        assert 1 == result.exit_code
        assert "Error: " in result.stderr
        assert "Traceback" not in result.stderr
        monkeypatch.setenv("COMPACTOR_DEBUG", "1")
        assert error is run("compact").exception


class TestAppend:
    def test_lines_are_routed_and_counted(self, run: Run, data: Path, placed: Event) -> None:
        """`compactor append < lines` routes by `team_id`."""
        stdin = "".join(json.dumps(placed(team_id=team)) + "\n" for team in ("bob", "alice", "bob"))
        found = objects(run("append", "--json", stdin=stdin).stdout)
        assert [("bob", 2, 0), ("alice", 1, 0)] == [(row["team_id"], row["events"], row["offset"]) for row in found]
        assert (data / "team/bob/events.jsonl").stat().st_size == found[0]["length"]

    def test_bad_lines_are_named_by_number(self, run: Run, data: Path, placed: Event) -> None:
        """All or nothing per call, with the line number of each error; exit 1."""
        result = run("append", "--team", "alice", stdin=json.dumps(placed()) + '\n{"event":"new"}\n{\n')
        assert (1, "") == (result.exit_code, result.stdout)
        assert ["line 2: missing_field", "line 3: not_json"] == [
            ": ".join(line.split(": ")[:2]) for line in result.stderr.splitlines()[:2]
        ]
        assert "Nothing was written" in result.stderr
        assert [] == list(data.iterdir())

    def test_bad_lines_in_json(self, run: Run) -> None:
        """A program reads line and kind of each refused line."""
        (found,) = objects(run("append", "--team", "alice", "--json", stdin="{\n").stdout)
        assert (1, "not_json") == (found["line"], found["error"]["kind"])

    def test_a_team_that_cannot_be_one(self, run: Run) -> None:
        """A team id that is not one is wrong usage, whatever the lines."""
        result = run("append", "--team", "../a", stdin="{\n")
        assert 2 == result.exit_code
        assert "'../a' is no team id" in result.stderr

    def test_no_lines_are_nothing_to_do(self, run: Run) -> None:
        """Nothing on standard input writes nothing and is no failure."""
        result = run("append", "--team", "alice")
        assert (0, "") == (result.exit_code, result.stdout)
        assert "nothing was written" in result.stderr


class TestShow:
    def test_pending_trades_and_findings(self, run: Run, write_log: WriteLog, placed: Event, filled: Event) -> None:
        """`show` gives every field of the derived lines with --json."""
        write_log("alice", placed(), filled(), placed("o2"), "{")
        run("compact")
        (order,) = objects(run("show", "pending", "--json").stdout)
        (trade,) = objects(run("show", "trades", "--json").stdout)
        (finding,) = objects(run("show", "findings", "--json").stdout)
        assert ("o2", "new", "530.00") == (order["order_id"], order["status"], order["limit_price"])
        assert ("o1", "529.98", "fill") == (trade["order_id"], trade["execution_price"], trade["kind"])
        assert ("alice", "not_json", False) == (finding["team_id"], finding["kind"], finding["applied"])

    def test_open_intents_are_shown(self, run: Run, write_log: WriteLog) -> None:
        """Issue 14, 3.13: what was to be asked for and has no outcome is shown as such, and is no open order."""
        log = (ROOT / "fixtures/cases/3.13-an-intent-is-no-order/events.jsonl").read_text()
        write_log("alpha", *log.splitlines())
        assert {"alpha:3", "symbol=AAPL"} <= set(run("show", "intents").stdout.split())
        (line,) = run("show", "intents", "--json").stdout.splitlines()
        assert ("alpha:3", {"symbol": "AAPL", "side": "buy", "quantity": "10"}) == (
            json.loads(line)["client_order_id"],
            json.loads(line)["request"],
        )

    @pytest.mark.parametrize("size", [1 << 14, LINE_BYTES_MAX])
    def test_what_an_intent_of_any_length_says_is_shown(self, run: Run, write_log: WriteLog, size: int) -> None:
        """3.13: the longest line that is an event is read whole."""
        intent = {"event": "submitting", "order_id": "c-1", "client_order_id": "c-1", "ts": "2026-01-05T14:30:00Z"}
        line = json.dumps({**intent, "note": ""}, separators=(",", ":"))
        write_log("alpha", line[:-2] + "n" * (size - len(line)) + line[-2:])
        (shown,) = run("show", "intents", "--json").stdout.splitlines()
        assert size - len(line) == len(json.loads(shown)["note"])

    def test_nothing_to_show_keeps_the_pipe_clean(self, run: Run, write_log: WriteLog, placed: Event) -> None:
        """No rows: nothing on stdout, a word on stderr, exit 0."""
        write_log("alice", placed())
        run("compact")
        result = run("show", "trades")
        assert (0, "") == (result.exit_code, result.stdout)
        assert "No trades" in result.stderr

    def test_a_ledger_that_cannot_be_read_is_not_an_empty_one(self, run: Run, data: Path) -> None:
        """Where reading failed, "no trades" would be a lie."""
        (data / "team/broken/events.jsonl").mkdir(parents=True)
        (data / "team/broken/trades.jsonl").mkdir()
        result = run("show", "trades")
        assert 1 == result.exit_code
        assert "No trades" not in result.stderr

    def test_another_persons_text_cannot_drive_the_terminal(self, run: Run, write_log: WriteLog, placed: Event) -> None:
        """What stands in a log is somebody else's text: control characters are written out."""
        write_log("alice", placed(symbol="A\x1b[2J\n\u202e"))
        run("compact")
        output = run("show", "pending").stdout
        assert r"A\x1b[2J\n\u202e" in output
        assert "\x1b" not in output


class TestStatus:
    def test_it_says_how_much_waits(self, run: Run, write_log: WriteLog, placed: Event) -> None:
        """Status: log bytes, offset, lag."""
        ledger = write_log("alice", placed())
        run("compact")
        write_log("alice", placed("o2"))
        (found,) = objects(run("status", "--json").stdout)
        size = (ledger / "events.jsonl").stat().st_size
        assert (size, size - found["offset"], 1) == (found["log_bytes"], found["lag_bytes"], found["open_orders"])


class TestImport:
    MESSAGES = ROOT / "fixtures/alpaca/a-limit-order-fills-in-two-parts/messages.jsonl"

    def test_captured_messages_become_orders_and_trades_once(self, run: Run) -> None:
        """Importing the same file twice adds nothing."""
        first, second = (
            objects(run("import", "alpaca", str(self.MESSAGES), "--team", "a", "--json").stdout) for _ in "12"
        )
        assert (0, []) == (second[0]["events_appended"], second[0]["problems"])
        assert first[0]["events_appended"] > 0
        assert 2 == len(objects(run("show", "trades", "--json").stdout))

    def test_lines_that_mean_nothing_are_named_and_no_failure(self, run: Run, tmp_path: Path) -> None:
        """What could not be translated is said with its place, and the rest is imported."""
        file = tmp_path / "captured.jsonl"
        file.write_text("<html>\n" + self.MESSAGES.read_text())
        result = run("import", "alpaca", str(file), "--team", "a")
        assert 0 == result.exit_code
        assert result.stderr.startswith(f"{file}:1: ")

    def test_a_file_in_which_nothing_means_anything_is_refused(self, run: Run, tmp_path: Path) -> None:
        """1 when the input was refused; as many lines are named as a reader wants to see."""
        file = tmp_path / "captured.jsonl"
        file.write_text("<html>\n" * 50)
        result = run("import", "alpaca", str(file), "--team", "a")
        assert 1 == result.exit_code
        assert f"{file}:20: " in result.stderr
        assert f"{file}:21: " not in result.stderr
        assert "and 30 more" in result.stderr
        assert "Is it the right file" in result.stderr

    def test_activities_that_are_no_fills_are_counted_once(self, run: Run, tmp_path: Path) -> None:
        """A fee and an exercise are not in the trades, and the user is told so in one sentence; that is no failure."""
        told = [{"activity_type": kind, "id": "1", "symbol": "AAPL"} for kind in ("CFEE", "OPEXC", "CFEE")]
        file = tmp_path / "activities.json"
        file.write_text(json.dumps(told, indent=2))
        result = run("import", "alpaca", str(file), "--team", "a")
        assert (0, 1) == (result.exit_code, result.stderr.count("2 CFEE, 1 OPEXC"))
        assert "not in trades.jsonl" in result.stderr
        [row] = objects(run("import", "alpaca", str(file), "--team", "a", "--json").stdout)
        assert {"CFEE": 2, "OPEXC": 1} == row["not_fills"]

    def test_times_without_an_offset_are_refused_with_what_to_run(self, run: Run, tmp_path: Path) -> None:
        """The same file is imported once the zone is given, with each time at its instant."""
        file = tmp_path / "captured.jsonl"
        file.write_text(self.MESSAGES.read_text().replace('Z"', '"'))
        refused = run("import", "alpaca", str(file), "--team", "a")
        assert (1, True) == (refused.exit_code, "run again with --timezone UTC" in refused.stderr)
        assert 0 == run("import", "alpaca", str(file), "--team", "a", "--timezone", "America/New_York").exit_code
        assert {"-05:00"} == {row["timestamp"][-6:] for row in objects(run("show", "trades", "--json").stdout)}
        assert 2 == run("import", "alpaca", str(file), "--timezone", "Mars").exit_code

    def test_a_file_of_another_format_is_refused(self, run: Run, tmp_path: Path) -> None:
        """One sentence, with what to run."""
        (tmp_path / "captured.zip").write_bytes(b"PK\x03\x04...")
        result = run("import", "alpaca", str(tmp_path / "captured.zip"))
        assert (1, True) == (result.exit_code, "Run: unzip -p" in result.stderr)

    def test_orders_that_vanished_from_a_rewritten_file_are_named(self, run: Run, tmp_path: Path) -> None:
        """The user learns which orders to ask the broker about, and where they stay until then."""
        old = tmp_path / "old/team/a/pending_orders.jsonl"
        old.parent.mkdir(parents=True)
        order = {"order_id": "o1", "symbol": "AAPL", "side": "buy", "quantity": "1", "status": "new"}
        order["updated_at"] = "2026-03-02T14:30:00Z"
        old.write_text(json.dumps(order) + "\n")
        assert 0 == run("import", "legacy", str(tmp_path / "old"), "--rewritten").exit_code
        old.write_text("")
        result = run("import", "legacy", str(tmp_path / "old"), "--rewritten")
        assert (0, True) == (result.exit_code, "no trade: o1. They stay open" in result.stderr)
        assert ["vanished"] == [row["status"] for row in objects(run("show", "pending", "--json").stdout)]

    def test_a_parallel_run_is_compared(self, run: Run, tmp_path: Path) -> None:
        """0 where the old files and the ledgers agree, 1 and a row for each difference, 2 without old files."""
        shutil.copytree(ROOT / "fixtures/legacy/old", tmp_path / "old")
        file, old = tmp_path / "old/team/alpha/pending_orders.jsonl", str(tmp_path / "old")
        lines = [line for line in file.read_text().splitlines() if line.endswith("}")]  # Without those that are torn.
        file.write_text("".join(f"{line}\n" for line in lines))
        different = run("compare", old, "--json")
        assert (1, {"alpha", "beta"}) == (different.exit_code, {row["team_id"] for row in objects(different.stdout)})
        assert "differences" in run("compare", old).stderr
        run("import", "legacy", old)
        assert (0, "") == (run("compare", old).exit_code, run("compare", old, "--json").stdout)
        nothing = run("compare", f"{old}/team")
        assert (2, True) == (nothing.exit_code, "no old files" in nothing.stderr)

    def test_compact_on_the_old_layout_says_what_to_run(self, run: Run, tmp_path: Path) -> None:
        """Nothing is made of old files by mistake, and the user learns the command."""
        shutil.copytree(ROOT / "fixtures/legacy/old", tmp_path / "old")
        for has_log in (False, True):
            if has_log:
                (tmp_path / "old/team/alpha/events.jsonl").write_text("")
            result = run("compact", str(tmp_path / "old"))
            assert result.exit_code
            assert f"compactor import legacy {tmp_path}/old --data {tmp_path}/old" in result.stderr
        assert 0 == run("import", "legacy", str(tmp_path / "old"), "--data", str(tmp_path / "old")).exit_code
        assert "old layout" not in run("compact", str(tmp_path / "old")).stderr

    def test_a_directory_without_old_files(self, run: Run, tmp_path: Path) -> None:
        """Nothing to import says what was expected where, and is no success."""
        (tmp_path / "old").mkdir()
        result = run("import", "legacy", str(tmp_path / "old"))
        assert (1, "") == (result.exit_code, result.stdout)
        assert f"expected {tmp_path}/old/team/<team_id>/pending_orders.jsonl" in result.stderr

    def test_a_recording_of_another_teams_orders_alone(self, run: Run) -> None:
        """Nothing was imported, so that is no success; each line is named."""
        assert 0 == run("import", "alpaca", str(self.MESSAGES), "--team", "alpha").exit_code
        result = run("import", "alpaca", str(self.MESSAGES), "--team", "beta")
        assert (1, True) == (result.exit_code, "contested" in result.stderr)
        assert "its orders are other teams'" in result.stderr

    @pytest.mark.parametrize("kind", ["alpaca", "legacy"])
    def test_a_file_that_is_not_there(self, run: Run, tmp_path: Path, kind: str) -> None:
        """A wrong path is wrong usage."""
        result = run("import", kind, str(tmp_path / "nowhere"))
        assert 2 == result.exit_code
        assert "nowhere" in result.stderr

    def test_a_team_that_cannot_be_one(self, run: Run) -> None:
        """A team id that is not one is refused before a path is built from it (1.1)."""
        assert 2 == run("import", "alpaca", str(self.MESSAGES), "--team", "../a").exit_code

    def test_the_old_layout(self, run: Run, tmp_path: Path) -> None:
        """`import legacy`: each line is the order as it then was."""
        old = tmp_path / "old/team/alice"
        old.mkdir(parents=True)
        order = {"order_id": "o1", "team_id": "alice", "symbol": "SPY", "side": "buy", "quantity": "2", "status": "new"}
        times = {"created_at": "2026-01-05T15:00:00Z", "updated_at": "2026-01-05T15:00:00Z"}
        (old / "pending_orders.jsonl").write_text(json.dumps({**order, **times, "order_type": "market"}) + "\n")
        assert 0 == run("import", "legacy", str(tmp_path / "old")).exit_code
        assert ["o1"] == [row["order_id"] for row in objects(run("show", "pending", "--json").stdout)]


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_every_command_teaches_with_an_example(self, run: Run, command: list[str]) -> None:
        """`--help` of each command teaches with an example that names the command."""
        result = run(*command, "--help")
        assert 0 == result.exit_code
        assert f"compactor {' '.join(command)}" in result.stdout.split("Example:")[1]

    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_every_command_is_documented(self, command: list[str]) -> None:
        """A command that nobody can read about is not there: docs/commands.md has a heading for each."""
        headings = (ROOT / "compactor/docs/commands.md").read_text()
        assert f"## compactor {' '.join(command)}" in headings

    def test_the_version(self, run: Run) -> None:
        """`compactor --version`."""
        assert "compactor 0.1.0\n" == run("--version").stdout


class TestOutput:
    def test_columns_are_aligned_and_numbers_to_the_right(self) -> None:
        """Plain text in a pipe is aligned."""
        shown = columns("team_id", "events", numbers=["events"])
        rows = [{"team_id": "a", "events": 5}, {"team_id": "longer", "events": 12345}]
        assert ["team    events", "a            5", "longer   12345"] == list(aligned(shown, rows))

    def test_widths_grow_with_later_rows(self) -> None:
        """Rows are streamed: a late wide row widens the column from there on and cuts nothing."""
        rows = [*({"a": "x", "b": "y"} for _ in range(600)), {"a": "x" * 30, "b": "y"}]
        assert "x" * 30 + "  y" == list(aligned(columns("a", "b"), rows))[-1]

    @pytest.mark.parametrize("room", range(10, 60, 5))
    def test_a_number_is_never_cut(self, room: int) -> None:
        """What is left of a number is another number: texts give way, then whole columns, the last ones first."""
        shown = columns("order_id", "quantity", "detail", "limit_price", numbers=["quantity", "limit_price"])
        longest = (36, 12, 90, 9)
        widths = fitted(shown, longest, room)
        assert room >= sum(widths) + 2 * (len(widths) - 1) or 1 == len(widths)
        assert all(width >= longest[at] for at, width in enumerate(widths) if shown[at].number)

    def test_room_for_all_is_used_for_all(self) -> None:
        """Nothing is cut where nothing has to be."""
        shown = columns("order_id", "quantity", "detail", numbers=["quantity"])
        assert [36, 12, 90] == fitted(shown, (36, 12, 90), 200)

    def test_lone_surrogates_can_be_shown(self) -> None:
        """JSON can hold what no encoding can write; it is shown written out."""
        assert r"\ud800" == printable("\ud800")


class TestRealProgram:
    def test_a_reader_that_goes_away_is_no_failure_to_talk_about(
        self, data: Path, write_log: WriteLog, placed: Event, run: Run
    ) -> None:
        """`compactor show ... | head` is quiet."""
        write_log("alice", *(placed(f"o{n}") for n in range(3000)))
        run("compact")
        process = start("show", "pending", data=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        process.stderr.close()
        assert (b"", 141) == (errors, process.wait())

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
    def test_output_to_a_full_disk_is_one_message(self, data: Path, write_log: WriteLog, placed: Event) -> None:
        """A full disk under the output is said, and exits 1."""
        write_log("alice", placed())
        with (
            open("/dev/full", "wb") as full,
            start("status", data=data, stdout=full, stderr=subprocess.PIPE) as process,
        ):
            _, errors = process.communicate()
        assert (b"Error: could not write the output: No space left on device\n", 1) == (errors, process.returncode)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a Linux device")
    @pytest.mark.parametrize("option", ["--help", "--version"])
    def test_help_for_a_full_disk_is_one_message_too(self, data: Path, option: str) -> None:
        """No traceback, wherever writing fails."""
        with (
            open("/dev/full", "wb") as full,
            start(option, data=data, stdout=full, stderr=subprocess.PIPE) as process,
        ):
            _, errors = process.communicate()
        assert (b"Error: could not write the output: No space left on device\n", 1) == (errors, process.returncode)

    def test_closed_standard_streams_are_no_failure(self, data: Path, write_log: WriteLog, placed: Event) -> None:
        """A caller may close what it does not want to read; no ledger's file gets such a stream's number."""
        write_log("alice", placed())
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = f"exec {sys.executable} -m compactor compact {data} <&- >&- 2>&-"
        assert 0 == subprocess.run(["sh", "-c", command], env=environment).returncode
        assert (data / "team/alice/pending_orders.jsonl").exists()

    def test_sigterm_ends_in_order(self, data: Path) -> None:
        """143 on SIGTERM, which is what a service manager sends, with the message that nothing is lost."""
        terminal, side = pty.openpty()
        with start("append", "--team", "a", data=data, stdin=side, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            assert b"end with Ctrl-D" in process.stderr.readline()
            process.terminate()
            _, errors = process.communicate()
        os.close(terminal)
        os.close(side)
        assert 143 == process.returncode
        assert b"Nothing is lost" in errors

    def test_ctrl_c_ends_in_order(self, data: Path) -> None:
        """130 on Ctrl-C, and the message that nothing is lost and how to go on."""
        terminal, side = pty.openpty()
        with start(
            "append", "--team", "a", data=data, stdin=side, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            assert b"end with Ctrl-D" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
        os.close(terminal)
        os.close(side)
        assert 130 == process.returncode
        assert b"Nothing is lost" in errors
        assert b"Traceback" not in errors

    def test_a_terminal_gets_a_table_with_a_rule(self, data: Path, write_log: WriteLog, placed: Event) -> None:
        """Rich tables on a terminal."""
        write_log("alice", placed())
        output = _on_a_terminal(["status"], data)
        assert "alice" in output
        assert "─" in output


def _on_a_terminal(arguments: Sequence[str], data: Path) -> str:
    terminal, side = pty.openpty()
    process = start(*arguments, data=data, stdin=side, stdout=side, stderr=side)
    os.close(side)
    output = b""
    while True:
        select.select([terminal], [], [])
        try:
            chunk = os.read(terminal, 1 << 16)
        except OSError:  # How Linux says that the other side of a terminal was closed.
            break
        if not chunk:
            break
        output += chunk
    os.close(terminal)
    process.wait()
    return output.decode()
