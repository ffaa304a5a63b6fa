"""A ledger that was copied, restored or moved just works: its log is proven once, and what differs is refused."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from compactor import Ledger, LogRewritten, TooMuch
from compactor.ui.cli import app
from compactor.verify.run import verify_all
from tests.cases import LOG, read_derived
from tests.faults import orders, rest_of

RAW = orders(0, 300)


@pytest.fixture
def alpha(tmp_path: Path) -> Path:
    """A ledger with a checkpoint, and with lines behind it whose derived lines are there already."""
    path = tmp_path / "data/team/alpha"
    path.mkdir(parents=True)
    (path / LOG).write_bytes(RAW)
    with Ledger(path) as ledger:
        ledger.compact(checkpoint=True)
        with (path / LOG).open("ab") as log:
            log.write(rest_of(0, 60))
        ledger.compact()
    return path


def replace_log(path: Path, data: bytes) -> None:
    """Put another file in place of the log, as a restore does."""
    (path / "new").write_bytes(data)
    (path / "new").rename(path / LOG)


def by_cp(source: Path, target: Path) -> None:
    """`cp -a`, which keeps holes."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def by_tar(source: Path, target: Path) -> None:
    """`tar` without `--sparse`, which makes holes NUL bytes."""
    target.mkdir()
    packed = subprocess.run(["tar", "-C", str(source), "-cf", "-", "."], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-C", str(target), "-xf", "-"], input=packed, check=True)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("copy", [by_cp, by_tar])
def test_a_copied_data_directory_goes_on(alpha: Path, copy: Callable[[Path, Path], None], sealed: bool) -> None:
    """`log_moved` is said once; the derived bytes are the same, and the copy is sealed, verified and appended to."""
    data = alpha.parent.parent
    if sealed:
        with Ledger(alpha) as ledger:
            ledger.seal(now=True, segment_bytes=30_000)
    before = read_derived(alpha)
    copy(data, data.parent / "copy")
    there = data.parent / "copy/team/alpha"
    assert "moved" == Ledger(there).status().checkpoint
    assert not verify_all(data.parent / "copy").verdicts[0].differences
    with Ledger(there) as ledger:
        first, second = ledger.compact(), ledger.compact()
        assert (True, False) == (first.moved, second.moved)
    assert not Ledger(there).compact().moved
    assert before == read_derived(there)
    with (there / LOG).open("ab") as log:
        log.write(orders(900, 1200))
    with Ledger(there) as ledger:
        ledger.seal(now=True, segment_bytes=30_000)
        assert RAW + rest_of(0, 60) + orders(900, 1200) == b"".join(ledger.cat())
    assert not verify_all(data.parent / "copy").verdicts[0].differences


def test_the_command_says_it_once(alpha: Path) -> None:
    """On stderr, and nothing the next time."""
    replace_log(alpha, (alpha / LOG).read_bytes())
    data = str(alpha.parent.parent)
    first, second = (CliRunner().invoke(app, ["compact", data]) for _ in range(2))
    assert (0, 0) == (first.exit_code, second.exit_code)
    assert "alpha: log_moved: " in first.stderr
    assert "log_moved" not in second.stderr


def test_an_open_ledger_proves_it_too(alpha: Path) -> None:
    """In a process that has the state in memory."""
    with Ledger(alpha) as ledger:
        ledger.compact()
        replace_log(alpha, (alpha / LOG).read_bytes())
        assert ledger.compact().moved
        assert not ledger.compact().moved


def test_a_log_that_says_something_else_is_refused(alpha: Path) -> None:
    """The first difference is named, and nothing is changed."""
    data = (alpha / LOG).read_bytes()
    replace_log(alpha, data.replace(b'"price":"530.00"', b'"price":"531.00"', 1))
    before = {path: path.read_bytes() for path in alpha.rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(LogRewritten, match=r"replaced by another file.* at offset \d+ of trades\.jsonl expected"):
            Ledger(alpha).compact()
    after = {path: path.read_bytes() for path in alpha.rglob("*") if path.is_file()}
    after[alpha / ".state/lock"] = before[alpha / ".state/lock"]
    assert before == after


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (b'"order_id":"o-3",', b'"order_id":"o-X",', "trades.jsonl"),
        (b'"quantity":"2"', b'"quantity":"3"', "."),
        (b'{"event":"fil\n', b'{"event":"fit\n', "findings.jsonl"),
    ],
)
def test_every_kind_of_difference_is_found(alpha: Path, old: bytes, new: bytes, found: str) -> None:
    """In what became a trade, in what became a finding, and in what is only in the state."""
    replace_log(alpha, (alpha / LOG).read_bytes().replace(old, new, 1))
    with pytest.raises(LogRewritten, match=f"replaced by another file.*{found}"):
        Ledger(alpha).compact()


def test_derived_lines_that_a_log_has_no_event_for_are_a_difference(alpha: Path) -> None:
    """All that comes out of the log is there, and more: the file is told with both lengths."""
    new = "".join(line + "\n" for line in orders(1200, 1300).decode().splitlines() if '"event":"new"' in line)
    data, fill = (alpha / LOG).read_bytes() + new.encode(), b'"event":"partial_fill"'
    (alpha / LOG).write_bytes(data)
    with Ledger(alpha) as ledger:
        ledger.compact(checkpoint=True)
    at = data.rindex(fill)
    replace_log(alpha, data[:at] + b'"event":"new"'.ljust(len(fill)) + data[at + len(fill) :])
    with pytest.raises(LogRewritten, match=r"trades\.jsonl has \d+ bytes from it, expected \d+"):
        Ledger(alpha).compact()


def test_a_difference_that_shows_in_no_line_but_in_the_open_orders(alpha: Path) -> None:
    """An open order without a fill has another symbol than the checkpoint knows."""
    line = b'{"event":"new","order_id":"open","ts":"2026-03-02T10:00:03Z","symbol":"SPY","side":"buy","quantity":"2"}\n'
    data = (alpha / LOG).read_bytes() + line + orders(1200, 1300)
    (alpha / LOG).write_bytes(data)
    with Ledger(alpha) as ledger:
        ledger.compact(checkpoint=True)
    other = line.replace(b'"SPY"', b'"QQQ"')
    replace_log(alpha, data.replace(line, other, 1))
    with pytest.raises(LogRewritten, match="the checkpoint has other open orders than follow from it"):
        Ledger(alpha).compact()


def test_a_difference_that_shows_in_nothing_but_the_number_of_events(alpha: Path) -> None:
    """An event that came twice was blanked."""
    line = b'{"event":"new","order_id":"open","ts":"2026-03-02T10:00:03Z","symbol":"SPY","side":"buy","quantity":"2"}\n'
    data = (alpha / LOG).read_bytes() + line + line + orders(1200, 1300)
    (alpha / LOG).write_bytes(data)
    with Ledger(alpha) as ledger:
        events = ledger.compact(checkpoint=True).events
    replace_log(alpha, data.replace(line + line, line + b" " * (len(line) - 1) + b"\n"))
    with pytest.raises(LogRewritten, match=f"the checkpoint has {events} events of it, expected {events - 1}"):
        Ledger(alpha).compact()


def test_an_older_log_than_the_checkpoint_is_refused(alpha: Path) -> None:
    """A restore from before the last checkpoint: shorter than what was folded."""
    replace_log(alpha, RAW[: len(RAW) // 2])
    with pytest.raises(LogRewritten, match="the log was truncated"):
        Ledger(alpha).compact()


def test_the_proof_counts_against_the_limits_of_a_pass(alpha: Path) -> None:
    """A daemon's loop hands it to a process of its own."""
    replace_log(alpha, (alpha / LOG).read_bytes())
    with pytest.raises(TooMuch):
        Ledger(alpha).compact(limit_bytes=1000)
    assert Ledger(alpha).compact(limit_bytes=1 << 20).moved


def test_what_was_taken_away_is_found(alpha: Path) -> None:
    """Trades that are gone are derived again, by a full fold, which is the same proof."""
    before = read_derived(alpha)
    replace_log(alpha, (alpha / LOG).read_bytes())
    (alpha / "trades.jsonl").unlink()
    Ledger(alpha).compact()
    assert before == read_derived(alpha)
    shutil.rmtree(alpha / ".state")
    os.truncate(alpha / "findings.jsonl", 10)
    Ledger(alpha).compact()
    assert before == read_derived(alpha)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("is_own", [False, True], ids=["a team", "the data directory itself"])
def test_a_ledger_that_has_lost_its_log_is_named_by_every_command(alpha: Path, sealed: bool, is_own: bool) -> None:
    """Only the segments were restored, say: verify must not be clean, and no command passes it over."""
    data = alpha if is_own else alpha.parent.parent
    if sealed:
        with Ledger(alpha) as ledger:
            ledger.seal(now=True)
        shutil.rmtree(alpha / ".state")
    (alpha / LOG).unlink()
    what = "sealed history" if sealed else "checkpoints"
    for command in ("status", "compact", "verify", "seal", "doctor"):
        done = CliRunner().invoke(app, [command, str(data)])
        assert done.exit_code in (1, 2), command
        assert f"{what} of a ledger whose events.jsonl is missing" in done.output, command
    # A directory in which there never was a ledger is none.
    shutil.rmtree(alpha / ("segments" if sealed else ".state"))
    assert "is missing" not in CliRunner().invoke(app, ["status", str(data)]).output
