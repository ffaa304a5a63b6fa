"""Make the answers of a broker safe to hand on: their shape stays, and every id, amount, time and key is replaced.

A word that a documentation lists, such as a status, stays. Of all other texts digits become 9 and letters x, so
that the form of an id or an instant can still be seen.
"""

from __future__ import annotations

from typing import Any

KEPT = frozenset({
    "activity_type", "asset_class", "class", "currency", "event", "exchange", "execution_type", "group_role",
    "order_class", "order_status", "order_type", "position_intent", "side", "status", "time_in_force", "type",
    "x-ratelimit-limit",
})  # fmt: skip
"""The fields whose words say nothing about an account."""
WORD_LENGTH_MAX = 32


def redact(found: Any, name: str = "") -> Any:
    """The same with everything replaced that could tell whose it is."""
    if isinstance(found, dict):
        return {_keep_name(str(key)): redact(value, str(key)) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [redact(one, name) for one in found]
    if found is None or isinstance(found, bool):
        return found
    text = str(found)
    if name.lower() in KEPT and len(text) <= WORD_LENGTH_MAX:
        return text
    return mask(text)


def mask(text: str) -> str:
    """A text whose digits are 9 and whose letters are x."""
    return "".join("9" if one.isdigit() else "x" if one.isalpha() else one for one in text)


def _keep_name(key: str) -> str:
    """The name of a field; one that has digits may be an id."""
    return key if key.replace("_", "").replace("-", "").isalpha() else mask(key)
