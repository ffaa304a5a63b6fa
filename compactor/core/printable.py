"""Text that is safe to show: control characters are written out, and private keys and keys of the API are hidden.

What stands in a log, in the name of a directory or in a message of somebody else's program is data. Escape sequences in
it could repaint a terminal, and bidirectional marks could make `SELL` read as another word.

Note: JSON stays the same JSON. Only the notation of such characters changes, to `\\\\u009b`.
"""

from __future__ import annotations

import json
import re

_UNSAFE = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f"
)
"""C0 and C1, bidirectional marks, separators of lines, invisible characters, and halves of surrogate pairs."""
_CONTROL = re.compile(f"[{_UNSAFE}]")
_CONTROL_BUT_NEWLINES = re.compile(f"(?!\n)[{_UNSAFE}]")
_PLAIN = re.compile(rb"[\x20-\x7e\n]*")
_PRIVATE_KEY = re.compile(r"PRIVATE\+KEY\+[^\s\"'\\]*")
_API_KEY = re.compile(r"(ck_[0-9a-f]{12}_)[A-Za-z0-9_-]+")
_CREDENTIAL = re.compile(
    r"((?:secret|authorization|password|token)[\w-]{0,40}[\"'\\]{0,8}\s{0,8}[:=]\s{0,8}[\"'\\]{0,8}(?:(?:bearer|basic)\s{1,8})?)"
    r"[^\s\"'\\,;})\]]+",
    re.IGNORECASE,
)
_USER_OF_ADDRESS = re.compile(r"(://[^\s/:@]*:)[^\s/@]+(?=@)")
HIDDEN = "PRIVATE+KEY+(hidden)"


def printable(value: object) -> str:
    """The text of a value with control characters written out; an absent value is empty, a truth is yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else _CONTROL.sub(_write_out, str(value))


def printable_lines(text: str) -> str:
    """Free text of several lines, with control characters written out and private keys hidden."""
    return _CONTROL_BUT_NEWLINES.sub(_write_out, redact(text))


def printable_text(text: str) -> str:
    """Lines of data, as of a log or of CSV, with control characters written out, for a terminal."""
    return _CONTROL_BUT_NEWLINES.sub(_write_out, text)


def escape_json(data: bytes) -> bytes:
    """JSON in UTF-8 with unsafe characters as escapes: the same values, and nothing that a terminal obeys."""
    if _PLAIN.fullmatch(data):
        return data
    return _CONTROL_BUT_NEWLINES.sub(_write_out_json, data.decode(errors="replace")).encode()


def redact(text: str) -> str:
    """Hide private signing keys, and the secrets of keys of the API, given or named in the wrong place."""
    if "ck_" in text:
        text = _API_KEY.sub(r"\1(hidden)", text)
    return _PRIVATE_KEY.sub(HIDDEN, text) if "PRIVATE+KEY+" in text else text


def hide_credentials(text: str) -> str:
    """Hide what stands behind names of secrets (a header, a field, a variable) and the password of an address."""
    return _USER_OF_ADDRESS.sub(r"\1(hidden)", _CREDENTIAL.sub(r"\1(hidden)", text))


def _write_out(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()


def _write_out_json(match: re.Match[str]) -> str:
    # White space between the values of a document stands here as it came.
    return " " if match.group() in "\t\r" else json.dumps(match.group())[1:-1]
