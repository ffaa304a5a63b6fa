"""The gate in front of the application: what every request passes before anything else looks at it.

It checks the name of the host, takes the key out of the request, counts the request against its limits, and adds the
headers of every answer. Note: behind the gate a request has no `key` in its query and no `Authorization`, so that no
log, error or metric can show one.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from structlog.typing import FilteringBoundLogger as Logger

from compactor.core.printable import printable, redact
from compactor.settings.configuration import Settings
from compactor.web.api_keys import ApiKey, KeyStore
from compactor.web.throttle import Allowance, Throttle
from compactor.web.traffic import Traffic

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

ADDRESS_FACTOR = 5
"""An address may send so many times what a key may: several people can sit behind one."""
REFUSED_PER_MINUTE = 30
"""Wrong keys from one address."""
URL_BYTES_MAX = 4096
HOSTS_MAX = 100
"""Names of this host that are remembered as checked."""
_MONITORED = frozenset({"/livez", "/readyz", "/metrics"})
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'"
)
ALWAYS: Headers = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_OF_PAGES: Headers = [
    *ALWAYS,
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
_UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Gate:
    """An ASGI application in front of another one."""

    def __init__(self, keys: KeyStore | None, settings: Settings, log: Logger) -> None:
        """Without `keys` everybody may do everything."""
        self.inner: Application = _say_starting
        """What is behind the gate."""
        self.short_way: Callable[[GatedRequest], int] = _take_the_usual_way
        """Answers a request at once and returns the status, or 0 for one that goes to `inner`."""
        self._seen_hosts: set[str] = set()
        self._keys = keys
        self._log = log
        self._log_all = settings.http_log == "all"
        self._log_none = settings.http_log == "none"
        self._hosts = {host.lower() for host in settings.http_hosts} | {"localhost"}
        self._proxies = [ipaddress.ip_network(one, strict=False) for one in settings.http_proxies]
        self._by_key = Throttle(settings.http_requests_per_minute)
        self._by_address = Throttle(settings.http_requests_per_minute * ADDRESS_FACTOR)
        self._by_refusal = Throttle(REFUSED_PER_MINUTE)
        self.traffic = Traffic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on what is none."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        request = GatedRequest(scope)
        request.address, request.is_forwarded = self._find_address(scope, request)
        refusal = self._admit(request)
        if refusal is not None:
            await _refuse(*refusal, self._make_finish(request, send))
        else:
            request.status = self.short_way(request)
            if not request.status:
                await self.inner(request.make_scope(), receive, self._make_finish(request, send))
        self._record(request)

    # Who asks.

    def _find_address(self, scope: Scope, request: GatedRequest) -> tuple[str, bool]:
        """The address of the client: the one that a trusted proxy names, else that of the connection; and whether the
        request came through a proxy, trusted or not."""
        peer = scope["client"][0] if scope.get("client") else ""
        if not self._proxies or not self._is_proxy(peer):
            return peer, bool(request.forwarded_for)
        # The right end of the list is what our own proxy has seen; each proxy that is trusted is skipped.
        named = [one.strip() for one in request.forwarded_for.split(",") if one.strip()]
        for address in reversed(named):
            if not self._is_proxy(address):
                return (address, True) if _is_address(address) else (peer, True)
        return peer, bool(named)

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._proxies)

    def _is_host_known(self, host: str) -> bool:
        """Whether a request may name this host. A name that is not ours may have been pointed here by its owner."""
        if host in self._seen_hosts:
            return True
        is_known = self._is_host_ours(host)
        if is_known and len(self._seen_hosts) < HOSTS_MAX:
            self._seen_hosts.add(host)
        return is_known

    def _is_host_ours(self, host: str) -> bool:
        if host.startswith("["):
            name = host[1:].partition("]")[0]
        else:
            name, _, port = host.partition(":")
            if port and not port.isdigit():
                return False
        return name.lower() in self._hosts or _is_address(name)

    # What it may.

    def _admit(self, request: GatedRequest) -> tuple[int, str, Headers] | None:
        """Why the request is refused, if it is; finds what its key opens."""
        if request.url_bytes > URL_BYTES_MAX:
            return 414, f"the address of the request is longer than {URL_BYTES_MAX} bytes", []
        if not self._is_host_known(request.host):
            hint = "call it by its address, or add the name to http_hosts in compactor.toml"
            return 421, f"this server is not called {printable(request.host[:200])!r}; {hint}", []
        if request.method in _UNSAFE_METHODS and not request.is_same_site:
            return 403, "a request of another site changes nothing here", []
        if request.path in _MONITORED:
            request.access = self._find_key(request.key) if request.key else None
            if not request.is_forwarded:
                return None
        allowed = self._by_address.take(request.address)
        request.allowance = allowed
        if not allowed.is_allowed:
            return 429, "too many requests from this address", []
        if not request.is_api:
            return None
        if self._keys is None:
            request.access = ADMINISTRATOR
            return None
        return self._check_key(request)

    def _check_key(self, request: GatedRequest) -> tuple[int, str, Headers] | None:
        if self._by_refusal.is_spent(request.address):
            request.allowance = self._by_refusal.take(request.address, 0)
            return 429, "too many requests with wrong keys from this address", []
        request.access = self._find_key(request.key)
        if request.access is None:
            if request.key:
                self._by_refusal.take(request.address)
            found = "this key is not known, or was revoked" if request.key else "found no key"
            expected = "expected one of compactor key create, as Authorization: Bearer KEY or ?key=KEY"
            return 401, f"{found}; {expected}", [(b"www-authenticate", b'Bearer realm="compactor"')]
        request.allowance = self._by_key.take(request.access.key_id)
        return None if request.allowance.is_allowed else (429, "too many requests with this key", [])

    def _find_key(self, key: str) -> ApiKey | None:
        return self._keys.find(key) if self._keys is not None else ADMINISTRATOR

    # The answer.

    def _make_finish(self, request: GatedRequest, send: Send) -> Send:
        async def finish(message: Any) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                extra = request.allowance.make_headers() if request.allowance is not None else []
                headers = [*message.get("headers", []), *(ALWAYS if request.is_api else _OF_PAGES), *extra]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        return finish

    def _record(self, request: GatedRequest) -> None:
        self.traffic.count(request.status)
        is_notable = request.status >= 400 or request.method in _UNSAFE_METHODS
        if self._log_none or not (is_notable or self._log_all) or request.path in _MONITORED:
            return
        self._log.info(
            "request", method=request.method, path=redact(request.path)[:500], status=request.status,
            elapsed_ms=round((time.perf_counter() - request.started) * 1000, 2), address=request.address,
            key_id=request.access.key_id if request.access is not None else None,
        )  # fmt: skip


ADMINISTRATOR = ApiKey("", "", "")
"""What everybody has with `--insecure-no-auth`."""


class GatedRequest:
    """A request, its key taken out of it."""

    __slots__ = (
        "access", "address", "allowance", "forwarded_for", "host", "if_none_match", "is_api", "is_forwarded",
        "is_same_site", "key", "method", "path", "query", "scope", "started", "status", "url_bytes",
    )  # fmt: skip

    def __init__(self, scope: Scope) -> None:
        self.started = time.perf_counter()
        self.scope = scope
        """As it came, with the key."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.is_api = self.path.startswith("/api/v1/")
        self.url_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        self.status = 0
        self.address, self.is_forwarded = "", False
        self.access: ApiKey | None = None
        self.allowance: Allowance | None = None
        self.key = self.forwarded_for = ""
        # HTTP/1.0, which load balancers speak and no browser does, need not name a host.
        self.host = "localhost" if scope["http_version"] == "1.0" else ""
        self.if_none_match: str | None = None
        origin = fetch_site = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                scheme, _, token = value.decode("latin-1").partition(" ")
                self.key = token.strip() if scheme.lower() == "bearer" else ""
            elif name == b"host":
                self.host = value.decode("latin-1")
            elif name == b"if-none-match":
                self.if_none_match = value.decode("latin-1")
            elif name == b"x-forwarded-for":
                self.forwarded_for += "," + value.decode("latin-1")
            elif name == b"origin":
                origin = value.decode("latin-1")
            elif name == b"sec-fetch-site":
                fetch_site = value
        self.query: bytes = scope["query_string"]
        if b"key" in self.query:
            self._take_key()
        is_own = origin is None or origin.partition("://")[2].lower() == self.host.lower()
        self.is_same_site = is_own and fetch_site in (None, b"same-origin", b"none")

    def _take_key(self) -> None:
        kept = []
        for part in self.query.split(b"&"):
            name, _, value = part.partition(b"=")
            if unquote_plus(name.decode("latin-1")) == "key":
                self.key = self.key or unquote_plus(value.decode("latin-1"))
            else:
                kept.append(part)
        self.query = b"&".join(kept)

    def make_scope(self) -> Scope:
        """The scope that the application sees: HEAD is a GET, whose body the server leaves out."""
        state = {**self.scope.get("state", {}), "access": self.access, "is_forwarded": self.is_forwarded}
        is_head = self.method == "HEAD"
        state |= {"address": self.address, "is_head": is_head}
        return {
            **self.scope,
            "method": "GET" if is_head else self.method,
            "query_string": self.query,
            "headers": [pair for pair in self.scope["headers"] if pair[0] != b"authorization"],
            "state": state,
        }


def _take_the_usual_way(_request: GatedRequest) -> int:
    return 0


async def _say_starting(_scope: Scope, _receive: Receive, send: Send) -> None:
    await _refuse(503, "the server is starting", [], send)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


async def _refuse(status: int, detail: str, headers: Headers, send: Send) -> None:
    body = msgspec.json.encode({"detail": detail})
    fixed = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
