"""`python -m tests.soak --minutes M --seed S`: writers and the daemon under everything that may happen to them, and
then every byte checked.

Writers in C, shell and Python append at full speed, burst after burst, and are killed at random; one team is hostile
and appends what is made to cost time, memory or disk (`tests.hostile`). The daemon is killed, ended and run with a full
disk; segments are sealed by it and by hand; files are damaged. In the end `soak_check` looks at what is there. Exit
code 0 where all held, 1 where something did not: then the directory is kept.

Note: a seed replays what is done and written, not how the processes interleave, which only the
machine decides. What was found wrong is replayed from the directory (`--check DIR`), which has everything.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from random import Random

from compactor import Ledger, LedgerError
from tests.hostile import HOSTILE
from tests.soak_check import check
from tests.soak_daemon import PATIENCE_S, Daemon, environment
from tests.soak_damage import DAMAGES, append_torn
from tests.soak_stories import burst
from tests.soak_writers import HOSTILE_TEAM, ROOT, commands
from tests.stories import Event

TEAMS = ("alpha", "bravo", "charlie")
TURN_S = 0.05
LOOK_S = 0.0002
LINES_PER_SECOND = 1500
"""On the average over all writers, so that an hour's soak can be checked: within a burst they write as fast as they
can."""
BURST_LINES_MAX = 1000
ATTACK_EVERY_S = 8
OLD_EVENTS = 2000
CURRENT_S = 120
"""How long to wait for the daemon to become current before saying that it never does."""


class Writer:
    """One writer of a ledger: burst after burst, each by a new process with marks of its own."""

    def __init__(self, work: Path, team: str, kind: str, command: list[str], chance: Random) -> None:
        self.ledger = work / "data" / "team" / team
        self._name, self._command, self._chance = f"{kind}-{team}", command, chance
        self._lines, self._marks = work / "lines", work / "marks" / team
        for directory in (self.ledger, self._lines, self._marks):
            directory.mkdir(parents=True, exist_ok=True)
        self._kind, self._runs = kind, count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._mark = Path()
        self._killed = False

    def start(self, lines: int, old: Sequence[Event]) -> None:
        """Write a burst of new lines, with some old events delivered again."""
        run = next(self._runs)
        source = self._lines / f"{self._name}.jsonl"
        source.write_bytes(b"".join(burst(self._chance, f"{self._name}-{run}", lines, time.time_ns(), old)))
        self._mark = self._marks / f"{self._kind}-{run}.jsonl"
        command = [*self._command, str(self.ledger / "events.jsonl"), str(source), str(self._mark)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)

    @property
    def running(self) -> bool:
        """Whether a burst is being written."""
        return self._process is not None and self._process.poll() is None

    def kill_in_the_middle(self) -> bool:
        """`kill -9` after some part of the burst has been written; False where it has ended before."""
        enough = self._chance.randrange((self._lines / f"{self._name}.jsonl").stat().st_size)
        while self.running and (not self._mark.exists() or self._mark.stat().st_size < enough):
            time.sleep(LOOK_S)
        return self.kill()

    def kill(self) -> bool:
        """`kill -9`; False where no burst is being written."""
        if self._process is None or not self.running:
            return False
        self._process.kill()
        self._killed = True
        return True

    def take_finished(self) -> tuple[list[Event], str | None]:
        """After a burst: the events whose write has finished, and what went wrong; nothing may hinder a writer."""
        if self._process is None or self.running:
            return [], None
        code, errors = self._process.wait(), self._process.communicate()[1].decode(errors="replace")
        wrong = None
        if code and not (self._killed and code == -signal.SIGKILL):
            wrong = f"writer {self._name} ended with {code}, expected 0: {errors.strip()}"
        self._process, self._killed = None, False
        marks = self._mark.read_bytes().split(b"\n")[:-1] if self._mark.exists() else []
        return [_told(mark) for mark in marks], wrong


def _told(mark: bytes) -> Event:
    """The event of a mark, without the field that names its line."""
    event: Event = json.loads(mark)
    del event["n"]
    return event


class Soak:
    """One run in a directory. `wrong` says what must not have happened, `counts` what did."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.data = work, work / "data"
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._chance = Random(seed)
        kinds = commands(work)
        self._writers = [
            Writer(work, team, kind, command, Random(f"{seed}/{team}/{kind}"))
            for team in TEAMS
            for kind, command in kinds.items()
        ]
        self._old: dict[Path, deque[Event]] = {one.ledger: deque(maxlen=OLD_EVENTS) for one in self._writers}
        self._daemon = Daemon(self.data, work / "daemon.log", Random(f"{seed}/daemon"), self.counts)
        self._seals: list[subprocess.Popen[bytes]] = []
        self._attacks = self._chance.sample(sorted(HOSTILE), len(HOSTILE))
        self._attacker: subprocess.Popen[bytes] | None = None
        self._room_at: float | None = None

    def run(self, seconds: float) -> None:
        """Everything at once for so long, and then until the daemon is current; adds to `wrong`."""
        started = time.monotonic()
        # Also when it is told to end, nothing that it started stays behind.
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
        try:
            self._daemon.start()
            while (elapsed := time.monotonic() - started) < seconds:
                # One team more after each third of the time: new ledgers appear while the daemon runs.
                self._turn(elapsed, TEAMS[: 2 + int(2 * elapsed / seconds)])
                time.sleep(TURN_S)
            self._settle()
        finally:
            for process in (*self._seals, *([self._attacker] if self._attacker is not None else [])):
                process.kill()
                process.wait()
            for writer in self._writers:
                writer.kill()
                writer.take_finished()
            self._daemon.close()
            self.wrong += self._daemon.wrong
            self._take_messages()

    def _turn(self, elapsed: float, teams: Sequence[str]) -> None:
        self._look_at_writers()
        self._daemon.look()
        if self.counts["lines_made"] < elapsed * LINES_PER_SECOND:
            self._write_bursts(self._chance.choice(teams))
        if self._attacks and elapsed >= self._attacks_made * ATTACK_EVERY_S:
            self._attack()
        if self._room_at is not None and time.monotonic() >= self._room_at:
            self._daemon.limit(None)
            self._room_at = None
        if self._chance.randrange(10) == 0:
            self._something_happens()

    def _write_bursts(self, team: str) -> None:
        """Let some of the idle writers of a team write at once, and kill some of them while they do."""
        idle = [one for one in self._writers if one.ledger.name == team and not one.running]
        writers = self._chance.sample(idle, self._chance.randint(min(1, len(idle)), len(idle)))
        for writer in writers:
            lines = self._chance.randint(1, BURST_LINES_MAX)
            writer.start(lines, self._old[writer.ledger])
            self.counts["lines_made"] += lines
        for writer in writers:
            if self._chance.randrange(3) == 0:
                self.counts["writer_kills"] += writer.kill_in_the_middle()

    @property
    def _attacks_made(self) -> int:
        return len(HOSTILE) - len(self._attacks)

    def _attack(self) -> None:
        """Let the hostile team append one more of its logs; a writer that is still at the one before is killed."""
        if self._attacker is not None:
            self._attacker.kill()
            self._attacker.wait()
        ledger = self.data / "team" / HOSTILE_TEAM
        ledger.mkdir(parents=True, exist_ok=True)
        log = str(ledger / "events.jsonl")
        command = [sys.executable, "-m", "tests.soak_writers", "hostile", log, self._attacks.pop()]
        self._attacker = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
        self.counts["attacks"] += 1

    def _look_at_writers(self) -> None:
        for writer in self._writers:
            events, wrong = writer.take_finished()
            self._old[writer.ledger].extend(events)
            if wrong is not None:
                self.wrong.append(wrong)

    def _something_happens(self) -> None:
        dice = self._chance.randrange(100)
        if dice < 20:
            self._room_at = None
            self._chance.choice([self._daemon.kill, self._daemon.kill, self._daemon.terminate])()
        elif dice < 35:
            self._fill_disk()
        elif dice < 50:
            self._seal_by_hand()
        else:
            ledgers = [ledger for ledger in self._old if (ledger / "events.jsonl").exists()]
            if ledgers:
                name = self._chance.choice(sorted(DAMAGES))
                DAMAGES[name](self._chance.choice(ledgers), self._chance)
                self.counts[name] += 1

    def _fill_disk(self) -> None:
        """For a while no file of the daemon may grow beyond some size between nothing and that of the largest."""
        sizes = [path.stat().st_size for ledger in self._old for path in ledger.glob("*.jsonl")]
        if self._chance.randrange(3) == 0:
            self._daemon.kill()
        self._daemon.limit(self._chance.randint(1, max([1 << 12, *sizes])))
        self._room_at = time.monotonic() + self._chance.choice([0.2, 1, 3])

    def _seal_by_hand(self) -> None:
        """`compactor seal --now` beside the daemon; the one before it is killed if it still runs."""
        for process in self._seals:
            if process.poll() is None:
                process.kill()
                self.counts["seal_kills"] += 1
            process.wait()
        command = [sys.executable, "-m", "compactor", "seal", str(self.data), "--now", "--json"]
        with (self.work / "seal.log").open("ab") as log:
            # That it finds the ledger's lock taken is expected; what it must not do is found in its messages.
            self._seals = [
                subprocess.Popen(command, cwd=ROOT, env=environment("7"), stdout=subprocess.DEVNULL, stderr=log)
            ]
        self.counts["seals_by_hand"] += 1

    def _settle(self) -> None:
        """Stop the writers, give the daemon room, wait until it is current, end it, and fold what is left."""
        for writer in self._writers:
            self.counts["writer_kills"] += writer.kill()
        deadline = time.monotonic() + PATIENCE_S
        while any(one.running for one in self._writers) and time.monotonic() < deadline:
            time.sleep(TURN_S)
        self._look_at_writers()
        self._daemon.limit(None)
        for ledger in self._old:
            append_torn(ledger, self._chance)
        deadline = time.monotonic() + CURRENT_S
        while (behind := self._behind()) and time.monotonic() < deadline:
            self._daemon.look()
            time.sleep(0.5)
        if behind:
            self.wrong.append(f"the daemon did not become current within {CURRENT_S} s: {behind}")
        self._daemon.stop()
        self._compact(deadline)

    def _behind(self) -> str:
        """Why not all ledgers are current, empty where they are; a ledger without a good checkpoint does not tell."""
        for ledger in self._old:
            try:
                status = Ledger(ledger).status()
            except LedgerError as error:
                return str(error)
            if status.lag_bytes and status.checkpoint == "good":
                return f"{ledger.name}: {status.lag_bytes} of {status.log_bytes} bytes behind"
        return ""

    def _compact(self, deadline: float) -> None:
        """One pass by hand, again while a child that outlived a killed daemon holds a ledger's lock."""
        command = [sys.executable, "-m", "compactor", "compact", str(self.data), "--json"]
        while True:
            done = subprocess.run(command, cwd=ROOT, env=environment("7"), capture_output=True, text=True)
            if not done.returncode:
                return
            if time.monotonic() > deadline:
                self.wrong.append(f"compactor compact ended with {done.returncode}: {done.stderr.strip()}")
                return
            time.sleep(1)

    def _take_messages(self) -> None:
        """A traceback in anybody's messages is a bug, whatever came out."""
        for path in (self.work / "daemon.log", self.work / "seal.log"):
            text = path.read_text(errors="replace") if path.exists() else ""
            self.counts["times_degraded"] += text.count("ledger_degraded")
            self.counts["passes"] += text.count("compaction_finished")
            if "Traceback" in text:
                self.wrong.append(f"{path}: expected no traceback, found {text.count('Traceback')}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long to write and kill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="do the same things again (default: a random one)")
    parser.add_argument("--keep", action="store_true", help="keep the directory also where all held")
    parser.add_argument("--check", type=Path, metavar="DIR", help="only check the directory that a soak left")
    options = parser.parse_args(arguments)
    seed = Random().randrange(1 << 32) if options.seed is None else options.seed
    work = options.check or Path(tempfile.mkdtemp(prefix="compactor-soak-"))
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    if options.check is None:
        print(f"seed {seed}, in {work}", flush=True)
        soak = Soak(work, seed)
        soak.run(60 * options.minutes)
        counts, wrong = soak.counts, soak.wrong
    wrong += check(work, counts)
    print("\n".join(f"{name.replace('_', ' '):>24} {number:>13,}" for name, number in sorted(counts.items())))
    if wrong:
        print(f"{len(wrong)} violations:", *wrong, sep="\n- ")
        print(f"the same bytes again: python -m tests.soak --check {work}")
        print(f"the same deeds again: python -m tests.soak --minutes {options.minutes} --seed {seed}")
        return 1
    print(f"all held (seed {seed})")
    if options.check is None and not options.keep:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
