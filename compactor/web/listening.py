"""Bind the socket of the HTTP server, before anything else of it is imported."""

from __future__ import annotations

import ipaddress
import socket

from compactor.settings.configuration import split_address

BACKLOG = 1024


def bind(address: str) -> socket.socket:
    """Bind HOST:PORT (port 0: any free port). Raises OSError."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # With its protocol, or asyncio sets no TCP_NODELAY, and answers wait for the acknowledgement of their heads.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[0][4])
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def format_address(listener: socket.socket) -> str:
    """HOST:PORT as bound."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT can only be reached from this machine."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
