"""What is sent of an account's answers to others: their shape, and no id, amount, time or key."""

from __future__ import annotations

from typing import Any

import pytest

from compactor.broker.alpaca.redact import KEPT, redact


@pytest.mark.parametrize("name", sorted(KEPT))
def test_words_of_the_documentation_stay(name: str) -> None:
    """However the name of their field is written, and in lists too."""
    word = "x" * 31 + "1"
    assert {name.upper(): word} == redact({name.upper(): word})
    assert [word, ["new_2"]] == redact({name: [word, ("new_2",)]})[name]
    assert {name: "x" * 31 + "99"} == redact({name: word + "7"}), "what is longer is no such word"


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ("61ea-B", "99xx-x"),
        (12.5, "99.9"),
        (None, None),
        (True, True),
        (False, False),
        ("", ""),
        ("2026-03-02T15:00:00Z", "9999-99-99x99:99:99x"),
        ("Grüße ٣", "xxxxx 9"),
    ],
)
def test_of_all_else_the_form_can_be_seen(found: Any, shown: Any) -> None:
    assert {"id": shown, "list": [shown]} == redact({"id": found, "list": (found,)})
    assert shown == redact(found)


def test_a_word_below_another_field_is_no_word() -> None:
    """The name of the field that holds it counts."""
    assert {"status": {"id": "xxx"}, "legs": [{"side": "buy", "symbol": "xxx"}]} == redact(
        {"status": {"id": "new"}, "legs": [{"side": "buy", "symbol": "SPY"}]}
    )


def test_a_name_that_may_be_an_id_is_replaced() -> None:
    assert {"filled_avg-price": "9", "xx9": "9", "9": "x", "": "x", "x x": "x"} == redact(
        {"filled_avg-price": 1, "ab7": 2, 5: "y", "": "z", "a b": "c"}
    )
