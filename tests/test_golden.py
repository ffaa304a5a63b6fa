"""The ledger of `fixtures/format_v1`: bytes that no later version of the program may read differently."""

import shutil
from pathlib import Path

import pytest

from compactor import Compaction, DerivedConflict, Ledger
from compactor.ledger.checkpoint import FOLD_VERSION, Slot, open_newest_slot
from compactor.ledger.files import Files
from compactor.verify.run import verify_all
from tests.cases import DERIVED, LOG, derive, parsed, read_derived
from tests.conftest import ROOT
from tests.disk import Disk

GOLDEN = ROOT / "fixtures" / "format_v1"
STORED = GOLDEN / "state" / "checkpoint.0"
CHANGED = "the meaning of people's files has changed; fixtures/format_v1/README.md says what to do"
OLDER = GOLDEN / "fold-2"
"""What fold versions 1 and 2 derived from the same log."""
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
def test_files_of_an_older_fold_version_are_kept_and_derived_anew(
    files: tuple[str, ...], golden: dict[str, bytes]
) -> None:
    """7: a new fold version means a full refold; what the older one derived otherwise stays under another name."""
    log = (GOLDEN / LOG).read_bytes()
    disk = disk_with(log)
    disk.put(LEDGER / ".state" / STORED.name, STORED.read_bytes())
    older = read_derived(OLDER)
    for name in files:
        disk.put(LEDGER / name, older[name])

    done = compact(disk)

    header = Slot(STORED, Files().open(STORED)).header
    assert header.fold_version < FOLD_VERSION
    assert len(log) - 72 == done.bytes
    assert golden == derived_on(disk), CHANGED
    kept = ["trades.jsonl.fold-1", "findings.jsonl.fold-1"] if files else []
    assert sorted(kept) == sorted(done.set_aside)
    assert [older[name.removesuffix(".fold-1")] for name in kept] == [disk.take(LEDGER / name) for name in kept]
    assert [] == compact(disk).set_aside


def test_an_upgrade_may_be_stopped_at_any_call(golden: dict[str, bytes]) -> None:
    """7: whichever call is the last, the next pass reaches the new bytes and keeps the old ones."""
    older = read_derived(OLDER)

    before = disk_with((GOLDEN / LOG).read_bytes())
    before.put(LEDGER / ".state" / STORED.name, STORED.read_bytes())
    for name in DERIVED:
        before.put(LEDGER / name, older[name])
    for step, disk in before.list_stops(compact):
        compact(disk)
        assert golden == derived_on(disk), f"stopped at call {step}"
        kept = {name: disk.take(LEDGER / f"{name}.fold-1") for name in ("trades.jsonl", "findings.jsonl")}
        assert {name: older[name] for name in kept} == kept, f"stopped at call {step}"


def test_an_upgrade_that_commits_on_its_way_ends_with_its_pass(
    golden: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """7: what differs from the log after it was changed by somebody, and is not kept as an older version's."""
    monkeypatch.setattr("compactor.ledger.compaction.plan_commit", lambda since, rest, *, first: rest > 0)
    monkeypatch.setattr("compactor.ledger.log.BLOCK_BYTES", 4096)
    disk = disk_with((GOLDEN / LOG).read_bytes())
    disk.put(LEDGER / ".state" / STORED.name, STORED.read_bytes())
    for name, data in read_derived(OLDER).items():
        disk.put(LEDGER / name, data)
    disk.put(LEDGER / "pending_orders.jsonl", b"{}\n")
    compact(disk)
    assert golden == derived_on(disk), CHANGED
    assert disk.take(LEDGER / "pending_orders.jsonl.before") is None, "it was a ledger's own"
    slot = open_newest_slot(LEDGER / ".state", disk, lambda _: None)
    assert slot is not None
    assert (FOLD_VERSION, None) == (slot.header.fold_version, slot.header.upgrades)


def test_a_file_that_somebody_changed_is_no_upgrade() -> None:
    """7: what is not as the older version left it is refused, as ever, and nothing is touched."""
    older = read_derived(OLDER)
    disk = disk_with((GOLDEN / LOG).read_bytes())
    disk.put(LEDGER / ".state" / STORED.name, STORED.read_bytes())
    for name in DERIVED:
        disk.put(LEDGER / name, older[name])
    at = Slot(STORED, Files().open(STORED)).header.trades.length - 9
    edited = older["trades.jsonl"][:at] + b"?" + older["trades.jsonl"][at + 1 :]
    disk.put(LEDGER / "trades.jsonl", edited)
    with pytest.raises(DerivedConflict):
        compact(disk)
    assert (edited, older["findings.jsonl"]) == (
        disk.take(LEDGER / "trades.jsonl"),
        disk.take(LEDGER / "findings.jsonl"),
    )


def test_a_copied_ledger_with_its_checkpoint_goes_on(golden: dict[str, bytes], tmp_path: Path) -> None:
    """7: a log under another inode than the checkpoint's is folded from its first byte, compared, and gone on with."""
    ledger = tmp_path / "ledger"
    shutil.copytree(GOLDEN, ledger)
    (ledger / "state").rename(ledger / ".state")
    with Ledger(ledger) as first:
        first.compact()
    assert golden == read_derived(ledger)


def test_the_golden_ledger_touches_every_rule_that_shows_in_a_line(golden: dict[str, bytes]) -> None:
    """Section 5: every kind of trade and of finding stands in it, except `too_long`, which needs a mebibyte."""
    named = {"unknown_status", "late_fill", "calculated_open", "conflicting_fill", "fill_without_terms", "overfill"}
    named |= {"alive_after_end", "fill_gap", "snapshot_behind", "correct_after_bust", "future_timestamp"}
    unreadable = {"not_json", "not_utf8", "nul_bytes", "missing_field", "bad_value", "wrong_team", "fused_line"}
    assert named | unreadable == {finding["kind"] for finding in parsed(golden["findings.jsonl"])}
    assert {"fill", "inferred", "reversal", "correction"} == {one["kind"] for one in parsed(golden["trades.jsonl"])}
    legs = [one["trade_id"] for one in parsed(golden["trades.jsonl"]) if one["trade_id"].count("-") == 2]
    assert legs


def _lay_out_older(data: Path) -> None:
    """A ledger as an older fold version left it."""
    shutil.copytree(GOLDEN, data)
    (data / "state").rename(data / ".state")
    for name, content in read_derived(OLDER).items():
        (data / name).write_bytes(content)


def test_verify_tells_an_older_fold_version_from_an_edit(tmp_path: Path) -> None:
    """7: before the first pass after an upgrade the files are those of other rules; nobody has edited anything."""
    _lay_out_older(tmp_path / "ledger")
    found = verify_all(tmp_path / "ledger").verdicts[0].differences
    assert {"derived_by_other_rules"} == {one.kind for one in found}
    assert all("run compactor compact" in one.meaning for one in found)
    assert [] == verify_all(tmp_path / "ledger", quick=True).verdicts[0].differences


def test_verify_is_clean_once_an_upgrade_was_compacted(tmp_path: Path) -> None:
    """7: the other slot is still of the older fold version, and says nothing of files that were derived anew."""
    _lay_out_older(tmp_path / "ledger")
    with Ledger(tmp_path / "ledger") as ledger:
        assert ledger.compact().set_aside
    assert [] == verify_all(tmp_path / "ledger").verdicts[0].differences
    assert [] == verify_all(tmp_path / "ledger", quick=True).verdicts[0].differences
    # A file that was edited since is an edit.
    (tmp_path / "ledger/trades.jsonl").write_bytes(read_derived(OLDER)["trades.jsonl"])
    found = verify_all(tmp_path / "ledger").verdicts[0].differences
    assert "derived_differs" in {one.kind for one in found}
