"""Finds the keys of an Alpaca account in the environment, and decides whether they are for paper or for real money.

Where the keys are used is for `rest` to say. The rule that surprises: real money has to be asked for in words. Keys
alone never reach the live account, and neither does a URL that somebody set years ago in a profile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import urlsplit

PAIRS = (("ALPACA_API_KEY", "ALPACA_SECRET_KEY"), ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"))
"""The variables that hold a key and its secret; the second pair is the one of Alpaca's older clients."""

URL = "APCA_API_BASE_URL"
LIVE = "COMPACTOR_LIVE"
LIVE_WORD = "yes-real-money"
LIVE_HOST = "api.alpaca.markets"
PAPER_HOST = "paper-api.alpaca.markets"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class BadCredentials(Exception):
    """There are no keys that can be used, or the broker refused them. The message never holds a key."""


class Hidden(str):
    """A text that is not shown where somebody prints what a variable holds, as a traceback with its locals does."""

    def __repr__(self) -> str:
        return "'…'"


class Environment(Mapping[str, str]):
    """The variables of a process, whose values are hidden and whose own text tells none of them."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._get = variables.get
        self._names = tuple(variables)

    def __getitem__(self, name: str) -> str:
        value = self._get(name)
        if value is None:
            raise KeyError(name)
        return Hidden(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<{len(self)} variables>"


@dataclass(frozen=True)
class Credentials:
    """The keys of one account. What is printed of it tells neither the key nor the secret.

    `names` are the variables they came from. `url` None is Alpaca's own address for paper or live.
    """

    key: str = field(repr=False)
    secret: str = field(repr=False)
    names: tuple[str, str]
    paper: bool = True
    url: str | None = None

    def hide(self, text: str) -> str:
        """A text of somebody else's with the keys taken out of it."""
        for hidden in sorted((self.key, self.secret), key=len, reverse=True):
            text = text.replace(hidden, "…")
        return text

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are never written down, so they cannot be pickled")


def find_credentials(
    environ: Mapping[str, str], *, names: tuple[str, str] | None = None, live: bool = False, url: str | None = None
) -> Credentials:
    """The keys that the environment holds, from the variables `names` or else from the first complete pair of PAIRS.

    They are for paper trading unless `live` is true or, for keys that are not named, COMPACTOR_LIVE has the word for
    it. `url` wins over APCA_API_BASE_URL. Raises BadCredentials where
    no pair is complete, where two complete pairs differ, and for a URL that does not fit.
    """
    # A traceback may show the variables of this function.
    environ = Environment(environ)
    pairs = (names,) if names is not None else PAIRS
    found = [(pair, (_value(environ, pair[0]), _value(environ, pair[1]))) for pair in pairs]
    complete = [(pair, values) for pair, values in found if all(values)]
    if not complete:
        raise BadCredentials(f"{_what_is_there(found)}; expected both of {_both(pairs)}. Set them and start again.")
    pair, (key, secret) = complete[0]
    if any(values != (key, secret) for _, values in complete):
        both = " and ".join(_pair(pair) for pair, _ in complete)
        raise BadCredentials(f"the environment has two different pairs of keys, {both}; expected one. Unset the other.")
    for name, value in zip(pair, (key, secret), strict=True):
        if not value.isascii() or not value.isprintable() or " " in value:
            raise BadCredentials(
                f"{name} holds characters that no key has; expected it as Alpaca shows it. Set it anew."
            )
    paper = not (live or (names is None and _asked_for_live(environ)))
    return Credentials(key, secret, pair, paper, _url(url or environ.get(URL, ""), paper))


def _value(environ: Mapping[str, str], name: str) -> str:
    return Hidden(environ.get(name, "").strip())


def _asked_for_live(environ: Mapping[str, str]) -> bool:
    word = environ.get(LIVE, "")
    if word not in ("", LIVE_WORD):
        # A slip in it must not trade on the wrong account unnoticed. It is not shown: it may be a key in a wrong place.
        raise BadCredentials(
            f"{LIVE} holds another word; expected {LIVE_WORD!r} for real money, or nothing for paper trading."
        )
    return word == LIVE_WORD


def _url(text: str, paper: bool) -> str | None:
    """The address that somebody set, without the version that alpaca-py adds by itself."""
    text = text.strip().rstrip("/").removesuffix("/v2")
    if not text:
        return None
    parts = urlsplit(text)
    host = parts.hostname or ""
    if not host or "@" in parts.netloc or not (
        parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    ):  # fmt: skip
        raise BadCredentials(f"{URL} is no address to send keys to; expected https://HOST, or http:// on this machine.")
    if host == LIVE_HOST and paper:
        detail = f"{URL} names {LIVE_HOST}, which is real money, but nobody asked for that"
        raise BadCredentials(f"{detail}. Unset it for paper trading, or set {LIVE}={LIVE_WORD}.")
    if host == PAPER_HOST and not paper:
        raise BadCredentials(f"real money was asked for, but {URL} names {PAPER_HOST}; expected one or the other.")
    return text


def _what_is_there(found: list[tuple[tuple[str, str], tuple[str, str]]]) -> str:
    half = [
        f"{pair[0] if values[0] else pair[1]} is set and {pair[1] if values[0] else pair[0]} is not"
        for pair, values in found
        if any(values)
    ]
    return "; ".join(half) or "the environment has no keys of an Alpaca account"


def _pair(pair: tuple[str, str]) -> str:
    return f"{pair[0]} + {pair[1]}"


def _both(pairs: tuple[tuple[str, str], ...]) -> str:
    return ", or of ".join(_pair(pair) for pair in pairs)
