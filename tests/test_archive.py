"""What is remembered of orders that have left the state: never too little, and hardly ever too much."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.core import archive
from compactor.core.archive import NO_SECRET, PRIME, Archive, BloomFilter, SpanRecord, fingerprint
from compactor.ledger.checkpoint import begin_fold

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
MANY = 100_000


def stored(marks: BloomFilter) -> BloomFilter:
    """The same filter, its pages read from where a checkpoint has put them."""
    pages = [bytes(page) for page in marks.pages()]
    return BloomFilter(marks.counts, lambda number: pages[number] if number < len(pages) else b"", marks.secret)


@pytest.fixture(scope="module")
def marked() -> BloomFilter:
    """A filter that has taken many ids alike, in several generations."""
    forgotten = BloomFilter()
    for number in range(MANY):
        forgotten.add(f"o-{number}")
    return forgotten


def test_what_was_marked_is_always_found(marked: BloomFilter) -> None:
    """6.2: an event of a forgotten order is never mistaken for the first event of a new one."""
    assert len(marked.counts) >= 2
    assert [] == [number for number in range(MANY) if f"o-{number}" not in marked]


def test_hardly_any_other_id_is_found(marked: BloomFilter) -> None:
    """A false mark costs a search of the log: fewer than one in ten thousand, however alike the ids are."""
    others = [f"o-{number}" for number in range(MANY, 2 * MANY)]
    others += [f"{kind}{number}" for kind in ("p-", "o_", "0-", "o-0") for number in range(MANY // 4)]
    assert sum(order_id in marked for order_id in others) <= len(others) // 10_000


def test_a_stored_filter_finds_what_was_marked(marked: BloomFilter) -> None:
    """7: marks survive a checkpoint, and so do those that come after it."""
    again = stored(marked)
    for number in range(MANY, MANY + 1000):
        again.add(f"o-{number}")
    again = stored(again)
    assert [] == [number for number in range(0, MANY + 1000, 7) if f"o-{number}" not in again]


def test_pages_that_nobody_asked_for_are_not_read(marked: BloomFilter) -> None:
    """Starting costs the same after ten million orders: a look-up reads a page of each generation."""
    pages, read = [bytes(page) for page in marked.pages()], list[int]()

    def fetch(number: int) -> bytes:
        read.append(number)
        return pages[number]

    again = BloomFilter(marked.counts, fetch)
    assert [] == read
    assert "o-7" in again
    assert "nobody" not in again
    assert len(read) <= 2 * len(marked.counts)


def test_one_id_marked_again_takes_no_room() -> None:
    """An order that comes back for ever does not fill the filter."""
    forgotten = BloomFilter()
    for _ in range(100):
        forgotten.add("o-1")
    assert [1] == forgotten.counts


def test_a_generation_that_is_full_is_followed_by_a_larger_one(marked: BloomFilter) -> None:
    """The filter grows with what it has taken; the sum of its counts is what it holds, but for false marks."""
    assert MANY * 0.999 <= sum(marked.counts) <= MANY
    assert marked.counts[0] == 4 * (archive.PAGE_BYTES // 6)
    assert [0, 4, 4 + 16] == [len(list(one.pages())) for one in (BloomFilter(), BloomFilter([1]), marked)]


IDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)


@given(IDS, IDS, st.integers(2, PRIME - 1))
def test_fingerprints_are_the_same_on_every_machine_and_differ(one: str, other: str, secret: int) -> None:
    """1.4: no randomness of the process; ids are told apart by all their bytes."""
    assert fingerprint(one, secret) == fingerprint(one, secret) < 1 << 127
    assert one == other or fingerprint(one, NO_SECRET) != fingerprint(other, NO_SECRET)
    assert 10_144_495_258_339_561_105_871_496_681_833_618_908 == fingerprint("o-1", NO_SECRET)


def colliding_ids() -> list[str]:
    """Ids with one fingerprint under the secret 2, under which one taken from a byte and two added to the byte seven
    further on are nothing."""
    ids = []
    for number in range(1 << 7):
        bits = [number >> bit & 1 for bit in range(7)]
        ids.append("".join([chr(ord("B") - bit) for bit in bits] + [chr(ord("a") + 2 * bit) for bit in bits]))
    return ids


def test_ids_that_are_made_to_collide_under_one_secret_do_not_under_another() -> None:
    """Who can only append to a log does not know the secret of the state, and cannot make ids that fill one page."""
    ids = colliding_ids()
    assert len(ids) == len(set(ids)) == 128
    assert [1, 128, 128] == [len({fingerprint(one, secret) for one in ids}) for secret in (2, 3, NO_SECRET)]
    longest = []
    for secret in (2, NO_SECRET):
        kept = Archive(marks=BloomFilter(secret=secret))
        kept.keep([(order_id, 0, 1) for order_id in [*ids, *(f"o-{number}" for number in range(1000))]], START)
        longest.append(max(map(len, kept.encode_spans(None))))
    assert longest[0] > 1.5 * longest[1]


def test_every_state_has_a_secret_of_its_own_that_its_checkpoint_keeps() -> None:
    """What is remembered under a secret is found again, whichever it is."""
    first, second = (begin_fold("alpha", lambda *_: (), None).archive for _ in range(2))
    assert 0 < first.marks.secret < PRIME and first.marks.secret != second.marks.secret
    for kept in (first, second):
        kept.keep([("o-1", 1, 2), ("o-2", 3, 4)], START)
        pages = kept.encode_spans(None)
        again = Archive(len(pages), pages.__getitem__, BloomFilter(secret=kept.marks.secret))
        assert [(1, 2, START), (3, 4, START), None] == [again.find(one) for one in ("o-1", "o-2", "o-3")]


def test_spans_survive_a_store() -> None:
    """6.1: where the events of ended orders lie, those of an earlier checkpoint too."""
    kept = Archive()
    kept.keep([(f"o-{number}", number, number + 5) for number in range(500)], START)
    pages = kept.encode_spans(None)
    again = Archive(len(pages), lambda number: pages[number])
    again.keep([("o-7", 7, 9000), ("new", 1, 2)], START + DAY)
    pages_again = again.encode_spans(None)
    last = Archive(len(pages_again), lambda number: pages_again[number])

    assert len(pages_again) > 1
    assert [(number, number + 5, START) for number in range(500) if number != 7] == [
        last.find(f"o-{number}") for number in range(500) if number != 7
    ]
    assert (7, 9000, START + DAY) == last.find("o-7")
    assert (1, 2, START + DAY) == last.find("new")
    assert last.find("o-500") is None
    assert [True, False] == [last.may_know("o-3"), last.may_know("o-500")]
    assert [True, True, False] == [again.may_know(one) for one in ("new", "o-7", "o-500")]
    assert not Archive().may_know("o-3")


def test_spans_that_were_stored_are_kept_as_if_they_had_just_left() -> None:
    """6.1: each is as old as it was, in whatever order they come."""
    kept = Archive()
    kept.keep_all([SpanRecord("o-2", 3, 4, START + DAY), SpanRecord("o-1", 1, 2, START)])
    kept.age(START + DAY)
    assert [(0, None, None), (3, 4, START + DAY)] == [kept.find(one) for one in ("o-1", "o-2")]
    assert [True, True, False] == [kept.may_know(one) for one in ("o-1", "o-2", "o-3")]


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_span_that_is_too_old_shrinks_to_a_mark(is_stored: bool) -> None:
    """6.1: exactly the retention is kept; older ones are only known to have been there."""
    kept = Archive()
    kept.keep([("old", 10, 20)], START - timedelta(microseconds=1))
    kept.keep([("at the edge", 30, 40)], START)
    if is_stored:
        pages = kept.encode_spans(None)
        kept = Archive(len(pages), lambda number: pages[number])
    else:
        kept.age(START)
    pages_of_rest = kept.encode_spans(START)
    marks = [bytes(page) for page in kept.marks.pages()]
    again = Archive(
        len(pages_of_rest),
        lambda number: pages_of_rest[number],
        BloomFilter(kept.marks.counts, lambda number: marks[number]),
    )

    assert (0, None, None) == again.find("old")
    assert (30, 40, START) == again.find("at the edge")
    assert again.find("nobody") is None


def test_an_order_that_comes_back_is_aged_from_then_on() -> None:
    """6.1: the last event counts, not the first leaving."""
    kept = Archive()
    kept.keep([("o-1", 1, 2)], START)
    kept.keep([("o-2", 3, 4)], START + DAY)
    kept.keep([("o-1", 1, 9)], START + 2 * DAY)
    kept.age(START + 2 * DAY)

    assert (1, 9, START + 2 * DAY) == kept.find("o-1")
    assert (0, None, None) == kept.find("o-2")


def test_a_mark_outweighs_the_stored_span_of_an_earlier_leaving() -> None:
    """6.2: an order came back after its span was stored, left again and aged out: its last event may lie anywhere."""
    kept = Archive()
    kept.keep([("o-1", 1, 2), ("o-2", 3, 4)], START)
    pages = kept.encode_spans(None)
    again = Archive(len(pages), lambda number: pages[number])
    again.keep([("o-1", 1, 90)], START + DAY)
    again.age(START + 2 * DAY)

    assert (1, None, None) == again.find("o-1")
    assert (3, 4, START) == again.find("o-2")
