"""Send HTTP requests to Alpaca: signed, with a deadline for the whole request and a limit for the size of the answer.

The rate limit, retries and the meaning of an answer are left to `rest` and `resend`. The addresses and headers are
Alpaca's documented ones, so no internal name of alpaca-py is needed.

Note: a timeout of a socket limits only the pause between two bytes. A server that sends one byte every few seconds is
stopped by a watchdog, which closes the connection at the deadline. Redirects are never followed, because they would
send the keys to another host.
"""

from __future__ import annotations

import socket
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from compactor.broker.alpaca.access import LIVE_HOST, PAPER_HOST
from compactor.broker.alpaca.wording import describe_failure, name_request
from compactor.broker.credentials import Credentials

if TYPE_CHECKING:
    from requests import Response, Session

TIMEOUT_SECONDS = (5.0, 20.0)
"""For connecting, and between two bytes of the answer."""
DEADLINE_SECONDS = 60.0
"""For a whole request, from connecting to the last byte of the answer."""
BODY_BYTES_MAX = 16 << 20
"""After decompression, counted while reading."""
SKEW_SECONDS_MIN = 3
"""Clocks that differ by less count as equal."""
_PIECE_BYTES = 1 << 16


class NoAnswer(Exception):
    """The request failed, or its answer broke off. The message contains no key."""


class DeadlineExceeded(NoAnswer):
    """The answer was not complete at the deadline."""


class BadBody(NoAnswer):
    """The answer is larger than allowed, or its compression is damaged."""


class HttpAnswer(NamedTuple):
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class OpenAnswer(NamedTuple):
    """An answer whose body has not been read yet; `pieces` raises NoAnswer."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]


class Transport:
    """Sends the requests of one account. Safe for several threads as far as `requests` sessions are."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._credentials = credentials
        self._timeout = timeout_seconds
        self._deadline_seconds = deadline_seconds
        self._base = credentials.url or f"https://{PAPER_HOST if credentials.paper else LIVE_HOST}"
        self._made: Session | None = None

    def send(
        self, method: str, path: str, params: Mapping[str, str] | None = None, body: Any = None, *, version: str = "v2"
    ) -> HttpAnswer:
        """Send a request and read the answer. Raises NoAnswer; it is then unknown whether the request was executed."""
        with self.open(method, path, params, body, version=version) as answer:
            content = bytearray()
            for piece in answer.pieces:
                content += piece
                if len(content) > BODY_BYTES_MAX:
                    about = name_request(method, path, params, body)
                    raise BadBody(
                        f"{about}: found more than {BODY_BYTES_MAX} bytes, expected an answer of at most 16 MiB"
                    )
            return HttpAnswer(answer.status, answer.headers, bytes(content))

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        version: str = "v2",
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[OpenAnswer]:
        """Send a request; the body of the answer is read piece by piece within the block."""
        import requests

        about = name_request(method, path, params, body)
        expected = f"expected a complete answer within {self._deadline_seconds:g} s"
        with _Deadline(self._deadline_seconds) as deadline:
            try:
                answer = self._session.request(
                    method, f"{self._base}/{version}{path}", params=params, json=body, timeout=self._timeout,
                    headers=headers, stream=True, allow_redirects=False,
                )  # fmt: skip
                with answer:
                    pieces = _read_pieces(answer, about)
                    yield OpenAnswer(answer.status_code, answer.headers, pieces)
            except requests.Timeout:
                if deadline.is_exceeded:
                    raise DeadlineExceeded(f"{about}: {expected}") from None
                raise NoAnswer(f"{about}: no answer within {self._timeout[1]:g} s; is the network up?") from None
            except (requests.RequestException, OSError, _urllib3_error()) as error:
                if deadline.is_exceeded:
                    raise DeadlineExceeded(f"{about}: {expected}") from None
                why = describe_failure(error, urlsplit(self._base).netloc)
                raise NoAnswer(f"{about}: the broker could not be reached: {why}") from None
            if deadline.is_exceeded:
                raise DeadlineExceeded(f"{about}: {expected}")

    @property
    def _session(self) -> Session:
        if self._made is None:
            self._made = _make_session(self._credentials)
        return self._made


def _urllib3_error() -> type[Exception]:
    # The import of requests and urllib3 takes long, and most commands do not need it.
    from urllib3.exceptions import HTTPError

    return HTTPError


def _make_session(credentials: Credentials) -> Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class WatchedPool(HTTPConnectionPool):
        ConnectionCls = _make_watched(HTTPConnectionPool.ConnectionCls)

    class WatchedTlsPool(HTTPSConnectionPool):
        ConnectionCls = _make_watched(HTTPSConnectionPool.ConnectionCls)

    class WatchedAdapter(HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options)
            self.poolmanager.pool_classes_by_scheme = {"http": WatchedPool, "https": WatchedTlsPool}

        def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
            manager = super().proxy_manager_for(*arguments, **options)
            manager.pool_classes_by_scheme = {"http": WatchedPool, "https": WatchedTlsPool}
            return manager

    session = requests.Session()
    session.mount("http://", WatchedAdapter())
    session.mount("https://", WatchedAdapter())
    session.headers.update(
        {
            "APCA-API-KEY-ID": credentials.key,
            "APCA-API-SECRET-KEY": credentials.secret,
            "Accept-Encoding": "gzip",
            "User-Agent": "order-compactor",
        }
    )
    return session


def _make_watched(kind: Any) -> Any:
    """Make a class of connections that report themselves to the deadline of the current request."""

    class WatchedConnection(kind):  # type: ignore[misc]
        def connect(self) -> Any:
            _Deadline.watch(self)
            super().connect()
            _Deadline.watch(self)

        def request(self, *arguments: Any, **options: Any) -> Any:
            _Deadline.watch(self)
            return super().request(*arguments, **options)

    return WatchedConnection


class _Deadline:
    """Closes the connection that is used in its block once the time is over."""

    _current = threading.local()

    def __init__(self, seconds: float) -> None:
        self.is_exceeded = False
        self._seconds = seconds
        self._connection: Any = None
        self._socket: socket.socket | None = None
        """Its last one: the connection lets go of a socket that ends with the answer, which is still read from it."""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="request-deadline", daemon=True)

    @classmethod
    def watch(cls, connection: Any) -> None:
        """Called by a connection that is about to be used, or has just been made."""
        deadline = getattr(cls._current, "deadline", None)
        if deadline is not None:
            deadline._connection = connection
            deadline._socket = getattr(connection, "sock", None)

    def __enter__(self) -> _Deadline:
        self._current.deadline = self
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._current.deadline = None

    def _wait(self) -> None:
        if self._is_over.wait(self._seconds):
            return
        self.is_exceeded = True
        # While it is still connecting there is no socket; connecting has a timeout of its own.
        while not self._is_over.wait(0.05):
            found = getattr(self._connection, "sock", None) or self._socket
            if isinstance(found, socket.socket):
                with suppress(OSError):
                    # The method of the base class: a TLS socket would drop its state under the reader.
                    socket.socket.shutdown(found, socket.SHUT_RDWR)


def _read_pieces(answer: Response, about: str) -> Iterator[bytes]:
    """Yield the body as it arrives, decompressed at most one piece at a time."""
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    raw = answer.raw.stream(_PIECE_BYTES, decode_content=False)
    if encoding in ("", "identity"):
        yield from raw
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadBody(f"{about}: found an answer with the encoding {encoding[:40]!r}, expected gzip or none")
    decompressor = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    try:
        for piece in raw:
            while piece:
                yield decompressor.decompress(piece, _PIECE_BYTES)
                piece = decompressor.unconsumed_tail
    except zlib.error as error:
        raise BadBody(f"{about}: found an answer whose compression is damaged ({error})") from None
    if not decompressor.eof:
        raise BadBody(f"{about}: found a compressed answer that breaks off, expected all of it")


def read_skew(headers: Mapping[str, str]) -> float:
    """The difference of the clocks by the Date of an answer, which has whole seconds."""
    try:
        skew = parsedate_to_datetime(headers.get("Date", "")).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0
    return skew if abs(skew) > SKEW_SECONDS_MIN else 0.0
