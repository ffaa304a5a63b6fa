"""The compiled modules: what they read is what the plain ones read, and what they take is what the rules make of it.

`test_laws` compares the whole fold with and without them; here the pieces stand alone, and lines are broken byte by
byte.
"""

import importlib.util
import re
import shutil
from datetime import timedelta
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compactor.core import archive
from compactor.core.decimals import BadDecimal, parse_decimal
from compactor.core.events import Event
from compactor.core.fast import IS_COMPILED
from compactor.core.fast.interface import NoPlainOrders
from compactor.core.fold import Fold
from compactor.core.instants import BadInstant, nanos
from tests.bench import generate
from tests.conftest import ROOT
from tests.stories import clean_lives, to_lines

CORE = ROOT / "compactor" / "core" / "fast"
BILLION = 10**9
compiled = pytest.mark.skipif(not IS_COMPILED, reason="the compiled modules are not in use")


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="there is no compiler here")
def test_where_there_is_a_compiler_everything_is_compiled() -> None:
    """A module that silently was left out would cost a factor of twenty and no test."""
    expected = sorted(path.stem for path in CORE.glob("*.pyx"))
    assert expected == sorted(path.name.partition(".")[0] for path in CORE.glob("*.so"))
    assert len(expected) >= 5


def test_what_is_compiled_is_listed_for_the_build() -> None:
    """pyproject.toml names every compiled module, and none that is not there."""
    listed = re.findall(r'sources = \["compactor/core/fast/(\w+)\.pyx"\]', (ROOT / "pyproject.toml").read_text())
    assert sorted(path.stem for path in CORE.glob("*.pyx")) == sorted(listed)


# Amounts and times.

DIGITS = st.text("0123456789", max_size=12)
AMOUNTS = st.one_of(
    st.builds("{}.{}".format, DIGITS, DIGITS), DIGITS, st.text("0123456789.eE+-_ ", max_size=21), st.text(max_size=4)
)


@compiled
@given(AMOUNTS)
@example("999999999.999999999")
@example("1.")
@example(".5")
@example("1.2.3")
@example("٣")
def test_an_amount_is_exact_or_not_plain(text: str) -> None:
    """Section 2: no digit is lost, and what is no decimal of the format is never taken for one."""
    from compactor.core.fast.scan import parse_amount

    found = parse_amount(text)
    try:
        value = parse_decimal(text)
    except BadDecimal:
        assert -1 == found
        return
    whole, _, places = text.partition(".")
    if found < 0:
        assert len(whole) > 9 or len(places) > 9 or not set(text) <= set("0123456789.")
    else:
        assert value * BILLION == found


TIMES = st.builds(
    "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}{}".format,
    st.integers(1990, 2210), st.integers(0, 13), st.integers(0, 32), st.integers(0, 24), st.integers(0, 60),
    st.integers(0, 61), st.one_of(st.just(""), st.text("0123456789", max_size=10).map(".{}".format)),
    st.sampled_from(["Z", "Z", "Z", "z", "+00:00", ""]),
)  # fmt: skip


@compiled
@settings(max_examples=1000)
@given(TIMES)
@example("2024-02-29T00:00:00Z")
@example("2023-02-29T00:00:00Z")
@example("2100-02-29T00:00:00.1Z")
@example("2026-12-31T23:59:60Z")
@example("2026-03-02T14:30:00.123456789Z")
@example("2026-03-02T14:30:00.Z")
@example("2026-03-02 14:30:00.5Z")
def test_a_time_is_exact_or_not_plain(text: str) -> None:
    """Section 2: nanoseconds are kept, and a day that does not exist is never taken for one."""
    from compactor.core.fast.scan import parse_nanoseconds

    found = parse_nanoseconds(text)
    try:
        expected = nanos(text)
    except BadInstant:
        assert -1 == found
        return
    is_usual = text.endswith("Z") and text[10] == "T" and text[17:19] != "60" and "2000" <= text[:4] < "2200"
    assert found == expected if is_usual else found in (-1, expected)


# Marks.


def interpreted_archive() -> ModuleType:
    """`archive` as it is where nothing could be compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compactor.core.fast.IS_COMPILED", False)
        spec = importlib.util.spec_from_file_location("interpreted_archive", CORE.parent / "archive.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@compiled
@settings(max_examples=50)
@given(
    st.lists(st.one_of(st.uuids().map(str), st.text(st.characters(codec="utf-8"), max_size=60)), max_size=30),
    st.integers(1, archive.PRIME - 1),
)
@example(["", "\0", "a" * 1000, "ÄÖ€😀"], archive.NO_SECRET)
def test_marks_are_the_same_bits_compiled_and_not(order_ids: list[str], secret: int) -> None:
    """7: a checkpoint that was written on one machine is read on any other."""
    plainly = interpreted_archive()
    assert plainly.fingerprint is not archive.fingerprint
    ours = archive.BloomFilter([43_690, 5], secret=secret)
    theirs = plainly.BloomFilter([43_690, 5], secret=secret)
    for order_id in order_ids:
        for one in (0, 1, secret, archive.PRIME - 1):
            assert plainly.fingerprint(order_id, one) == archive.fingerprint(order_id, one)
        assert (order_id in ours) == (order_id in theirs)
        ours.add(order_id)
        theirs.add(order_id)
        assert order_id in ours and order_id in theirs
    assert ours.counts == theirs.counts
    assert list(ours.pages()) == list(theirs.pages())


@compiled
def test_marks_that_cannot_be_are_refused_and_not_read_past_their_end() -> None:
    """A checkpoint that somebody made up costs an error, never the process."""
    with pytest.raises(ValueError, match="a page of 3 bytes, expected 65536"):
        assert "o" in archive.BloomFilter([1], lambda _: b"abc")
    for one in (archive, interpreted_archive()):
        with pytest.raises(IndexError):
            assert "o" in one.BloomFilter([1] * 13)
    with pytest.raises(UnicodeEncodeError):
        archive.fingerprint("\ud800", 1)
    with pytest.raises(ValueError, match="a secret below"):
        archive.fingerprint("o", archive.PRIME)


# Lines.


class Taken:
    """What a fold makes of a log, and how many lines the rules had to read."""

    def __init__(self, log: bytes, plain: NoPlainOrders | None = None, kept_ended: int = 1 << 20) -> None:
        self.ruled = 0
        fold = Fold(None, self._recall, timedelta(days=7), kept_ended)
        if plain is not None:
            fold.plain = plain
        feed_line = fold.feed_line

        def count(line: bytes, offset: int) -> None:
            self.ruled += 1
            feed_line(line, offset)

        fold.feed_line = count  # type: ignore[method-assign]
        self._log = log
        fold.feed(log[: log.rfind(b"\n") + 1], 0)
        self.derived = (fold.pending_lines(), fold.take_lines(), fold.clock, fold.counts)
        self.orders = {order_id: one.row for order_id, one in fold.store_open().items()}

    def _recall(self, order_id: str, first: int, end: int) -> list[tuple[int, bytes]]:
        place, found = 0, []
        for line in self._log.split(b"\n")[:-1]:
            if first <= place < end:
                found.append((place, line))
            place += len(line) + 1
        return found


def assert_same(log: bytes) -> None:
    """Both ways give the same files, clock and counts, whether ended orders are kept whole or not."""
    ruled = Taken(log, NoPlainOrders())
    for kept_ended in (0, 1 << 20):
        found = Taken(log, kept_ended=kept_ended)
        assert ruled.derived == found.derived
        assert ruled.orders == found.orders


@compiled
def test_the_common_event_never_reaches_the_rules() -> None:
    """Lines as our own writer writes them are taken where they lie, each in one of the two ways."""
    log = "".join(generate.lines("alpha", 3000)).encode()
    assert 0 == Taken(log).ruled
    assert_same(log)


@compiled
def test_the_habits_of_other_writers_do_not_matter() -> None:
    """Spaces, escapes and fields that nobody reads cost a moment, not the way through the rules."""
    import json

    events = [json.loads(line) for line in generate.lines("alpha", 300, open_orders=5)]
    spaced = "".join(json.dumps(event) + "\n" for event in events).encode()
    wide = "".join(
        json.dumps({**event, "raw": {"price": [1.5, None]}, "note": "\u00e9", "legs": None}, indent=None) + "\n"
        for event in events
    ).encode()
    escaped = spaced.replace(b'"buy"', b'"b\\u0075y"')
    for log in (spaced, wide, escaped):
        assert 0 == Taken(log).ruled
        assert_same(log)
        assert b'"kind":"fill"' in Taken(log).derived[1].trades
    assert Taken(spaced).derived[0] == Taken(escaped).derived[0]


HEAD = b'{"event":"new","order_id":"o","ts":"2026-03-02T14:30:00.1Z","recorded_at":"2026-03-02T14:30:00.2Z"'
NEW = HEAD + b',"symbol":"SPY","side":"buy","quantity":"3","event_id":"e1"}\n'
FILL = NEW.replace(b'"new"', b'"partial_fill"').replace(b"00.1Z", b"01.1Z").replace(b'"e1"', b'"e2"')
FILL = FILL[:-2] + b',"execution_id":"x","price":"10.50","qty":"1","filled_qty":"1"}\n'
LAST = FILL.replace(b'"partial_fill"', b'"fill"').replace(b"01.1Z", b"02.1Z").replace(b'"e2"', b'"e3"')
LAST = (
    LAST.replace(b'"x"', b'"y"').replace(b'"qty":"1"', b'"qty":"2"').replace(b'"filled_qty":"1"', b'"filled_qty":"3"')
)
LIFE = NEW + FILL + LAST


@compiled
@pytest.mark.parametrize(
    ("again", "ruled"),
    [
        (b"", 0),
        (FILL, 0),  # The same delivery.
        (FILL.replace(b'"e2"', b'"e9"'), 0),  # The same execution, delivered anew.
        (LAST.replace(b'"e3"', b'"e9"'), 0),
        (FILL.replace(b'"e2"', b'"e9"').replace(b'"10.50"', b'"10.60"'), 1),  # With another price.
        (FILL.replace(b'"e2"', b'"e9"').replace(b'"SPY"', b'"AAPL"'), 1),
        (FILL.replace(b'"e2"', b'"e9"').replace(b'"execution_id":"x"', b'"execution_id":"xx"'), 1),
        (FILL.replace(b'"e2"', b'"e9"').replace(b'"execution_id":"x"', b'"execution_id":""'), 1),
        (FILL.replace(b'"price":"10.50"', b'"price":"?"'), 1),  # The same delivery, but no event.
        (FILL.replace(b'"qty":"1"', b'"qty":null'), 1),
        (NEW.replace(b'"quantity":"3"', b'"quantity":"0"'), 1),
        (FILL.replace(b'"e2"', b'"e9"').replace(b'"partial_fill"', b'"fill"'), 0),
        (FILL.replace(b'"e2"', b'"e9"').replace(b'"qty":"1"', b'"qty":"1","qty":null'), 1),
        (FILL[:-1] + b"}\n", 1),  # An event, and a byte too many.
        (NEW.replace(b'"e1"', b'"e9"'), 1),
    ],
)
def test_what_comes_again_after_the_end(again: bytes, ruled: int) -> None:
    """4.2, section 2: a known execution or delivery is known, everything else is the rules' to judge."""
    assert ruled == Taken(LIFE + again).ruled
    assert_same(LIFE + again)
    assert_same(NEW + again + FILL + again + LAST + again)
    assert_same(NEW + FILL + again + LAST)


def test_a_plain_order_is_known_and_has_a_status() -> None:
    """Whoever asks the state about an order need not know whether it is plain, nor whether it has ended."""
    fold = Fold("default", lambda *_: ())
    fold.feed(NEW + FILL, 0)
    assert [True, False] == [fold.may_know("o"), fold.may_know("nobody")]
    assert ["partially_filled", None] == [fold.find_status("o"), fold.find_status("nobody")]
    fold.feed(LAST, len(NEW + FILL))
    assert (True, "filled") == (fold.may_know("o"), fold.find_status("o"))


@compiled
def test_long_names_of_a_team_fit_into_a_trade_line() -> None:
    """Whatever the length of a value that is written, there is room for it."""
    team = b"t" * 70_000
    first = NEW.replace(b'"o"', b'"first"')[:-2] + b',"team_id":"' + team + b'"}\n'
    assert_same(first + LIFE)
    assert b'"team_id":"' + team in Taken(first + LIFE).derived[1].trades


def test_a_line_without_its_end_is_refused() -> None:
    """A block has whole lines; what is read of it never lies behind it."""
    if IS_COMPILED:
        with pytest.raises(ValueError, match="whole lines"):
            Fold(None, lambda *_: ()).feed(NEW + FILL[:-1], 0)


def test_a_plain_order_that_ended_leaves_the_state() -> None:
    """6.1: what is left of it is where its events lie; a late event brings it back from there."""
    fold = Fold("default", lambda *_: (), kept_ended=0)
    fold.feed(LIFE, 0)
    assert (None, []) == (fold.find_order("o"), fold.list_ended())
    assert (0, len(NEW + FILL), fold.clock) == fold.archive.find("o")


TEAM = NEW.replace(b'"o"', b'"first"')[:-2] + b',"team_id":"default"}\n'
ASK = FILL.replace(b'"partial_fill"', b'"pending_cancel"').replace(b"01.1Z", b"01.5Z").replace(b'"e2"', b'"e4"')
ASK = re.sub(rb',"execution_id".*}', b"}", ASK)
FIELDS = ("event", *Event.__struct_fields__)
WORDS = "default alpha limbo filled canceled cancelled new restated 0 1 2 4 -1 1e1 x e1 e2"
TIMES_NEAR = ("00.1Z", "01.1Z", "00.100000001Z", "09Z")
ODD = [f'"{word}"' for word in WORDS.split()] + [f'"2026-03-02T14:30:{time}"' for time in TIMES_NEAR]
ODD += ['"2026-02-30T00:00:00Z"', '""', "null", "1", "true", "[]"]


def with_field(line: bytes, field: str, value: bytes) -> bytes:
    """A line with another value in a field, which it may not have had."""
    found = re.search(rb'"%b":("[^"]*")' % field.encode(), line)
    if found is None:
        return line[:-2] + b',"%b":%b}\n' % (field.encode(), value)
    return line[: found.start(1)] + value + line[found.end(1) :]


@compiled
@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("field", FIELDS)
def test_a_life_with_one_odd_value_means_what_the_rules_make_of_it(field: str, at: int) -> None:
    """2, 3, 4: every field of every line of a plain life, with every kind of value that may stand in one."""
    plain = [NEW, FILL, ASK, LAST]
    for value in map(str.encode, ODD):
        twice = plain[at][:-2] + b',"%b":%b}\n' % (field.encode(), value)
        for line in (with_field(plain[at], field, value), twice):
            life = [*plain[:at], line, *plain[at + 1 :]]
            assert_same(TEAM + b"".join(life) + ASK)


@compiled
def test_whatever_follows_a_placement_means_what_the_rules_make_of_it() -> None:
    """3, 4: all sequences of three events, each in time or late, from one source or two."""
    other = (
        FILL.replace(b'"x"', b'"z"')
        .replace(b'"qty":"1"', b'"qty":"2"')
        .replace(b'"filled_qty":"1"', b'"filled_qty":"3"')
    )
    canceled = ASK.replace(b'"pending_cancel"', b'"canceled"')
    kinds = [FILL, LAST, ASK, canceled, canceled.replace(b'"canceled"', b'"order_cancel_rejected"'), other]
    kinds += [one[:-2] + b',"source":"rest"}\n' for one in (other, FILL.replace(b'"x"', b'"w"'))]
    for three in product(product(kinds, [False, True]), repeat=3):
        log = TEAM + NEW
        for place, (line, is_late) in enumerate(three):
            ts = b'"2026-03-02T14:30:0%dZ"' % (0 if is_late else place + 2)
            log += with_field(with_field(line, "ts", ts), "event_id", b'"f%d"' % place)
        assert_same(log)


BYTES = st.sampled_from(
    [b'"', b"\\", b"{", b"}", b",", b":", b" ", b"\0", b"\n", b"0", b".", b"-", b"null", b"\x80", b""]
)


@compiled
@settings(deadline=None, max_examples=400)
@given(st.data())
def test_lines_that_are_broken_anywhere_mean_what_the_rules_make_of_them(data: st.DataObject) -> None:
    """1.4, section 5: a byte that is changed, lost or added is never taken for a plain event that it is not."""
    log = LIFE + to_lines(data.draw(clean_lives(orders_max=2)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(log)))
        log = log[:place] + data.draw(BYTES) + log[place + data.draw(st.integers(0, 2)) :]
    assert_same(log)


@compiled
@settings(deadline=None, max_examples=200)
@given(st.data())
def test_values_that_are_exchanged_mean_what_the_rules_make_of_them(data: st.DataObject) -> None:
    """3, 4: whatever stands in a field of a plain line, the two ways agree on it."""
    values = [
        b'"1"',
        b'"3"',
        b'"0"',
        b'"-1"',
        b'"x"',
        b'""',
        b"null",
        b"1",
        b"true",
        b'"new"',
        b'"filled"',
        b'"o"',
        b"[]",
    ]
    lines = [
        NEW,
        FILL,
        LAST,
        FILL.replace(b'"partial_fill"', b'"pending_cancel"'),
        NEW.replace(b'"new"', b'"canceled"'),
    ]
    log = b""
    for line in data.draw(st.lists(st.sampled_from(lines), min_size=1, max_size=6)):
        if data.draw(st.booleans()):
            pairs = list(re.finditer(rb':("[^"]*")', line))
            pair = data.draw(st.sampled_from(pairs))
            line = line[: pair.start(1)] + data.draw(st.sampled_from(values)) + line[pair.end(1) :]
        if data.draw(st.booleans()):
            line = line.replace(b"01.1Z", b"04.1Z")
        log += line
    assert_same(log)


def sources() -> list[Path]:
    return sorted([*CORE.glob("*.pyx"), *CORE.glob("*.pxd")])


def test_the_compiled_core_imports_only_the_core() -> None:
    """The core takes values and returns values, compiled or not."""
    allowed = {"compactor.core", "cpython", "libc", "collections", "datetime", "decimal", "msgspec"}
    for path in sources():
        for name in re.findall(r"^\s*(?:from|c?import) ([\w.]+)", path.read_text(), re.MULTILINE):
            assert any(name == one or name.startswith(one + ".") for one in allowed), f"{path.name} imports {name}"
    assert len(sources()) >= 5


def test_a_compiled_module_is_one_thing() -> None:
    """A module has at most 350 lines, compiled or not."""
    assert [] == [path.name for path in sources() if len(path.read_text().splitlines()) > 350]


@pytest.mark.parametrize(("value", "is_off"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_the_environment_switches_the_compiled_modules_off(
    value: str | None, is_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COMPACTOR_PURE_PYTHON; without it they are in use where they are there."""
    monkeypatch.delenv("COMPACTOR_PURE_PYTHON", raising=False)
    if value is not None:
        monkeypatch.setenv("COMPACTOR_PURE_PYTHON", value)
    spec = importlib.util.spec_from_file_location("switched", CORE / "__init__.py")
    assert spec is not None and spec.loader is not None
    switched = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(switched)
    is_there = importlib.util.find_spec("compactor.core.fast.plain_orders") is not None
    assert (is_off, not is_off and is_there) == (switched.IS_SWITCHED_OFF, switched.IS_COMPILED)
    assert switched.IS_COMPILED != (switched.PlainOrders is NoPlainOrders)
