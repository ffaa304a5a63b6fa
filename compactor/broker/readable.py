"""Keep of a broker's answer what can be read: one odd field must hide neither a live order nor its other executions.

An order is taken without the fields that make no sense, and they are named; its raw answer goes to the log whole. Of an
execution the money has to be there: without quantity and price it is named, and left out.
"""

from __future__ import annotations

from compactor.broker.port import Fields
from compactor.core.decoding import build_event
from compactor.core.events import FILLS, REQUIRED, Problem

_MONEY = ("qty", "price")


def keep_readable(event: Fields) -> tuple[Fields | None, Problem | None]:
    """An event without the fields that cannot be read, None where too little is left; and why, if anything was odd."""
    essential = (*REQUIRED, *_MONEY) if event.get("event") in FILLS else REQUIRED
    missing = next((name for name in essential if event.get(name) is None), None)
    if missing is not None:
        return None, Problem("missing_field", f"the broker's answer has no `{missing}`, and is left out")
    found = build_event(dict(event))
    if not isinstance(found, Problem):
        return event, None
    kept = {name: event[name] for name in essential}
    problem = build_event(dict(kept))
    if isinstance(problem, Problem):
        return None, Problem(problem.kind, f"the broker's answer cannot be read, and is left out: {problem.detail}")
    odd: list[str] = []
    for name, value in event.items():
        if name in kept:
            continue
        if isinstance(build_event(kept | {name: value}), Problem):
            odd.append(name)
        else:
            kept[name] = value
    detail = f"the broker's answer is taken without what cannot be read of it, {', '.join(odd)}: {found.detail}"
    return {name: kept[name] for name in event if name in kept}, Problem(found.kind, detail)
