"""The daemon as users run it: a process of its own, watched from outside through files, exit codes and log lines."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger, TooMuch, discover
from compactor.daemon import keeper as keeper_module
from compactor.daemon.health import Health
from compactor.daemon.hints import Hints
from compactor.daemon.keeper import Keeper
from compactor.daemon.presence import read_report
from compactor.ledger.files import Files
from compactor.ui.watching import make_logger

_WITHIN_SECONDS = 120


def line(order_id: str, event: str = "new", second: int = 0, **more: Any) -> bytes:
    """An event of an order, with terms."""
    ts = f"2026-11-02T15:{second // 60 % 60:02d}:{second % 60:02d}Z"
    terms = {"symbol": "SPY", "side": "buy", "quantity": "2"}
    return (
        json.dumps({"event": event, "order_id": order_id, "ts": ts, "recorded_at": ts, **terms, **more}).encode()
        + b"\n"
    )


def put(path: Path, *lines: bytes) -> None:
    """Append to a log as any program may."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "events.jsonl").open("ab", buffering=0) as log:
        log.write(b"".join(lines))


def derived(path: Path) -> dict[str, bytes]:
    """The derived files of a ledger."""
    names = ("pending_orders.jsonl", "trades.jsonl", "findings.jsonl")
    return {name: (path / name).read_bytes() for name in names if (path / name).exists()}


def open_ids(path: Path) -> set[str]:
    """The orders that the derived file calls open."""
    with Ledger(path) as ledger:
        return {row["order_id"] for row in ledger.rows("pending_orders")}


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what has to come; the deadline only ends a test that has failed."""
    deadline = time.monotonic() + _WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {_WITHIN_SECONDS} s"
        time.sleep(0.02)


class Daemon:
    """A running `compactor watch`."""

    def __init__(self, data: Path, *options: str, limit: int | None = None, **environ: str) -> None:
        self.data = data
        self.said = data.parent / f"said-{time.monotonic_ns()}"

        def confine() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "compactor", "watch", str(data), "--poll-seconds", "1", *options],
                stderr=said,
                env={**os.environ, **environ},
                preexec_fn=confine,
            )

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it said of one kind."""
        whole = self.said.read_bytes().rpartition(b"\n")[0].splitlines()
        rows = [json.loads(text) for text in whole if text.startswith(b"{")]
        return [row for row in rows if row["event"] == event]

    def caught_up(self) -> Daemon:
        until(lambda: self.lines("caught_up") or self.process.poll() is not None, "caught up")
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and its exit code."""
        self.process.send_signal(number)
        return self.process.wait(_WITHIN_SECONDS)


Start = Callable[..., Daemon]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.fixture
def start(data: Path) -> Iterator[Start]:
    running: list[Daemon] = []

    def begin(*options: str, **more: Any) -> Daemon:
        running.append(Daemon(data, *options, **more))
        return running[-1]

    yield begin
    for daemon in running:
        daemon.process.kill()
        daemon.process.wait()


def test_it_catches_up_on_start_and_follows_what_others_append(data: Path, start: Start) -> None:
    """Catch up on start, then follow; whoever appends."""
    team = data / "team" / "alice"
    put(team, line("o-1"))
    start().caught_up()
    assert open_ids(team) == {"o-1"}
    put(team, line("o-2", second=1))
    until(lambda: open_ids(team) == {"o-1", "o-2"}, "the second order")


def test_new_teams_appear_by_themselves(data: Path, start: Start) -> None:
    """New teams appear by themselves, also when their directory comes before their log."""
    daemon = start().caught_up()
    (data / "team" / "bob.b").mkdir(parents=True)
    put(data / "team" / "bob.b", line("o-1"))
    until(lambda: (data / "team" / "bob.b" / "pending_orders.jsonl").exists(), "the new team's orders")
    assert [row["team_id"] for row in daemon.lines("team_appeared")] == ["bob.b"]


def test_a_burst_is_folded_in_few_passes(data: Path, start: Start) -> None:
    """A burst is folded in few passes, and every event of it counts."""
    team = data / "team" / "alice"
    put(team, line("o-0"))
    daemon = start().caught_up()
    for number in range(1, 2001):
        put(team, line(f"o-{number}", second=number))
    until(lambda: len(open_ids(team)) == 2001, "all orders of the burst")

    def told_every_event() -> bool:
        # A pass says what it did only after its files are in place. A process of its own, which a pass gets on a busy
        # machine, begins at the last checkpoint.
        rows = daemon.lines("compaction_finished")
        return sum(row["events"] for row in rows) == 2001 or any(row.get("apart") for row in rows)

    until(told_every_event, "the passes told every event")
    assert len(daemon.lines("compaction_finished")) < 1000


def test_after_a_pass_in_a_process_of_its_own_nothing_is_due(data: Path, start: Start) -> None:
    """It was followed by processes that found nothing, one after another, for ten seconds."""
    team = data / "team" / "alice"
    put(team, line("o-0"))
    daemon = start().caught_up()
    put(team, *(line(f"o-{number}", second=number) for number in range(1, 20_001)))
    until(lambda: any(row.get("apart") for row in daemon.lines("compaction_finished")), "a process of its own")
    until(lambda: len(open_ids(team)) == 20_001, "all orders")
    time.sleep(3)
    assert [] == [row for row in daemon.lines("compaction_finished")[1:] if not row["events"]][1:]
    put(team, line("late"))
    until(lambda: "late" in open_ids(team), "what came later")


def test_a_ledger_that_is_broken_stops_no_other_and_heals_by_itself(data: Path, start: Start) -> None:
    """A ledger that cannot be compacted is retried and reported, while all the others go on."""
    good, bad = data / "team" / "good", data / "team" / "bad"
    put(good, line("o-1"))
    put(bad, line("o-1"), line("o-2", second=1))
    daemon = start().caught_up()
    log = (bad / "events.jsonl").read_bytes()
    os.truncate(bad / "events.jsonl", 10)
    until(lambda: daemon.lines("ledger_degraded"), "the broken ledger named")
    assert daemon.lines("ledger_degraded")[0]["kind"] == "log_rewritten"
    put(good, line("o-2", second=2))
    until(lambda: open_ids(good) == {"o-1", "o-2"}, "the good ledger going on")
    status = subprocess.run(
        [sys.executable, "-m", "compactor", "status", str(data), "--json", "--team", "good"], capture_output=True
    )
    assert json.loads(status.stdout)["state"] == "current"
    until(lambda: _state(data, "bad") == "degraded", "the state in the lock file")
    with (bad / "events.jsonl").open("r+b") as file:
        file.write(log)
    until(lambda: daemon.lines("ledger_recovered"), "the ledger healed")
    until(lambda: _state(data, "bad") == "current", "the state in the lock file again")


@pytest.mark.parametrize("name", [b"my team", b"caf\xe9", b"-x"])
def test_a_directory_that_cannot_be_a_ledger_is_named_and_stops_no_other(data: Path, start: Start, name: bytes) -> None:
    """A badly named directory is a degraded ledger, whatever bytes its name has; the daemon goes on."""
    put(data / "team" / os.fsdecode(name), line("o-1"))
    put(data / "team" / "good", line("o-1"))
    daemon = start().caught_up()
    assert ["bad_place"] == [row["kind"] for row in daemon.lines("ledger_degraded")]
    put(data / "team" / "good", line("o-2", second=1))
    until(lambda: open_ids(data / "team" / "good") == {"o-1", "o-2"}, "the good ledger going on")
    report = read_report(data)
    assert report is not None
    assert ["degraded", "current"] == [one.state for one in report.ledgers]
    assert daemon.end() == 0


def _state(data: Path, team: str) -> str | None:
    report = read_report(data)
    assert report is not None
    return next((one.state for one in report.ledgers if one.team_id == team), None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_being_told_to_stop_is_a_normal_end_and_leaves_a_checkpoint(
    data: Path, start: Start, number: signal.Signals
) -> None:
    """SIGTERM and SIGINT finish the pass and write the checkpoints."""
    team = data / "team" / "alice"
    put(team, line("o-1"))
    daemon = start().caught_up()
    put(team, line("o-2", second=1))
    until(lambda: open_ids(team) == {"o-1", "o-2"}, "the second order")
    assert daemon.end(number) == 0
    assert daemon.lines("watcher_stopped")[0]["checkpoints"] == 1
    with Ledger(team) as ledger:
        assert ledger.compact().bytes == 0
    assert read_report(data) is None


def test_being_killed_costs_nothing(data: Path, start: Start) -> None:
    """`kill -9` costs nothing but the restart: the same bytes as of a ledger that was folded once."""
    team, same = data / "team" / "alice", data.parent / "other" / "team" / "alice"
    for number in range(4):
        daemon = start()
        for event in range(50):
            put(team, line(f"o-{number}-{event}", second=event))
        time.sleep(0.1 * number)
        daemon.end(signal.SIGKILL)
    put(team, line("o-0-0", "canceled", 3000))
    start().caught_up()
    until(lambda: "o-0-0" not in open_ids(team), "the last event")
    put(same, (team / "events.jsonl").read_bytes())
    with Ledger(same) as ledger:
        ledger.compact()
    assert derived(same) == derived(team)


def test_a_second_daemon_is_refused_and_names_the_first(data: Path, start: Start) -> None:
    """A second daemon on the same data directory fails at once and names the first one's pid."""
    put(data / "team" / "alice", line("o-1"))
    first = start().caught_up()
    until(lambda: read_report(data), "the first one's report")
    second = start()
    assert second.process.wait(_WITHIN_SECONDS) == 1
    assert f"process {first.process.pid}" in second.said.read_text()
    assert first.process.poll() is None


def test_a_long_log_is_folded_by_a_process_of_its_own(data: Path, start: Start) -> None:
    """Catching up with a long log does not hold up the loop, and gives the same bytes."""
    team, same = data / "team" / "long", data.parent / "other" / "team" / "long"
    log = b"".join(line(f"o-{number}", second=number, execution_id="x" * 200) for number in range(8000))
    assert len(log) > 2 << 20
    put(team, log)
    daemon = start().caught_up()
    assert any(row.get("apart") for row in daemon.lines("compaction_finished"))
    put(same, log)
    with Ledger(same) as ledger:
        ledger.compact()
    assert derived(same) == derived(team)


def test_a_log_that_asks_for_history_on_every_line_stalls_no_other(data: Path, start: Start) -> None:
    """A hostile log that brings forgotten orders back on every line must not stall the other ledgers."""
    hostile, other = data / "team" / "hostile", data / "team" / "other"
    put(hostile, b"".join(line(f"o-{n}", "canceled", second=n % 3000, note="y" * 300) for n in range(9000)))
    put(other, line("o-1"))
    with Ledger(hostile, retention_days=0) as ledger:
        # The second checkpoint comes when the log's clock has moved on: of all orders only marks are left.
        ledger.compact(checkpoint=True)
        put(hostile, line("later", second=3050))
        ledger.compact(checkpoint=True)
    daemon = start("--retention-days", "0").caught_up()
    before = len(daemon.lines("compaction_finished"))
    put(hostile, *(line(f"o-{n}", "fill", 3100, execution_id=f"x-{n}", price="1", qty="2") for n in range(100)))
    put(other, line("o-2", second=1))
    until(lambda: open_ids(other) == {"o-1", "o-2"}, "the other ledger")
    trades = hostile / "trades.jsonl"
    until(lambda: trades.exists() and trades.read_bytes().count(b"\n") == 100, "the hostile ledger's trades")
    until(lambda: any(row.get("apart") for row in daemon.lines("compaction_finished")[before:]), "a process of its own")


def test_a_pass_that_may_read_only_so_much_changes_nothing_beyond_that(data: Path) -> None:
    """`limit_bytes`: TooMuch, and every file as it was."""
    team = data / "team" / "alice"
    put(team, line("o-1"))
    with Ledger(team) as ledger:
        ledger.compact()
        before = derived(team)
        put(team, *(line(f"o-{number}", second=number) for number in range(2, 50)))
        with pytest.raises(TooMuch):
            ledger.compact(limit_bytes=1000)
        assert before == derived(team)
        ledger.compact(limit_bytes=1 << 20)
    assert len(open_ids(team)) == 49


def test_a_full_disk_degrades_and_heals_by_itself(data: Path, start: Start) -> None:
    """The derived files stay as they were, the state is `degraded`, and work goes on when there is room again."""
    team = data / "team" / "alice"
    put(team, *(line(f"o-{number}", second=number) for number in range(20)))
    daemon = start().caught_up()
    before = derived(team)
    # Beyond this size no file of the daemon may grow; the soft limit can be lifted again from outside.
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    put(team, line("o-20", second=20))
    until(lambda: daemon.lines("ledger_degraded"), "the full disk named")
    assert daemon.lines("ledger_degraded")[0]["kind"] == "disk_full"
    assert before == derived(team)
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(lambda: len(open_ids(team)) == 21, "the order that waited")
    until(lambda: daemon.lines("ledger_recovered"), "the recovery told")


def test_without_inotify_the_logs_are_looked_at(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Polling alone where inotify is not to be had."""
    import threading

    from compactor.daemon import hints
    from compactor.daemon.health import Health
    from compactor.daemon.watcher import Watcher
    from compactor.settings.configuration import Settings
    from compactor.ui.watching import make_logger

    def refuse(*_arguments: object) -> None:
        raise OSError(24, "out of inotify instances")

    monkeypatch.setattr(hints, "RustNotify", refuse)
    team = data / "team" / "alice"
    put(team, line("o-1"))
    stop = threading.Event()
    watcher = Watcher(data, Settings(poll_seconds=1, seal=False), Health(), make_logger("error"))
    loop = threading.Thread(target=watcher.run, args=(stop,))
    loop.start()
    try:
        until(lambda: open_ids(team) == {"o-1"}, "the first order")
        put(team, line("o-2", second=1))
        until(lambda: open_ids(team) == {"o-1", "o-2"}, "the second order")
    finally:
        stop.set()
        loop.join()


def test_finished_history_is_sealed_and_the_whole_log_can_still_be_read(data: Path, start: Start) -> None:
    """When a log has grown by `segment_bytes` it is sealed, and nothing of it is lost."""
    team = data / "team" / "alice"
    log = b"".join(line(f"o-{number}", second=number % 3000) for number in range(2000))
    put(team, log)
    daemon = start(COMPACTOR_SEGMENT_BYTES="65536", COMPACTOR_SEGMENT_AGE_HOURS="100000").caught_up()
    until(lambda: daemon.lines("segment_sealed"), "a segment")
    with Ledger(team) as ledger:
        assert log == b"".join(ledger.cat())
        assert ledger.status().segments > 0
    put(team, line("o-0", "canceled", 3500))
    until(lambda: "o-0" not in open_ids(team), "the pass after the seal")


def test_passes_errands_and_seals_of_a_busy_ledger_never_collide(data: Path, start: Start) -> None:
    """Issue 13, 8: passes, errands and sealing of one ledger are scheduled, not raced: no lock is ever in the way."""
    teams = [data / "team" / name for name in ("alice", "bob", "carol")]
    for team in teams:
        put(team, line("first"))
    daemon = start("--poll-seconds", "1", COMPACTOR_SEGMENT_BYTES="65536").caught_up()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            for team in teams:
                put(team, *(line(f"o-{number}-{part}", second=number % 3000) for part in range(40)))
            # Now and then more than a pass within the loop may read.
            if number % 60 == 59:
                put(teams[0], *(line(f"big-{number}-{part}", second=number % 3000) for part in range(16_000)))
            number += 1
            time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: len(daemon.lines("segment_sealed")) >= 3, "segments")
        until(lambda: any(row.get("apart") for row in daemon.lines("compaction_finished")), "an errand")
    finally:
        stop.set()
        writer.join()
    assert [] == daemon.lines("sealing_failed") + daemon.lines("ledger_degraded")


def test_a_ledger_that_catches_up_holds_no_other_one_s_sealing_up(tmp_path: Path) -> None:
    """Issue 13, 9: a ledger is sealed as soon as it is current itself."""
    health, age = Health(), timedelta(hours=24)
    for name in ("alice", "bob"):
        put(tmp_path / "team" / name, *(line(f"o-{number}", second=number) for number in range(50)))
    alice, bob = (Keeper(entry, 7, health, make_logger("error")) for entry in discover(tmp_path))
    assert not alice.is_seal_due(4096, age), "it is not current yet"
    alice.run()
    assert (False, "catching_up") == (health.caught_up, bob.health.state)
    assert alice.is_seal_due(4096, age)
    alice.has_errand = True
    assert not alice.is_seal_due(4096, age), "whatever works on it is first"
    alice.has_errand, alice.is_sealing = False, True
    assert not alice.is_seal_due(4096, age), "it is at it"
    alice.is_sealing = False
    alice.note_sealed(None)
    assert not alice.is_seal_due(4096, age), "what failed is not tried again at every look"
    alice.close()


def test_a_ledger_is_asked_for_its_age_now_and_then(tmp_path: Path) -> None:
    """A log whose oldest event that is not sealed is old enough is due, though it is small."""
    put(tmp_path / "team" / "alice", line("o-1"))
    young = line("o-1").replace(b"2026-11-02T15:00:00Z", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}".encode())
    put(tmp_path / "team" / "bob", young)
    keepers = [Keeper(one, 7, Health(), make_logger("error")) for one in discover(tmp_path)]
    for keeper in keepers:
        keeper.run()
    assert [True, False] == [keeper.is_seal_due(1 << 20, timedelta(hours=1)) for keeper in keepers]
    assert [False, False] == [keeper.is_seal_due(1 << 20, timedelta(hours=1)) for keeper in keepers], "once in a while"
    for keeper in keepers:
        keeper.close()


def test_a_lock_that_a_reconcile_of_this_process_holds_is_no_failure(tmp_path: Path, monkeypatch: Any) -> None:
    """Issue 13, 8: the reconcile compacts as well; its pass is waited for, and a stranger's only for ten seconds."""
    monkeypatch.setattr(keeper_module, "HELD_SECONDS_MAX", -1.0)
    put(tmp_path / "team" / "alice", line("o-1"))
    (entry,) = discover(tmp_path)
    keeper, files = Keeper(entry, 7, Health(), make_logger("critical")), Files()
    lock = entry.path / ".state" / "lock"
    lock.parent.mkdir()
    held = files.acquire(lock)
    assert held is not None
    assert None is keeper.run()
    assert ("catching_up", True) == (keeper.health.state, keeper.is_due)
    os.pwrite(held, b"1\n        ", 0)
    assert None is keeper.run()
    assert ("degraded", "lock_held") == (keeper.health.state, keeper.health.kind)
    files.release(held)
    assert None is not keeper.run()
    keeper.close()


@pytest.mark.parametrize("is_moved", [True, False])
@pytest.mark.parametrize("is_at_once", [True, False])
def test_a_data_directory_that_is_removed_and_made_again_is_watched(
    tmp_path: Path, is_moved: bool, is_at_once: bool
) -> None:
    """A watch ends with its directory. The new one is watched too, or each event would wait for a poll from then on."""
    data = tmp_path / "disk/data"
    team = data / "team/alpha"
    team.mkdir(parents=True)
    stop, until = threading.Event(), time.monotonic() + 20
    with Hints(data) as hints:
        for turn in range(2):
            # Of a directory above it nothing is told.
            data.parent.rename(tmp_path / f"old{turn}") if is_moved else shutil.rmtree(data)
            while not is_at_once and not hints.wait(0.1, stop).anything:
                assert time.monotonic() < until
            team.mkdir(parents=True)
            while not hints.wait(0.1, stop).anything:
                assert time.monotonic() < until
            assert hints.problem is None
            while hints.wait(0.1, stop).logs != {team}:
                assert time.monotonic() < until
                (team / "events.jsonl").write_text("{}\n")
