"""What an account at Alpaca needs before it is opened: its keys, for paper or for real money, and libraries that work.

Note: no private name of alpaca-py is used. Alpaca's addresses, headers and messages are documented, so requests are
sent by `requests` and the stream is read by `websockets`. alpaca-py is needed only for its request objects, which
`submit` accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from compactor.broker.credentials import LIVE, LIVE_WORD, BadCredentials, Credentials, Environment, Hidden
from compactor.broker.port import UnsupportedLibrary

PAIRS = (("ALPACA_API_KEY", "ALPACA_SECRET_KEY"), ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"))
"""The variables that hold a key and its secret; the second pair is the one of Alpaca's older clients."""
URL = "APCA_API_BASE_URL"
LIVE_HOST = "api.alpaca.markets"
PAPER_HOST = "paper-api.alpaca.markets"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

KNOWN = {"websockets": "14.0 to 17.4", "requests": "2.31 to 2.34", "urllib3": "2.0 to 2.8"}
"""The versions that the tests were run with."""


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


def check_libraries() -> None:
    """Raises UnsupportedLibrary, which names the library, its version, what is missing, and the versions that work."""
    for library, check in _CHECKS.items():
        try:
            check()
        except (ImportError, AttributeError, KeyError) as error:
            raise UnsupportedLibrary(
                f"{library}: found version {find_version(library)}, which lacks something that is used ({error}); "
                f"expected one of the versions known to work, {KNOWN[library]}. Nothing was started. "
                f"Install one: pip install '{library}=={KNOWN[library].split()[-1]}.*'"
            ) from None


def _check_websockets() -> None:
    import inspect

    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import InvalidStatus

    _ = (connect.process_redirect, InvalidStatus)
    _ = inspect.signature(ClientConnection.recv).parameters["decode"]


def _check_requests() -> None:
    from requests.adapters import HTTPAdapter

    _ = (HTTPAdapter.init_poolmanager, HTTPAdapter.proxy_manager_for)


def _check_urllib3() -> None:
    from urllib3 import HTTPResponse, PoolManager
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    _ = (PoolManager().pool_classes_by_scheme, HTTPConnectionPool.ConnectionCls, HTTPSConnectionPool.ConnectionCls)
    _ = HTTPResponse.stream


def find_version(library: str) -> str:
    """The version of a library that is installed, or "none"."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


_CHECKS: dict[str, Callable[[], None]] = {
    "websockets": _check_websockets,
    "requests": _check_requests,
    "urllib3": _check_urllib3,
}
