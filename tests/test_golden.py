"""The ledger of `fixtures/format_v1`: bytes that no later version of the program may read differently."""

import shutil
from pathlib import Path

import pytest

from compactor import Compaction, Ledger, LogRewritten
from compactor.ledger.checkpoint import FOLD_VERSION, FORMAT, Slot
from compactor.ledger.files import Files
from tests.cases import DERIVED, LOG, derive, parsed, read_derived
from tests.conftest import ROOT
from tests.disk import Disk

GOLDEN = ROOT / "fixtures" / "format_v1"
STORED = GOLDEN / "state" / "checkpoint.0"
CHANGED = "the meaning of people's files has changed; fixtures/format_v1/README.md says what to do"
LEDGER = Path("/ledger")


@pytest.fixture
def golden() -> dict[str, bytes]:
    """The three derived files."""
    return read_derived(GOLDEN)


def disk_with(log: bytes) -> Disk:
    """A disk on which the log is the first file, inode 1, as the stored checkpoint has it."""
    disk = Disk()
    disk.put(LEDGER / LOG, log)
    return disk


def compact(disk: Disk) -> Compaction:
    with Ledger(LEDGER, files=disk) as ledger:
        return ledger.compact()


def derived_on(disk: Disk) -> dict[str, bytes]:
    return {name: disk.take(LEDGER / name) or b"" for name in DERIVED}


def test_one_pass_over_the_golden_log_gives_the_golden_bytes(golden: dict[str, bytes], tmp_path: Path) -> None:
    """1.4: same log, same bytes, in this version and in every later one."""
    assert golden == derive((GOLDEN / LOG).read_bytes(), tmp_path), CHANGED


def test_line_by_line_gives_the_golden_bytes(golden: dict[str, bytes]) -> None:
    """1.4: with a pass after every line as well."""
    log, disk = (GOLDEN / LOG).read_bytes(), disk_with(b"")
    place = 0
    with Ledger(LEDGER, files=disk) as ledger:
        while place < len(log):
            place = log.find(b"\n", place) + 1 or len(log)
            disk.put(LEDGER / LOG, log[:place])
            ledger.compact()
    assert golden == derived_on(disk), CHANGED


@pytest.mark.parametrize("files", [DERIVED, ()], ids=["with its files", "without its files"])
def test_a_checkpoint_of_version_1_is_used_or_set_aside(files: tuple[str, ...], golden: dict[str, bytes]) -> None:
    """7: from an old checkpoint the same bytes come; one of another version means a full refold."""
    log = (GOLDEN / LOG).read_bytes()
    disk = disk_with(log)
    disk.put(LEDGER / ".state" / STORED.name, STORED.read_bytes())
    for name in files:
        disk.put(LEDGER / name, golden[name])

    done = compact(disk)

    header = Slot(STORED, Files().open(STORED)).header
    is_ours = (header.format, header.fold_version) == (FORMAT, FOLD_VERSION)
    assert (len(log) - 72 - (header.log.length if is_ours and files else 0)) == done.bytes
    assert golden == derived_on(disk), CHANGED


def test_a_copied_ledger_with_its_checkpoint_says_what_to_do(golden: dict[str, bytes], tmp_path: Path) -> None:
    """7: a log that is another file than the checkpoint's is refused; nothing changes, and the message names the way
    on."""
    ledger = tmp_path / "ledger"
    shutil.copytree(GOLDEN, ledger)
    (ledger / "state").rename(ledger / ".state")

    with pytest.raises(LogRewritten, match=r"replaced by another file: expected inode 1, found .* remove the .state"):
        Ledger(ledger).compact()
    assert golden == read_derived(ledger)
    assert STORED.read_bytes() == (ledger / ".state" / STORED.name).read_bytes()

    shutil.rmtree(ledger / ".state")
    Ledger(ledger).compact()
    assert golden == read_derived(ledger)


def test_the_golden_ledger_touches_every_rule_that_shows_in_a_line(golden: dict[str, bytes]) -> None:
    """Section 5: every kind of trade and of finding stands in it, except `too_long`, which needs a mebibyte."""
    named = {"unknown_status", "late_fill", "calculated_open", "conflicting_fill", "fill_without_terms", "overfill"}
    named |= {"fill_gap", "snapshot_behind", "correct_after_bust", "future_timestamp"}
    unreadable = {"not_json", "not_utf8", "nul_bytes", "missing_field", "bad_value", "wrong_team", "fused_line"}
    assert named | unreadable == {finding["kind"] for finding in parsed(golden["findings.jsonl"])}
    assert {"fill", "inferred", "reversal", "correction"} == {one["kind"] for one in parsed(golden["trades.jsonl"])}
    legs = [one["trade_id"] for one in parsed(golden["trades.jsonl"]) if one["trade_id"].count("-") == 2]
    assert legs
