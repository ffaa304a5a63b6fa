"""The life of an order as one table of transitions: what each event does to the status, and what happened in the world.

The rules are those of format.md section 3. The fold looks effects up in the table, and `docs/lifecycle.md` is generated
from it (`python -m compactor.core.lifecycle`). Note: an event that the table does not have keeps an order open (3.7).
"""

from enum import Enum
from typing import NamedTuple


class Effect(Enum):
    """What an event does to the status of an open order."""

    OPENS = "sets an open status"
    REQUESTS = "sets an open status and remembers the one before it"
    ENDS = "ends the order"
    FILLS = "ends the order once it is filled completely"
    COMPLETES = "ends the order if it is filled completely, else keeps it open"
    RETURNS = "goes back to the status before the request"
    REPORTS = "sets the status that the broker reports, if it reports one"
    KEEPS = "changes no status"
    MOVES = "takes the order out of this ledger, or back into it"


class Transition(NamedTuple):
    """One row: the event, what it does, the status it leads to (None where the event does not say), and why."""

    event: str
    effect: Effect
    status: str | None
    reason: str


TRANSITIONS = (
    Transition("pending_new", Effect.OPENS, "pending_new", "Alpaca has the order and routes it to the exchange."),
    Transition("accepted", Effect.OPENS, "accepted", "Alpaca took the order, for example outside market hours."),
    Transition("accepted_for_bidding", Effect.OPENS, "accepted_for_bidding", "The exchange evaluates it for pricing."),
    Transition("pending_review", Effect.OPENS, "pending_review", "A person or a risk check looks at it first."),
    Transition(
        "held", Effect.OPENS, "held", "A bracket leg waits until its entry has filled; no `new` ever comes for it."
    ),
    Transition("new", Effect.OPENS, "new", "The exchange has it; it may fill from now on."),
    Transition(
        "stopped", Effect.OPENS, "stopped", "A trade is guaranteed, usually at a better price, but has not happened."
    ),
    Transition("suspended", Effect.OPENS, "suspended", "Not eligible for trading now; it may come back."),
    Transition("done_for_day", Effect.OPENS, "done_for_day", "No more fills today; a GTC order works again tomorrow."),
    Transition("partially_filled", Effect.OPENS, "partially_filled", "A status report after a partial fill."),
    Transition("pending_cancel", Effect.REQUESTS, "pending_cancel", "A cancel was asked for; a fill can still win."),
    Transition("pending_replace", Effect.REQUESTS, "pending_replace", "A replace was asked for; a fill can still win."),
    Transition(
        "partial_fill", Effect.FILLS, "partially_filled", "An execution of a part; a pending cancel stays pending."
    ),
    Transition("fill", Effect.ENDS, "filled", "The execution that completes the order."),
    Transition("filled", Effect.ENDS, "filled", "A status report: nothing is left to fill."),
    Transition("canceled", Effect.ENDS, "canceled", "The cancel went through; what was filled before stays filled."),
    Transition("expired", Effect.ENDS, "expired", "Its time in force ran out."),
    Transition("rejected", Effect.ENDS, "rejected", "Alpaca or the exchange refused it."),
    Transition(
        "replaced", Effect.ENDS, "replaced", "Another order took its place; it has a row even if nothing tells of it."
    ),
    Transition(
        "calculated", Effect.COMPLETES, "calculated", "Settlement is being computed; usually all is filled by then."
    ),
    Transition("order_cancel_rejected", Effect.RETURNS, None, "The cancel came too late or was not allowed."),
    Transition("order_replace_rejected", Effect.RETURNS, None, "The replace lost, for example to a fill."),
    Transition("restated", Effect.REPORTS, None, "The broker changed the terms by itself, for example after a split."),
    Transition(
        "snapshot", Effect.REPORTS, None, "The broker's answer to a question about this order; a later one reopens it."
    ),
    Transition("trade_bust", Effect.KEEPS, None, "An execution was taken back; that never reopens an order."),
    Transition("trade_correct", Effect.KEEPS, None, "An execution got another price or quantity."),
    Transition(
        "assigned", Effect.MOVES, None, "Somebody said that the order is another team's; the broker knows no teams."
    ),
)

LIFE = {row.event: row for row in TRANSITIONS}

_BY_STATUS = tuple(row for row in TRANSITIONS if row.event == row.status)
OPEN = frozenset(row.event for row in _BY_STATUS if row.effect is not Effect.ENDS)
TERMINAL = frozenset(row.event for row in _BY_STATUS if row.effect is Effect.ENDS)
REQUESTS = frozenset(row.event for row in TRANSITIONS if row.effect is Effect.REQUESTS)
STATUSES = tuple(row.event for row in _BY_STATUS)
"""Alpaca's eighteen order statuses; each is also the name of an event."""


def normalize_name(name: str) -> str:
    """Read `cancelled` as `canceled` (3.1)."""
    return "canceled" if name == "cancelled" else name


def to_markdown() -> str:
    """Write `docs/lifecycle.md`: the table and the state diagram."""
    rows = "\n".join(
        f"| `{row.event}` | {row.effect.value} | {f'`{row.status}`' if row.status else '—'} | {row.reason} |"
        for row in TRANSITIONS
    )
    return _PAGE.format(rows=rows, edges="\n".join(_list_edges()))


def _list_edges() -> list[str]:
    """The diagram's lines: open statuses live in one box, because any of them may follow any other (rule 3.5 orders
    them)."""
    inside = [f"        {row.status}" for row in TRANSITIONS if row.effect in (Effect.OPENS, Effect.REQUESTS)]
    lines = [
        "    [*] --> open: the first event that names the order",
        "    state open {",
        *inside,
        "        calculated",
        "    }",
    ]
    for row in TRANSITIONS:
        if row.effect is Effect.ENDS:
            lines.append(f"    open --> {row.status}: {row.event}")
        elif row.effect is Effect.FILLS:
            lines.append(f"    open --> filled: {row.event} that reaches the quantity")
        elif row.effect is Effect.COMPLETES:
            lines.append(f"    open --> {row.status}_and_filled: {row.event} when all is filled")
        elif row.effect is Effect.RETURNS:
            lines.extend(f"    {request} --> open: {row.event}" for request in _find_requests(row.event))
    ends = [*sorted(TERMINAL), "calculated_and_filled"]
    lines.extend(f"    {status} --> open: a later snapshot says so" for status in sorted(TERMINAL))
    return lines + [f"    {status} --> [*]" for status in ends]


def _find_requests(rejection: str) -> list[str]:
    return [request for request in sorted(REQUESTS) if request.removeprefix("pending_") in rejection]


_PAGE = """# The life of an order

This page is generated from the table in `compactor/core/lifecycle.py` (`python -m compactor.core.lifecycle`); the
rules behind it are section 3 of [format.md](format.md).

Any open status may follow any other, as long as the event is not older than the last one applied (3.5). An order that
has ended opens again only by a snapshot that is later than all that is known of it, or where its end was a guess of its
sums (3.3, 3.4). A terminal `order_status` in any event ends the order (3.10). An event or a status
nobody has heard of keeps the order open under that name (3.7).

| event | what it does | status after | what happened in the world |
|---|---|---|---|
{rows}

```mermaid
stateDiagram-v2
{edges}
```
"""

if __name__ == "__main__":
    print(to_markdown(), end="")
