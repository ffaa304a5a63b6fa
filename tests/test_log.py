"""The log as it is read: whole lines in blocks, lines of any length, and the lines of one order out of its past."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor import Ledger, LogRewritten, SegmentDamaged
from compactor.core.events import LINE_BYTES_MAX
from compactor.core.lines import EXCERPT_BYTES, Block
from compactor.ledger.files import Files
from compactor.ledger.log import BLOCK_BYTES, SEARCH_BYTES, Log, open_log
from tests.cases import LOG
from tests.disk import Disk
from tests.faults import orders

PATH = Path("/ledger/events.jsonl")
# The sizes at which something else happens: a block, a mebibyte, what is searched for a newline at once.
EDGES = [BLOCK_BYTES, LINE_BYTES_MAX, LINE_BYTES_MAX + BLOCK_BYTES, SEARCH_BYTES + BLOCK_BYTES]


def log_of(data: bytes) -> Log:
    disk = Disk()
    disk.put(PATH, data)
    return Log(PATH, disk.open(PATH))


def lines_of(*lengths: int) -> bytes:
    """Lines of so many bytes, newline not counted."""
    return b"".join(bytes([97 + number % 26]) * length + b"\n" for number, length in enumerate(lengths))


def check(blocks: list[Block], data: bytes, offset: int = 0) -> None:
    """What holds of all blocks: they follow each other, none splits a line, and short of long lines they are the
    log."""
    for block in blocks:
        piece = data[block.offset : block.offset + block.length]
        assert offset == block.offset
        assert piece.endswith(b"\n")
        assert len(piece) == block.length
        if block.too_long:
            assert (1, True) == (piece.count(b"\n"), block.length - 1 > LINE_BYTES_MAX)
            assert piece[:EXCERPT_BYTES] == block.data
        else:
            assert piece == block.data
        offset += block.length
    assert data.rfind(b"\n") + 1 == offset


@given(st.lists(st.sampled_from([0, 1, 100, BLOCK_BYTES - 2, BLOCK_BYTES - 1, BLOCK_BYTES, 70_000]), max_size=6))
def test_a_block_never_splits_a_line(lengths: list[int]) -> None:
    """2: whole lines only; what has no newline is not there yet."""
    data = lines_of(*lengths)
    for tail in (b"", b"unfinished", b"x" * (BLOCK_BYTES + 5)):
        check(list(log_of(data + tail).blocks(0, len(data + tail))), data + tail)


@pytest.mark.parametrize("more", [-2, -1, 0, 1])
@pytest.mark.parametrize("edge", EDGES)
def test_a_line_of_any_length_is_read_or_passed_over(edge: int, more: int) -> None:
    """2: an event has at most 1,048,576 bytes; of a longer line only its head is held."""
    data = lines_of(10, edge + more, 10)
    blocks = list(log_of(data).blocks(0, len(data)))
    check(blocks, data)
    assert (edge + more > LINE_BYTES_MAX) == any(block.too_long for block in blocks)


def test_a_long_line_without_its_end_is_not_there_yet() -> None:
    """2: however long it is already."""
    for length in (BLOCK_BYTES, LINE_BYTES_MAX + 1, SEARCH_BYTES * 2 + 1):
        data = b"first\n" + b"x" * length
        assert [Block(0, b"first\n", 6)] == list(log_of(data).blocks(0, len(data)))


@pytest.mark.parametrize("length", [BLOCK_BYTES * 3, LINE_BYTES_MAX + 1, SEARCH_BYTES * 2])
def test_a_long_line_is_not_read_beyond_the_given_end(length: int) -> None:
    """7.1: what is derived is never ahead of what was synced, though more of a long line is there by now."""
    data = b"first\n" + b"x" * length + b"\nlast\n"
    for end in (6 + BLOCK_BYTES, 6 + length - 1, 6 + length):
        assert [Block(0, b"first\n", 6)] == list(log_of(data).blocks(0, end))
    blocks = list(log_of(data).blocks(0, 6 + length + 1))
    assert [6, 6 + length + 1] == [block.end for block in blocks]


def test_only_the_bytes_up_to_the_given_end_are_read() -> None:
    """A pass folds what was there when it began; more may be written meanwhile."""
    data = b"one\ntwo\nthree\n"
    for end in range(len(data) + 1):
        found = b"".join(block.data for block in log_of(data).blocks(0, end))
        assert data[: data.rfind(b"\n", 0, end) + 1] == found


def test_blocks_begin_at_any_line() -> None:
    """1.5: offsets are those of the file."""
    data = lines_of(5, BLOCK_BYTES, 7)
    check(list(log_of(data).blocks(6, len(data))), data, 6)


@given(st.binary(max_size=30), st.integers(0, 3))
def test_the_end_of_whole_lines_is_behind_the_last_newline(tail: bytes, blocks: int) -> None:
    """2: a last line without its newline is a tail, whatever its length."""
    tail = tail.replace(b"\n", b"") + b"x" * (blocks * BLOCK_BYTES)
    for whole in (b"", b"\n", b"one\n"):
        assert len(whole) == log_of(whole + tail).end_of_whole_lines(len(whole + tail))


def event(order_id: str, **fields: str) -> bytes:
    return json.dumps({"event": "new", "order_id": order_id, **fields}).encode() + b"\n"


def naming(data: bytes, order_id: str, first: int = 0, end: int | None = None) -> list[tuple[int, bytes]]:
    return list(log_of(data).lines_naming(order_id, first, len(data) if end is None else end))


def test_the_lines_of_an_order_are_found_with_their_offsets() -> None:
    """6.2: every line that may name the order, once, in order."""
    lines = [event(f"o-{number}") for number in range(5000)]
    data = b"".join(lines)
    assert len(data) > 2 * BLOCK_BYTES
    for number in (4999, 1234):
        assert [(data.index(lines[number]), lines[number][:-1])] == naming(data, f"o-{number}")
    assert [line[:-1] for line in lines if b"o-123" in line] == [line for _, line in naming(data, "o-123")]
    assert [] == naming(data, "nobody")


@pytest.mark.parametrize("order_id", ["o-1", "é", 'a"b', "tab\t", "\U0001f600", "a/b", "back\\slash"])
def test_an_id_is_found_however_it_is_escaped(order_id: str) -> None:
    """2: JSON writes one text in many ways."""
    escaped = "".join(f"\\u{ord(one):04x}" for one in order_id if ord(one) < 1 << 16) or "\\ud83d\\ude00"
    ways = [json.dumps(order_id), json.dumps(order_id, ensure_ascii=False), f'"{escaped}"', f'"{escaped.upper()}"']
    ways += [json.dumps(order_id).replace("/", "\\/")]
    for way in ways:
        line = f'{{"order_id":{way}}}'.encode().replace(b"\\U", b"\\u")
        data = event("first") + line + b"\n" + event("last")
        assert json.loads(line) == {"order_id": order_id}
        assert (len(event("first")), line) in naming(data, order_id)


def test_lines_with_escapes_that_are_no_part_of_an_id_are_passed_over() -> None:
    """Each line that an import of old files wrote has a message with quotes in `raw`."""
    data = b"".join(event(f"o-{number}", raw='{"order_id":"\\n"}') for number in range(1000))
    assert 1 == len(naming(data, "o-999"))
    assert 1000 == len(naming(data, 'o-"'))


def test_an_id_in_a_fused_line_is_found() -> None:
    """5: an event behind a torn fragment is in the same line, twice in it at times."""
    fused = b'{"event":"fil' + event("o-1")
    both = event("o-1")[:-1] + event("o-1")
    data = event("o-2") + fused + b"\0\0" + event("o-1") + both
    starts = [len(event("o-2")), len(event("o-2") + fused), len(data) - len(both)]
    assert starts == [offset for offset, _ in naming(data, "o-1")]


def test_only_lines_of_the_range_are_found() -> None:
    """6.2: from the line of the first event to that of the last, whole, though the range ends within it."""
    data = event("o-1") * 4
    length = len(event("o-1"))
    assert [length, 2 * length] == [offset for offset, _ in naming(data, "o-1", length, 2 * length + 1)]
    assert [length] == [offset for offset, _ in naming(data, "o-1", length, length + 1)]
    assert [0] == [offset for offset, _ in naming(data, "o-1", 0, length)]


def test_a_range_may_end_anywhere() -> None:
    """6.2: in a line, with it, within an unfinished one, or behind the log; only whole lines are found."""
    data = event("o-1") * 2
    for tail in (b"", b"x", b"xy", event("o-1")[:-1], b"x" * (BLOCK_BYTES + 3)):
        for end in range(len(event("o-1")) + 1, len(data + tail) + 3):
            assert [0, len(event("o-1"))] == [offset for offset, _ in naming(data + tail, "o-1", 0, end)][:2]
            if len(tail) > 1000 and end > len(data) + 3:
                break


def test_a_range_may_end_in_a_long_line() -> None:
    """6.2: an event of almost a mebibyte is found as well; one that is too long is no event."""
    long = event("o-1", raw="x" * 900_000)
    too_long = event("o-1", raw="x" * LINE_BYTES_MAX)
    data = event("o-2") + long + too_long + event("o-1")
    start = len(event("o-2"))
    assert [(start, long[:-1])] == naming(data, "o-1", start, start + 1)
    assert [start, len(data) - len(event("o-1"))] == [offset for offset, _ in naming(data, "o-1")]


def test_a_log_that_is_another_than_before_is_noticed() -> None:
    """7: the same file, no shorter, with the same 4 KiB before the offset; bytes before and behind do not matter."""
    data = bytes(range(1, 256)) * 40
    known = log_of(data).digest_prefix(9000)
    log_of(data).check(1, known)
    log_of(data + b"more").check(1, known)
    for place in (9000 - 4096, 8999):
        with pytest.raises(LogRewritten, match="rewritten: the bytes from 4904 to 9000"):
            log_of(data[:place] + b"\0" + data[place + 1 :]).check(1, known)
    for place in (9000 - 4097, 9000):
        log_of(data[:place] + b"\0" + data[place + 1 :]).check(1, known)
    with pytest.raises(LogRewritten, match="truncated: expected at least 9000 bytes, found 8999"):
        log_of(data[:8999]).check(1, known)
    with pytest.raises(LogRewritten, match="replaced by another file: expected inode 2, found 1"):
        log_of(data).check(2, known)


def test_the_lines_of_an_order_are_found_before_a_line_without_an_end() -> None:
    """2: what has no newline yet is no line; and an id may be what every line begins with."""
    whole = event("o-1")
    assert [(0, whole[:-1])] == naming(whole + whole[:9], "o-1")
    assert [(0, whole[:-1])] == naming(whole + whole[:9], "{")


def test_the_lines_of_an_order_are_found_behind_a_line_that_is_too_long() -> None:
    """6.2: an order that comes back is built from all of its lines, whatever stands between them."""
    early, late = b'{"order_id":"o-1"}\n', b'{"order_id":"o-1","a":1}\n'
    log = log_of(early + b"x" * (LINE_BYTES_MAX + 1) + b"\n" + late)
    size = log.identity().size
    assert [(0, early[:-1]), (size - len(late), late[:-1])] == list(log.lines_naming("o-1", 0, size))


@pytest.mark.parametrize("length", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 7])
def test_whole_lines_end_where_an_unfinished_line_of_any_length_begins(length: int) -> None:
    """2: what has no newline is not there yet."""
    for whole in (b"", b"\n", b"one\ntwo\n"):
        data = whole + b"x" * length
        assert len(whole) == log_of(data).end_of_whole_lines(len(data))


def test_a_log_that_lost_some_of_what_is_sealed_is_not_opened(tmp_path: Path) -> None:
    """8: the seals are looked at before anything is read, also where all bytes of the log are still in the file."""
    log = tmp_path / LOG
    log.write_bytes(orders(0, 9))
    Ledger(tmp_path).seal(now=True, reclaim="never")
    size = log.stat().st_size
    with open_log(tmp_path, Files()) as opened:
        assert orders(0, 9) == opened.read(0, size)
    os.truncate(log, size - 1)
    with (
        pytest.raises(SegmentDamaged, match=f"expected a log of at least {size} bytes"),
        open_log(tmp_path, Files()),
    ):
        pass
