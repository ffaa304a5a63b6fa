"""Say in a sentence what went wrong with a request: the status, Alpaca's code and message, and the order.

Note: texts of the libraries below name their own classes and repeat themselves. Of an error of theirs only its kind is
told, and the address that was asked.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from compactor.broker.port import parse

_SAID_MAX = 200
_ORDERS = "/orders/"


def name_request(method: str, path: str, params: Mapping[str, str] | None = None, body: Any = None) -> str:
    """What a request is about: the order, if it is about one, else its address."""
    client_order_id = (params or {}).get("client_order_id")
    if client_order_id is None and method == "POST" and isinstance(body, Mapping):
        client_order_id = body.get("client_order_id")
    if client_order_id is not None:
        return f"order {client_order_id}"
    return f"order {unquote(path.removeprefix(_ORDERS))}" if path.startswith(_ORDERS) else path


def describe_answer(status: int, body: bytes) -> str:
    """An answer that is an error: its status with Alpaca's code and message, or the beginning of a page."""
    found = parse(body)
    if isinstance(found, Mapping):
        code = f", code {found['code']}" if found.get("code") is not None else ""
        said = found.get("message")
        rest = {name: value for name, value in found.items() if name not in ("code", "message")}
        more = f" ({', '.join(f'{name} {value}' for name, value in rest.items())})" if rest else ""
        return f"HTTP {status}{code}{f': {said}' if said else ''}{more}"[:_SAID_MAX]
    text = " ".join(body[:_SAID_MAX].decode(errors="replace").split())
    return f"HTTP {status}" + (f" with a page that is no JSON: {text!r}" if text else " with no text")


def describe_failure(error: BaseException, address: str) -> str:
    """Why there is no answer, from the errors that one of a client library goes back to."""
    import ssl

    for cause in _walk_causes(error):
        kind = type(cause).__name__
        if isinstance(cause, socket.gaierror) or kind == "NameResolutionError":
            return f"the name of {address} cannot be resolved; is the network up?"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate of {address} is not valid ({_get_reason(cause, 'verify_message')})"
        if isinstance(cause, ssl.SSLError):
            return f"no encrypted connection to {address} could be made ({_get_reason(cause, 'reason')})"
        if kind == "ProxyError":
            return f"the proxy on the way to {address} did not connect"
        if isinstance(cause, ConnectionRefusedError) or _get_number(cause) == errno.ECONNREFUSED:
            return f"nothing listens at {address}: the connection was refused"
        if isinstance(cause, TimeoutError) or kind in ("ConnectTimeout", "ConnectTimeoutError", "ReadTimeout"):
            return f"{address} did not answer in time; is the network up?"
        if _get_number(cause) in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return f"there is no way to {address}; is the network up?"
    return f"the connection to {address} broke off before the answer was complete"


def _walk_causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it wraps, as causes or as arguments, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        wrapped = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        wrapped += list(getattr(one, "exceptions", ()))
        waiting += [found for found in wrapped if isinstance(found, BaseException)]


def _get_reason(error: BaseException, name: str) -> str:
    return str(getattr(error, name, None) or "no reason was given")


def _get_number(error: BaseException) -> int | None:
    """The number of an error of the system; asyncio joins several tries to connect into one text."""
    if isinstance(error, OSError):
        return errno.ECONNREFUSED if error.errno is None and "Connect call failed" in str(error) else error.errno
    return None
