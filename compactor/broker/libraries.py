"""Check that the libraries that talk to the broker have what is used of them, before the daemon starts.

Note: no private name of alpaca-py is used. Alpaca's addresses, headers and messages are documented, so requests are
sent by `requests` and the stream is read by `websockets`. alpaca-py is needed only for its request objects, which
`submit` accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from compactor.core.exceptions import CompactorError

KNOWN = {"websockets": "14.0 to 17.4", "requests": "2.31 to 2.34", "urllib3": "2.0 to 2.8"}
"""The versions that the tests were run with."""


class UnsupportedLibrary(CompactorError):
    """An installed library does not have what is used of it."""


def check_libraries() -> None:
    """Raises UnsupportedLibrary, which names the library, its version, what is missing, and the versions that work."""
    for library, check in _CHECKS.items():
        try:
            check()
        except (ImportError, AttributeError, KeyError) as error:
            raise UnsupportedLibrary(
                f"{library}: found version {_find_version(library)}, which lacks something that is used ({error}); "
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


def _find_version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


_CHECKS: dict[str, Callable[[], None]] = {
    "websockets": _check_websockets,
    "requests": _check_requests,
    "urllib3": _check_urllib3,
}
