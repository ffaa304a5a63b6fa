"""Find the keys of an Alpaca account in the environment, and decide whether they are for paper or for real money.

Note: real money requires an explicit word (`LIVE_WORD`). Neither the keys alone nor an old URL in a profile ever reach
the live account.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import urlsplit

from compactor.core.exceptions import CompactorError

PAIRS = (("ALPACA_API_KEY", "ALPACA_SECRET_KEY"), ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"))
"""The variables that hold a key and its secret; the second pair is the one of Alpaca's older clients."""

URL = "APCA_API_BASE_URL"
LIVE = "COMPACTOR_LIVE"
LIVE_WORD = "yes-real-money"
LIVE_HOST = "api.alpaca.markets"
PAPER_HOST = "paper-api.alpaca.markets"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class BadCredentials(CompactorError):
    """No usable keys were found, or the broker refused them. The message never contains a key."""


class Hidden(str):
    """A text whose `repr` hides it, so that a traceback with local variables does not show it."""

    def __repr__(self) -> str:
        return "'…'"


class Environment(Mapping[str, str]):
    """The environment variables of a process; neither its `repr` nor those of its values show a value."""

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
    """The keys of one account; its `repr` shows neither the key nor the secret.

    `names` are the variables they came from. `url` is None for Alpaca's own address, paper or live.
    """

    key: str = field(repr=False)
    secret: str = field(repr=False)
    names: tuple[str, str]
    paper: bool = True
    url: str | None = None

    def hide(self, text: str) -> str:
        """Replace the keys in a text."""
        for hidden in sorted((self.key, self.secret), key=len, reverse=True):
            text = text.replace(hidden, "…")
        return text

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are never written down, so they cannot be pickled")


def find_credentials(
    environ: Mapping[str, str], *, names: tuple[str, str] | None = None, live: bool = False, url: str | None = None
) -> Credentials:
    """Read the keys from the variables `names`, or else from the first complete pair of PAIRS.

    They are for paper trading unless `live` is true or, for keys without `names`, COMPACTOR_LIVE has the word for it.
    `url` overrides APCA_API_BASE_URL. Raises BadCredentials if no pair is complete, if two complete pairs differ, or if
    the URL does not fit.
    """
    # A traceback may show the local variables of this function.
    environ = Environment(environ)
    pairs = (names,) if names is not None else PAIRS
    found = [(pair, (_value(environ, pair[0]), _value(environ, pair[1]))) for pair in pairs]
    complete = [(pair, values) for pair, values in found if all(values)]
    if not complete:
        raise BadCredentials(
            f"{_describe_found(found)}; expected both of {_join_pairs(pairs)}. Set them and start again."
        )
    pair, (key, secret) = complete[0]
    if any(values != (key, secret) for _, values in complete):
        both = " and ".join(_pair(pair) for pair, _ in complete)
        raise BadCredentials(f"the environment has two different pairs of keys, {both}; expected one. Unset the other.")
    for name, value in zip(pair, (key, secret), strict=True):
        if not value.isascii() or not value.isprintable() or " " in value:
            raise BadCredentials(
                f"{name} holds characters that no key has; expected it as Alpaca shows it. Set it anew."
            )
    paper = not (live or (names is None and _is_live_requested(environ)))
    return Credentials(key, secret, pair, paper, _url(url or environ.get(URL, ""), paper))


def _value(environ: Mapping[str, str], name: str) -> str:
    return Hidden(environ.get(name, "").strip())


def _is_live_requested(environ: Mapping[str, str]) -> bool:
    word = environ.get(LIVE, "")
    if word not in ("", LIVE_WORD):
        # A typo must not select the wrong account unnoticed. The value is not shown: it may be a misplaced key.
        raise BadCredentials(
            f"{LIVE} holds another word; expected {LIVE_WORD!r} for real money, or nothing for paper trading."
        )
    return word == LIVE_WORD


def _url(text: str, paper: bool) -> str | None:
    """The address without the version, which alpaca-py adds itself."""
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
        detail = f"{URL} names {LIVE_HOST}, which is real money, but real money was not requested"
        raise BadCredentials(f"{detail}. Unset it for paper trading, or set {LIVE}={LIVE_WORD}.")
    if host == PAPER_HOST and not paper:
        raise BadCredentials(f"real money was requested, but {URL} names {PAPER_HOST}; expected one or the other.")
    return text


def _describe_found(found: list[tuple[tuple[str, str], tuple[str, str]]]) -> str:
    half = [
        f"{pair[0] if values[0] else pair[1]} is set and {pair[1] if values[0] else pair[0]} is not"
        for pair, values in found
        if any(values)
    ]
    return "; ".join(half) or "the environment has no keys of an Alpaca account"


def _pair(pair: tuple[str, str]) -> str:
    return f"{pair[0]} + {pair[1]}"


def _join_pairs(pairs: tuple[tuple[str, str], ...]) -> str:
    return ", or of ".join(_pair(pair) for pair in pairs)
