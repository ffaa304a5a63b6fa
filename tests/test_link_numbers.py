"""The numbers that the documents promise of the link to the broker, written out here once more."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest

from compactor.broker.adapters import find_credentials, open_broker
from compactor.broker.alpaca.access import find_credentials as alpaca_credentials
from compactor.broker.alpaca.resend import WindowResult, make_ulid
from compactor.broker.budget import Budget
from compactor.broker.credentials import Credentials
from compactor.broker.intents import resolve_intents
from compactor.broker.port import Capabilities, RateLimited, ResendResult
from compactor.sync.account_trades import Ghosts, TradeMark
from compactor.sync.compare import Comparison
from compactor.sync.executions import Known
from compactor.sync.gaps import GapClosed
from compactor.sync.plan import plan_reconcile
from compactor.sync.positions import PositionBook
from compactor.sync.reconcile import Reconciler
from compactor.sync.reconciled import Reconciled
from compactor.sync.state import AccountReconciled
from compactor.sync.stream_writer import StreamWriter, Written
from compactor.sync.unbooked import Unbooked

MIB = 1024 * 1024
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800
NUMBERS = {
    # live.md, Limits: what an answer may have, and for how long it is waited.
    "broker.alpaca.transport.BODY_BYTES_MAX": 16 * MIB,
    "broker.alpaca.transport.DEADLINE_SECONDS": 60,
    "broker.alpaca.transport.TIMEOUT_SECONDS": (5, 20),
    "broker.alpaca.transport.SKEW_SECONDS_MIN": 3,
    "broker.alpaca.resend._LINE_BYTES_MAX": 16 * MIB,
    "broker.alpaca.resend.SECONDS_MAX": 60,
    "broker.alpaca.resend._BEYOND_NS": 5_000_000_000,
    "broker.alpaca.stream.MESSAGE_BYTES_MAX": 16 * MIB,
    "broker.alpaca.stream.QUEUE_MESSAGES": 16_384,
    "sync.stream_writer.BACKLOG_BYTES_MAX": 64 * MIB,
    # live.md, Connections.
    "broker.alpaca.stream.PING_SECONDS": 10,
    "broker.alpaca.stream.BACKOFF_SECONDS": (1, 30),
    "broker.alpaca.stream.STEADY_SECONDS": 30,
    "broker.alpaca.stream.GREETING_SECONDS": 10,
    # live.md, Gaps: five minutes before; an hour the first time, a week at most; what there is not is tried in a week.
    "sync.gaps.OVERLAP_SECONDS": 5 * MINUTE,
    "sync.gaps.FIRST_SECONDS": HOUR,
    "sync.gaps.SINCE_SECONDS_MAX": WEEK,
    "sync.gaps.PROBE_SECONDS": WEEK,
    "broker.alpaca.adapter.RESEND_OVERLAP_SECONDS": 5 * MINUTE,
    "broker.alpaca.adapter.RESEND_TRIES": 2,
    "broker.alpaca.adapter.BATCH": 500,
    "broker.alpaca.adapter.DAY_NS": DAY * 10**9,
    # live.md, Reconcile.
    "broker.alpaca.rest.ORDERS_PAGE": 500,
    "broker.alpaca.rest.ACTIVITIES_PAGE": 100,
    "broker.alpaca.rest.TRIES": 4,
    "broker.alpaca.rest.PAUSE_SECONDS_MAX": 90,
    "broker.alpaca.rest.PAGES_MAX": 10_000,
    "broker.alpaca.listing.REPLACED_MAX": 5,
    "broker.alpaca.listing.MARGIN_NS": 60 * 10**9,
    "broker.alpaca.leg_executions.UNANSWERED_MAX": 10,
    "broker.alpaca.leg_executions.LEGS_KEPT_MAX": 10_000,
    "sync.answers.OVERLAP_SECONDS": 10 * MINUTE,
    "sync.answers.HOUR_SECONDS": HOUR,
    "sync.answers.DAY_SECONDS": DAY,
    "sync.answers.WEEK_SECONDS": WEEK,
    "sync.answers.TOGETHER_MIN": 3,
    "sync.answers.HOMES_ASKED_MAX": 10,
    "sync.answers.UNANSWERED_MAX": 10,
    "sync.reconcile.QUIET_SECONDS": 10,
    "sync.reconcile._ROUNDS_MAX": 30,
    "sync.reconcile._SETTLE_TURNS_MAX": 3,
    "sync.reconcile._AGREED_MAX": 10_000,
    "sync.carried._KEPT_MAX": 100_000,
    # live.md, Limits: the budget of an account.
    "broker.budget.WINDOW_SECONDS": MINUTE,
    "broker.budget.PER_MINUTE": 150,
    "broker.budget.LEFT_PERCENT": 20,
    "broker.budget.BURST": 30,
    # format.md, 3.13: a minute after the intent at the earliest, ten where nobody can say whether its program runs.
    "broker.intents.SETTLED_SECONDS": MINUTE,
    "broker.intents.UNKNOWN_SECONDS": 10 * MINUTE,
    "broker.placing.TRIES": 4,
    "broker.placing.PAUSE_SECONDS": 1,
    "daemon.account_link.START_SECONDS": 2 * MINUTE,
    "daemon.account_link.WORKED_SECONDS": 15 * MINUTE,
    # `doctor --broker`.
    "broker.alpaca.examine.SKEW_SECONDS_MAX": 2,
    "broker.alpaca.examine.LOOK_BACK_NS": WEEK * 10**9,
    "broker.alpaca.examine.RESEND_NS": HOUR * 10**9,
    "broker.alpaca.examine._ID_PARTS": 2,
    "broker.alpaca.redact.WORD_LENGTH_MAX": 32,
    "broker.alpaca.wording._SAID_MAX": 200,
    "sync.positions.HOUR_SECONDS": HOUR,
    # What nothing adds up to.
    "sync.carried.ZERO": 0,
    "sync.executions.ZERO": 0,
    "sync.positions.ZERO": 0,
    "sync.unbooked.ZERO": 0,
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), NUMBERS.items())
def test_a_promised_number_is_the_one_in_force(name: str, value: Any) -> None:
    """Whoever changes one changes the sentence that promises it."""
    module, _, constant = name.rpartition(".")
    assert value == getattr(import_module(f"compactor.{module}"), constant)


@pytest.mark.parametrize("name", ["sync.answers", "sync.reconcile", "broker.intents"])
def test_a_second_has_a_billion_nanoseconds_everywhere(name: str) -> None:
    """Clocks of several modules are compared with each other."""
    assert 10**9 == import_module(f"compactor.{name}")._SECOND


@pytest.mark.parametrize(
    ("made", "values"),
    [
        (Capabilities(), {"resends": True, "tells_fills_of_orders": True, "unique_client_ids": True,
                          "tells_positions": True, "client_id_length_max": 128}),
        (ResendResult(), {"is_delivered": False, "complete": False, "reason": ""}),
        (WindowResult(), {"is_delivered": False, "complete": False, "is_endless": False, "newest_id": ""}),
        (GapClosed(), {"kind": None, "messages": 0, "complete": False, "lost": 0}),
        (Written(), {"events": 0, "unread": 0, "waiting": 0, "lost": 0, "refused": 0, "kin_left": False}),
        (Reconciled(False), {"requests": 0, "orders": 0, "elapsed_ms": 0, "events": 0}),
        (AccountReconciled(), {"differences": 0, "failures": 0, "through": None, "error": None}),
        (Known("alpha"), {"has_events": True, "filled": 0, "value": 0, "inferred": 0}),
        (RateLimited("slow", 1.0), {"status": 429, "pause_seconds": 1.0}),
        (Ghosts(), {"is_first": False, "since": None}),
        (TradeMark(), {"lines": 0, "last": ""}),
        (Unbooked(), {"shares": {}, "unknown": frozenset(), "is_complete": True}),
    ],
    ids=lambda one: type(one).__module__.removeprefix("compactor.") if not isinstance(one, dict) else "",
)  # fmt: skip
def test_what_nobody_has_said_yet_counts_as_nothing(made: Any, values: dict[str, Any]) -> None:
    """Where nothing was told, nothing is complete, and no number is above zero; a broker has what it does not deny."""
    assert values == {name: getattr(made, name) for name in values}


@pytest.mark.parametrize(
    ("function", "defaults"),
    [
        (Budget, {"left_percent": 0, "burst": None}),
        (Budget.spend, {"is_urgent": False}),
        (resolve_intents, {"is_complete": True, "now": None}),
        (open_broker, {"budget": None, "tries": None}),
        (find_credentials, {"live": False, "names": None, "url": None}),
        (alpaca_credentials, {"live": False, "names": None, "url": None}),
        (make_ulid, {"last": False}),
        (plan_reconcile, {"forget_missing": False, "agreed": (), "unasked": (), "fills_asked": ()}),
        (Comparison.snapshot, {"ended": False}),
        (PositionBook.compare, {"is_dry": False}),
        (Reconciler.run, {"only": None, "dry_run": False, "settle": False, "forget_missing": False}),
        (Reconciler._turn, {"forget_missing": False}),
        (StreamWriter.store, {"adopt": True, "translate": None}),
        (Credentials, {"paper": True, "url": None}),
    ],
    ids=lambda one: "" if isinstance(one, dict) else f"{one.__module__.removeprefix('compactor.')}.{one.__name__}",
)
def test_nothing_is_left_out_unless_somebody_says_so(function: Any, defaults: dict[str, Any]) -> None:
    """What nobody asked for is not done: the defaults are the careful ones."""
    parameters = inspect.signature(function).parameters
    assert defaults == {name: parameters[name].default for name in defaults}
