"""Exact decimals: text in, text out, no float on the way (format.md, sections 2 and 5).

`parse_decimal` reads the text of a price or a quantity of an event, `plain` writes a computed one, and `parse_computed`
reads that again. Sums and products are made inside `exactly`, whose precision no order can exceed and which raises
rather than rounds; `quotient` is the one place that rounds.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, localcontext
from typing import Any

DIGITS_MAX = 40
"""Digits that a decimal may have once it is written without exponent: beyond any price or quantity that exists."""

COMPUTED_DIGITS_MAX = 200
"""Digits of what is computed of such decimals. A price has at most 127 before its point and 9 behind it."""

PLACES_MAX = 9
"""Decimal places of what is computed: the finest quantity that is known (crypto) has nine."""

# Products have twice the digits of their factors, and sums of any number of them that fits into a log some thirty more.
# A computed price has less than 140 digits, and its product with a quantity less than 200.
EXACT = Context(prec=COMPUTED_DIGITS_MAX, rounding=ROUND_HALF_EVEN, traps=[Inexact, InvalidOperation, DivisionByZero])

# What the division of two exact sums is rounded to before it is cut to PLACES_MAX: wide enough that no double
# rounding shows.
_ROUNDING = Context(prec=COMPUTED_DIGITS_MAX, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero])

_GRAMMAR = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_LAST_PLACE = Decimal(f"1e-{PLACES_MAX}")


class BadDecimal(ValueError):
    """A text that is no decimal of the format; the message says what was found and what was expected."""


def parse_decimal(text: str) -> Decimal:
    """Read a decimal exactly as it is written.

    Raises BadDecimal for anything outside the grammar of format.md section 2: signs other than a minus, NaN,
    infinities, underscores, white space, and more than 40 digits once written out.
    """
    return _parse(text, DIGITS_MAX)


def parse_computed(text: str) -> Decimal:
    """Read a decimal of a derived line, which may have been computed and has more digits then. Raises BadDecimal."""
    return _parse(text, COMPUTED_DIGITS_MAX)


def _parse(text: str, digits_max: int) -> Decimal:
    if _GRAMMAR.fullmatch(text) is None:
        raise BadDecimal(f"{text[:60]!r} is not a decimal such as 12.50")
    value = Decimal(text)
    _sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    written = max(len(digits) + exponent, 1) + max(-exponent, 0)
    if written > digits_max:
        raise BadDecimal(f"{text[:60]!r} has {written} digits, expected at most {digits_max}")
    return value


class Decimals(dict[str, Decimal]):
    """A bounded memory of decimals by their text; reading one that was seen before costs a look-up.

    Prices and quantities repeat, so this makes the exact type nearly free on the path of the common event. `parse`
    reads those that were not seen. A longer text, which leading zeros can make of a megabyte, is read each time; so all
    of it takes less than 20 MB.
    """

    SIZE_MAX = 1 << 16
    TEXT_MAX = 64

    def __init__(self, parse: Callable[[str], Decimal] = parse_decimal) -> None:
        self._parse = parse

    def __missing__(self, text: str) -> Decimal:
        value = self._parse(text)
        if len(text) > self.TEXT_MAX:
            return value
        if len(self) >= self.SIZE_MAX:
            self.clear()
        self[text] = value
        return value


def exactly() -> AbstractContextManager[Context]:
    """The decimal context in which every sum and product of the fold is made, whatever context the caller has."""
    return localcontext(EXACT)


def quotient(dividend: Decimal, divisor: Decimal) -> Decimal:
    """Divide, rounded half even to nine places; the only rounding there is."""
    return _ROUNDING.divide(dividend, divisor).quantize(_LAST_PLACE, context=_ROUNDING)


DUST = Decimal("5E-10")
"""A quantity that no line can tell: nine decimals are written, and a broker has no smaller share."""


def plain(value: Decimal) -> str:
    """Write a computed decimal: no exponent, no trailing zeros, at most nine places, rounded half even, never `-0`."""
    text = f"{value.quantize(_LAST_PLACE, context=_ROUNDING):f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def without_exponent(text: str) -> str:
    """Write a decimal text as it came, except that an exponent is written out: `1.5e3` is `1500`, `530.00` stays."""
    return f"{parse_decimal(text):f}" if "e" in text or "E" in text else text


class JsonNumber(str):
    """The text of a JSON number, kept apart from a JSON string."""


def write_numbers(value: Any) -> Any:
    """Nested values in which a number that is no whole one of 64 bits is the text that it came as."""
    if isinstance(value, dict):
        return {name: write_numbers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [write_numbers(one) for one in value]
    is_wide = type(value) is int and not -(1 << 63) <= value < 1 << 64
    return str(value) if is_wide or type(value) is JsonNumber else value
