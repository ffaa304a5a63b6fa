"""A derived file from the length on that is known to be right: what is there is compared, the rest appended."""

from pathlib import Path

import pytest

from compactor import DerivedConflict
from compactor.ledger import tail as tail_module
from compactor.ledger.checkpoint import PrefixDigest, checksum
from compactor.ledger.tail import Tail, find_difference
from tests.disk import Disk

PATH = Path("/ledger/trades.jsonl")
OLD = bytes(range(256)) * 20


def tail_of(content: bytes | None, known: int = 0) -> tuple[Disk, Tail]:
    """A pass over a file of which a checkpoint covers so many bytes has begun."""
    disk = Disk()
    if content is not None:
        disk.put(PATH, content)
    tail = Tail(PATH, disk, PrefixDigest(known, checksum((content or b"")[max(0, known - 4096) : known])))
    tail.begin()
    return disk, tail


def test_a_file_fits_by_its_length_and_its_last_4_kib() -> None:
    """7: what lies before and behind is not looked at."""
    known = PrefixDigest(5000, checksum(OLD[904:5000]))
    for at, fits in ((903, True), (904, False), (4999, False), (5000, True), (None, True)):
        content = OLD if at is None else OLD[:at] + bytes([OLD[at] ^ 1]) + OLD[at + 1 :]
        assert fits == tail_of(content)[1].fits(known)
    assert not tail_of(OLD[:4999])[1].fits(known)
    assert tail_of(OLD[:5000])[1].fits(known)
    short = PrefixDigest(3, checksum(b"abc"))
    assert [True, False, False] == [tail_of(one)[1].fits(short) for one in (b"abcd", b"abX", None)]
    assert [True, True] == [tail_of(one)[1].fits(PrefixDigest()) for one in (None, b"more")]


def test_a_file_that_is_shorter_than_is_known_is_refused() -> None:
    """7.3: somebody has cut it."""
    disk = Disk()
    disk.put(PATH, b"12")
    with pytest.raises(DerivedConflict, match="expected at least 3 bytes, found 2"):
        Tail(PATH, disk, PrefixDigest(3, checksum(b"123"))).begin()


@pytest.mark.parametrize("present", range(0, 13, 3))
@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
def test_what_a_stopped_pass_left_is_gone_on_with(monkeypatch: pytest.MonkeyPatch, present: int, piece: int) -> None:
    """7.3: a beginning of what follows is there; nothing is written twice, in whatever pieces it comes."""
    monkeypatch.setattr(tail_module, "PIECE_BYTES", piece)
    new = b"0123456789ab"
    disk, tail = tail_of(OLD + new[:present], len(OLD))
    assert tail.unsynced == (present > 0)
    for at in range(0, 12, 4):
        tail.put(new[at : at + 4])
        assert len(disk.take(PATH) or b"") >= len(OLD) + min(present, 12)
    tail.flush()
    tail.finish()
    assert OLD + new == disk.take(PATH)
    assert tail.unsynced == (present > 0 or present < 12)
    assert PrefixDigest(len(OLD) + 12, checksum((OLD + new)[-4096:])) == tail.digest()


@pytest.mark.parametrize(("found", "at", "wanted"), [(b"0X", 1, "b'1'"), (b"0123456789abX", 12, "the end")])
def test_what_does_not_follow_is_named_by_its_offset(found: bytes, at: int, wanted: str) -> None:
    """7.3: a byte that differs, or one too many; nothing is changed."""
    disk, tail = tail_of(OLD + found, len(OLD))
    tail.put(b"0123456789ab")
    with pytest.raises(DerivedConflict, match=f"at offset {len(OLD) + at} expected {wanted}.*, found b'X'"):
        tail.flush()
        tail.finish()
    tail.roll_back()
    assert OLD + found == disk.take(PATH)


def test_a_digest_is_that_of_the_last_4_kib() -> None:
    """Of what was appended, of what was there, or of both."""
    for old, new in ((b"", b"new"), (OLD, b""), (OLD, b"new"), (OLD, OLD), (b"old", OLD), (b"old", b"new")):
        _, tail = tail_of(old or None, len(old))
        for at in range(0, len(new), 1000):
            tail.put(new[at : at + 1000])
            tail.flush()
        assert PrefixDigest(len(old + new), checksum((old + new)[-4096:])) == tail.digest()


def test_a_failed_pass_takes_back_what_it_appended_and_no_more() -> None:
    """Down to the file that was there, to none, or to what a long pass has committed on its way."""
    disk, tail = tail_of(b"")
    tail.roll_back()
    assert disk.take(PATH) == b"", "nothing was appended to an empty file"
    for content in (None, OLD):
        disk, tail = tail_of(content, len(content or b""))
        tail.roll_back()
        assert content == disk.take(PATH)
        tail.begin()
        tail.put(b"new")
        tail.flush()
        tail.roll_back()
        assert content == disk.take(PATH)
    disk, tail = tail_of(OLD, len(OLD))
    tail.put(b"kept")
    tail.flush()
    tail.keep()
    tail.put(b"new")
    tail.flush()
    tail.roll_back()
    tail.roll_back()
    assert OLD + b"kept" == disk.take(PATH)
    disk, tail = tail_of(OLD, len(OLD))
    tail.put(b"done")
    tail.flush()
    tail.end()
    tail.roll_back()
    assert OLD + b"done" == disk.take(PATH)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_is_durable_with_its_name_once_it_is_synced(is_new: bool) -> None:
    """7.3: a new name needs its directory."""
    disk, tail = tail_of(None if is_new else OLD, 0 if is_new else len(OLD))
    tail.put(b"new")
    tail.flush()
    tail.sync()
    assert not tail.unsynced
    expected = disk.take(PATH)
    disk.lose_power(0.0)
    assert expected == disk.take(PATH)


@pytest.mark.parametrize(
    ("one", "other", "at"),
    [(b"", b"", 0), (b"ab", b"ab", 2), (b"ab", b"abc", 2), (b"abc", b"", 0), (b"abc", b"aXc", 1)],
)
def test_the_first_difference_of_two_texts(one: bytes, other: bytes, at: int) -> None:
    """Where one begins the other, the end of the shorter."""
    assert (at, at) == (find_difference(one, other), find_difference(other, one))
