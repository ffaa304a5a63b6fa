"""The broker: a port that an adapter for each broker implements, and placing and canceling orders through it.

    from compactor.broker import submit, cancel

    order = submit("alpha", LimitOrderRequest(symbol="AAPL", qty=10, side="buy", ...))
    cancel(order["id"])

Note: names are imported on first use, because the broker's client takes long to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compactor.broker.placing import (
        NotFound,
        NotWrittenDown,
        PlacementUnknown,
        Refused,
        Trader,
        cancel,
        submit,
    )

__all__ = ["NotFound", "NotWrittenDown", "PlacementUnknown", "Refused", "Trader", "cancel", "submit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("compactor.broker.placing"), name)
