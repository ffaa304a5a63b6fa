"""Decimals: the grammar, exactness, and how they are written."""

from decimal import Decimal, Inexact, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.core.decimals import (
    DIGITS_MAX,
    BadDecimal,
    Decimals,
    JsonNumber,
    exactly,
    parse_computed,
    parse_decimal,
    plain,
    quotient,
    without_exponent,
    write_numbers,
)

GOOD = ["0", "-0", "007", "530.00", "-1.25", "1e3", "1E+3", "12.5e-3", "9" * 40, "0." + "0" * 38 + "1", "1e39"]
BAD = [
    "", " 1", "1 ", "+1", ".5", "5.", "1_000", "1,5", "0x10", "NaN", "nan", "Infinity", "-inf", "1e", "e5", "--1",
    "1.2.3", "١٢", "1\n", "9" * 41, "1e40", "1E40", "1e-40", "1e999999999", "1e-999999999", "0e99999",
]  # fmt: skip


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Texts of the grammar that stay within forty digits."""
    whole, places = draw(st.text("0123456789", min_size=1, max_size=18)), draw(st.text("0123456789", max_size=9))
    exponent = draw(st.sampled_from(["", "", "e3", "E-3", "e+10"]))
    return draw(st.sampled_from(["", "-"])) + whole + ("." + places if places else "") + exponent


@pytest.mark.parametrize("text", GOOD)
def test_a_decimal_of_the_grammar_is_read(text: str) -> None:
    """2: `-?[0-9]+(.[0-9]+)?([eE][+-]?[0-9]+)?` with at most 40 digits once written out."""
    assert Fraction(text) == Fraction(parse_decimal(text))


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_no_decimal(text: str) -> None:
    """2: NaN, infinities and exponents beyond any sense are bad values; so is what only Python reads."""
    with pytest.raises(BadDecimal, match=r"decimal|digits"):
        parse_decimal(text)


def test_the_message_of_a_long_text_is_short() -> None:
    """A bad value stands in a finding, which is for people."""
    with pytest.raises(BadDecimal) as error:
        parse_decimal("x" * 10_000)
    assert len(str(error.value)) < 120


@given(texts())
def test_reading_is_exact(text: str) -> None:
    """2: no digit is lost on the way in, in whatever context."""
    with localcontext(prec=3):
        assert Fraction(text) == Fraction(parse_decimal(text))


@given(st.integers(-(10**30), 10**30), st.integers(0, 9))
def test_what_is_written_is_read_back_as_the_same_number(digits: int, places: int) -> None:
    """5: computed decimals have plain notation, no trailing zeros, at most nine decimals."""
    value = Decimal(digits).scaleb(-places)
    text = plain(value)
    assert value == parse_decimal(text)
    assert "E" not in text
    assert not ("." in text and text.endswith(("0", ".")))
    assert text == plain(parse_decimal(text))
    assert text != "-0"


@given(st.integers(-(10**18), 10**18), st.integers(10, 15))
def test_what_has_more_than_nine_decimals_is_rounded_half_even(digits: int, places: int) -> None:
    """5: Python's `round` of a fraction is half even as well, and independent of decimal contexts."""
    expected = Fraction(round(Fraction(digits, 10**places) * 10**9), 10**9)
    assert expected == Fraction(plain(Decimal(digits).scaleb(-places)))


def test_ties_go_to_the_even_digit() -> None:
    """5: half even."""
    ties = {"0.0000000005": "0", "0.0000000015": "0.000000002", "0.0000000025": "0.000000002", "-0.0000000005": "0"}
    assert ties == {text: plain(Decimal(text)) for text in ties}


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**20))
def test_a_quotient_is_rounded_once(dividend: int, divisor: int) -> None:
    """5: an average is the exact quotient, rounded half even to nine decimals."""
    expected = Fraction(round(Fraction(dividend, divisor) * 10**9), 10**9)
    assert expected == Fraction(quotient(Decimal(dividend), Decimal(divisor)))


def test_what_was_computed_may_have_two_hundred_digits() -> None:
    """A derived line holds products and quotients, which are longer than any value of an event."""
    longest = "9" * 200
    assert longest == str(parse_computed(longest))
    with exactly():
        assert int(longest) == Decimal(longest) + 0
    for text in (longest + "9", f"-0.{longest}"):
        with pytest.raises(BadDecimal, match="201 digits, expected at most 200"):
            parse_computed(text)


def test_sums_are_exact_or_an_error() -> None:
    """No float and no rounding touches a price: what would not fit raises."""
    one = Decimal("9" * 40)
    with localcontext(prec=5), exactly():
        assert int(one) * int(one) == one * one
        with pytest.raises(Inexact):
            assert one.scaleb(160) + Decimal("0.1")


@given(texts())
def test_writing_out_an_exponent_changes_no_number(text: str) -> None:
    """5: what came in as text goes out as it came, without its exponent."""
    written = without_exponent(text)
    assert Fraction(text) == Fraction(written)
    assert "e" not in written.lower()
    assert written == text or "e" in text.lower()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, True), (None, None), ("1.50", "1.50"), (JsonNumber("1.50"), "1.50"),
        (2**64 - 1, 2**64 - 1), (2**64, str(2**64)), (-(2**63), -(2**63)), (-(2**63) - 1, str(-(2**63) - 1)),
    ],
)  # fmt: skip
def test_nested_numbers_are_whole_ones_of_64_bits_or_texts(value: object, written: object) -> None:
    """2: what a reader could not take as it is, at any depth, is the text that it came as."""
    found = write_numbers({"a": [value, {"b": value}]})
    assert {"a": [written, {"b": written}]} == found
    assert type(written) is type(found["a"][0])


def test_the_memory_of_decimals_is_bounded_and_exact() -> None:
    """A text read before gives the same number; a long log does not fill the memory."""
    known = Decimals()
    assert (65_536, 64) == (known.SIZE_MAX, known.TEXT_MAX)
    sizes = set()
    for number in range(Decimals.SIZE_MAX + 10):
        assert number == known[str(number)]
        sizes.add(len(known))
    assert Decimals.SIZE_MAX == max(sizes)
    with pytest.raises(BadDecimal):
        known["1_0"]
    assert DIGITS_MAX == len(str(known["9" * DIGITS_MAX]))


def test_the_memory_of_decimals_is_bounded_in_bytes() -> None:
    """Leading zeros make a number as long as a line; such a text is read, and not remembered."""
    known = Decimals()
    for number in range(1, 100):
        assert number == known["0" * 100_000 + str(number)]
    assert 1 == known["0" * (Decimals.TEXT_MAX - 1) + "1"]
    assert [Decimals.TEXT_MAX] == [len(text) for text in known]
