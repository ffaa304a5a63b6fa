"""Read what an account holds from Alpaca's positions, and what moved it from the activities that are no fills."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from compactor.broker.port import Adjustment, BrokerError
from compactor.core.decimals import BadDecimal, parse_decimal
from compactor.core.instants import BadInstant, nanos

MOVING_KINDS = (
    "ACATS", "CFEE", "JNLS", "MA", "OPASN", "OPCA", "OPEXC", "OPEXP", "OPTRD", "REORG", "SC", "SPIN", "SPLIT", "SSO",
    "SSP", "VOF",
)  # fmt: skip
"""Kinds of activities whose `qty` is what came or went."""


def read_positions(positions: Iterable[Any]) -> dict[str, Decimal]:
    """By symbol; a short position is negative, whether its quantity says so or only its side."""
    held: dict[str, Decimal] = {}
    for one in positions:
        try:
            quantity = abs(parse_decimal(str(one["qty"]))) if str(one["qty"]) != "" else Decimal(0)
            is_short = one.get("side") == "short" or str(one["qty"]).startswith("-")
            held[str(one["symbol"])] = -quantity if is_short else quantity
        except (KeyError, BadDecimal) as error:
            raise BrokerError(f"/positions: found {str(one)[:120]}, expected a position with symbol and qty") from error
    return held


def read_adjustments(activities: Iterable[Any]) -> list[Adjustment]:
    """What moved shares; an entry without a symbol, a quantity or a time moved none."""
    found: list[Adjustment] = []
    for one in activities:
        try:
            at = str(one.get("transaction_time") or one.get("date"))
            at = at if "T" in at else f"{at}T23:59:59.999Z"
            nanos(at)
            found.append(Adjustment(str(one["activity_type"]), str(one["symbol"]), parse_decimal(str(one["qty"])), at))
        except (KeyError, BadDecimal, BadInstant):
            continue
    return found
