"""Points of the past: which are kept, which serve, and that nothing depends on one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compactor import Ledger
from compactor.ledger.files import Files
from compactor.ledger.log import Log, open_log
from compactor.ledger.points import (
    COMMIT_BYTES,
    NEAR_BYTES,
    RECENT_BYTES,
    keep_point,
    newest_point,
    plan_commit,
    plan_thinning,
    usable_points,
)
from tests.cases import LOG, read_derived
from tests.faults import orders
from tests.test_system_calls import opened

R = RECENT_BYTES


@pytest.mark.parametrize(
    ("since", "rest", "first", "commits"),
    [
        (COMMIT_BYTES, 1 << 40, False, True), (COMMIT_BYTES, 1 << 40, True, True),
        (COMMIT_BYTES - 1, 1 << 40, False, False), (COMMIT_BYTES - 1, 1 << 40, True, False),
        (3 * R, R, True, True), (3 * R - 1, R, True, False), (3 * R, R + 1, True, False), (R, 4 * R, True, False),
        (2 * R, 4 * R, False, True), (2 * R - 1, 4 * R, False, False), (2 * R, 4 * R + 1, False, False),
        (R // 2, 0, False, True), (R // 2 - 1, 0, False, False), (R // 2, R, False, True),
        (R // 2, R + 2, False, False),
    ],
)  # fmt: skip
def test_a_long_pass_commits_the_more_often_the_nearer_its_end_is(
    since: int, rest: int, first: bool, commits: bool
) -> None:
    """Every 256 MiB; within its last 64 MiB once a third of the rest is done; a first time 16 MiB before its end."""
    assert commits == plan_commit(since, rest, first=first)


@pytest.mark.parametrize(
    ("offsets", "near", "removed"),
    [
        ([], 0, []),
        ([5], 0, []),
        (range(10, 101, 10), 0, [80, 60, 50, 40, 30, 20]),
        (range(10, 101, 10), 30, [50, 30, 20]),
        (range(10, 101, 10), 100, []),
        ([100, 60, 20, 90], 10, []),
        ([101, 61, 0, 91, 41], 10, []),
        ([100, 60, 0, 90, 40], 10, [40]),
    ],
)
def test_points_thin_out_towards_the_past(offsets: list[int], near: int, removed: list[int]) -> None:
    """No gap gets longer than twice its distance from what is near the newest one (the law is in `test_replay`)."""
    assert removed == plan_thinning(list(offsets), near)


@pytest.fixture
def alpha(data: Path) -> Path:
    """A ledger with points after 10, 20 and 30 orders, and lines behind them."""
    path = data / "team/alpha"
    path.mkdir(parents=True)
    for end in (10, 20, 30):
        (path / LOG).write_bytes(orders(0, end)) if end == 10 else grow(path, orders(end - 10, end))
        Ledger(path).compact(checkpoint=True)
    grow(path, orders(30, 33))
    return path


def grow(path: Path, more: bytes) -> None:
    with (path / LOG).open("ab") as log:
        log.write(more)


@contextmanager
def log_of(path: Path) -> Iterator[Log]:
    with open_log(path, Files()) as log:
        yield log


def offsets_of(path: Path, limit: int, team: str | None = "alpha") -> list[int]:
    """Those that serve, newest first; and nothing stays open, whether all are looked at or only the first."""
    before = opened()
    with log_of(path) as log:
        found = []
        for slot in usable_points(path, team, Files(), log, limit):
            found.append(slot.header.log.length)
            slot.close()
        assert (found[0] if found else 0) == newest_point(path, team, Files(), log, limit)
    assert before == opened()
    return found


class TestUse:
    def test_the_newest_at_or_before_an_offset_comes_first(self, alpha: Path) -> None:
        """Points and both slots; what lies behind the offset is left out."""
        ten, twenty, thirty = (len(orders(0, end)) for end in (10, 20, 30))
        assert [f"{end:020d}" for end in (ten, twenty, thirty)] == sorted(Files().names(alpha / ".state/points"))
        assert [thirty, thirty, twenty, twenty, ten] == offsets_of(alpha, 1 << 40)
        assert [thirty, thirty, twenty, twenty, ten] == offsets_of(alpha, thirty, None)
        assert [twenty, twenty, ten] == offsets_of(alpha, thirty - 1)
        assert [ten] == offsets_of(alpha, ten)
        assert [] == offsets_of(alpha, ten - 1)

    def test_those_of_another_team_or_another_log_do_not_serve(self, alpha: Path) -> None:
        """Nor a name that is none, a damaged one, or one that is gone."""
        points = alpha / ".state/points"
        assert [] == offsets_of(alpha, 1 << 40, "bravo")
        (points / "notes").write_bytes(b"mine")
        (points / "123").write_bytes(b"too short a number")
        (points / ("²" * 20)).write_bytes(b"no number")
        (points / f"{7:020d}").write_bytes(b"no checkpoint")
        ten, twenty, thirty = (len(orders(0, end)) for end in (10, 20, 30))
        assert [thirty, thirty, twenty, twenty, ten] == offsets_of(alpha, 1 << 40)
        for name in ("checkpoint.0", "checkpoint.1"):
            (alpha / ".state" / name).unlink()
        (alpha / LOG).rename(alpha / "aside")
        shutil.copy(alpha / "aside", alpha / LOG)
        assert [] == offsets_of(alpha, 1 << 40)

    def test_a_point_that_cannot_be_kept_is_no_failure(self, alpha: Path) -> None:
        """Full, read-only, or without links: the next replay only has more to fold."""
        shutil.rmtree(alpha / ".state/points")
        (alpha / ".state/points").write_bytes(b"in the way")
        grow(alpha, orders(33, 40))
        Ledger(alpha).compact(checkpoint=True)
        other = alpha.parent / "bravo"
        other.mkdir()
        (other / LOG).write_bytes((alpha / LOG).read_bytes())
        Ledger(other, team_id="alpha").compact()
        assert read_derived(other) == read_derived(alpha)

    def test_slots_serve_where_points_cannot_be_listed(self, alpha: Path) -> None:
        """A replay has more to fold then, and no failure."""
        shutil.rmtree(alpha / ".state/points")
        (alpha / ".state/points").write_bytes(b"in the way")
        assert [len(orders(0, 30)), len(orders(0, 20))] == offsets_of(alpha, 1 << 40)

    def test_a_point_that_is_kept_thins_out_the_older_ones(self, alpha: Path) -> None:
        """What stays is what the plan keeps."""
        points = alpha / ".state/points"
        before = [*map(int, Files().names(points)), *(number * NEAR_BYTES for number in range(1, 12))]
        for offset in before:
            (points / f"{offset:020d}").touch()
        keep_point(Files(), alpha / ".state/checkpoint.0", 12 * NEAR_BYTES)
        kept = {*before, 12 * NEAR_BYTES}.difference(plan_thinning([*before, 12 * NEAR_BYTES]))
        assert 3 < len(kept) < len(before)
        assert sorted(kept) == sorted(map(int, Files().names(points)))

    def test_a_point_of_the_same_offset_is_replaced(self, alpha: Path) -> None:
        """A pass that was stopped behind it writes it again."""
        point = alpha / ".state/points" / f"{len(orders(0, 30)):020d}"
        older, newest = sorted((alpha / ".state").glob("checkpoint.?"), key=lambda one: one.stat().st_mtime_ns)
        assert newest.samefile(point)
        keep_point(Files(), older, len(orders(0, 30)))
        assert older.samefile(point)
