"""Find the adapter of a broker by its name: entry points of the group "compactor.brokers", each a `BrokerAdapter`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from compactor.broker.budget import Budget
from compactor.broker.credentials import DEFAULT_BROKER, Credentials
from compactor.broker.port import BrokerAdapter, BrokerPort
from compactor.core import CompactorError

GROUP = "compactor.brokers"
_OWN = {DEFAULT_BROKER: "compactor.broker.alpaca.adapter"}
"""Found without an entry point too, for a source tree that is not installed."""


class UnknownBroker(CompactorError):
    """No adapter has this name."""


def find_adapter(name: str) -> BrokerAdapter:
    """The adapter of a broker. Raises UnknownBroker, which names those there are."""
    if name in _OWN:
        return cast(BrokerAdapter, import_module(_OWN[name]))
    found = {one.name: one for one in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted({*found, *_OWN}))
        raise UnknownBroker(
            f"found the broker {name!r}, expected one of {known}. Another one needs a package with an entry point of "
            f"the group {GROUP}; docs/brokers.md says how it is written."
        )
    return cast(BrokerAdapter, found[name].load())


def find_credentials(
    environ: Mapping[str, str], *, broker: str = DEFAULT_BROKER, names: tuple[str, str] | None = None,
    live: bool = False, url: str | None = None,
) -> Credentials:  # fmt: skip
    """The keys of an account at a broker, from the environment. Raises BadCredentials and UnknownBroker."""
    return find_adapter(broker).find_credentials(environ, names=names, live=live, url=url)


def open_broker(
    credentials: Credentials,
    *,
    budget: Budget | None = None,
    timeout_seconds: tuple[float, float] | None = None,
    tries: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> BrokerPort:
    """Open the account that the credentials are for. Raises UnknownBroker."""
    return find_adapter(credentials.broker).open_account(
        credentials, budget=budget, timeout_seconds=timeout_seconds, tries=tries, sleep=sleep
    )
