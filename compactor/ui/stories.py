"""The command `history`: the story of an order as a timeline for people, or as one object for programs.

`history.lookup` finds the order and builds the story.

Note: each event takes one line, and its effects stand below it, indented. Nothing is cut to the width of a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compactor.ui.commands import exit_named
from compactor.ui.options import data_option, find_ledgers, json_option, team_option

if TYPE_CHECKING:
    from compactor.books.failures import Failure
    from compactor.core.derived import Finding
    from compactor.history.lookup import History
    from compactor.history.story import StoryEvent, StoryIntent

_NUMBERS = ("offset",)
_TERMS = ("symbol", "side", "quantity", "notional", "order_type", "limit_price", "stop_price", "time_in_force")
_FOUND_AS = {"client_order_id": "its client or broker id", "execution_id": "an execution", "trade_id": "a trade"}


@click.command(short_help="Tell an order's whole story.")
@click.argument("name", metavar="ID")
@team_option("Look in this team's ledger only.")
@data_option
@click.option("--raw", is_flag=True, help="With the broker's message, or else the line, of each event.")
@json_option
def history(name: str, team: str | None, data: Path, raw: bool, as_json: bool) -> None:
    """Tell an order's story: every event in log order, what it changed, the trades it made, the findings it raised.

    ID is an order_id, client_order_id, broker_order_id, execution_id or trade_id. Sealed segments are searched by the
    index beside each seal, so that years of them need not be read. The orders that it replaced or belongs to are named.

    \b
    Example:
      compactor history 5dcf6d52-edcf-4a2d-9e5c-c20c2f17d679 --data data
      compactor history 241-0 --team alice --json
    """
    from compactor.books.failures import describe_failure
    from compactor.history.lookup import find_histories

    entries = find_ledgers(data, team)
    found: list[History] = []
    failed: list[tuple[str, Failure]] = []
    for entry in entries:
        try:
            found += find_histories(entry, name, raw=raw)
        except Exception as error:
            failed.append((entry.name, describe_failure(error, entry.path)))
    _show(found, as_json)
    exit_named(failed, len(entries), "could not be searched")
    if not found:
        where = f"the log of team {team}" if team is not None else f"the {len(entries)} logs of {data}"
        message = f"nothing in {where} names {name!r}; expected the id of an order, an execution or a trade"
        raise click.ClickException(f"{message}. Is it the right directory, and the id whole?")


def _show(found: list[History], as_json: bool) -> None:
    from compactor.ui.output import show_json

    if as_json:
        show_json(found)
        return
    for number, one in enumerate(found):
        if number:
            click.echo()
        for line in _lines(one):
            click.echo(line)


def _lines(one: History) -> Iterator[str]:
    from compactor.ui.output import aligned, columns

    yield from _head(one)
    shown = columns("offset", "happened", "recorded", "source", "event", "status", numbers=_NUMBERS)
    head, *lines = aligned(shown, map(_row, one.story.events))
    if one.story.events:
        yield click.style(head, bold=True)
    for step, line in zip(one.story.events, lines, strict=True):
        yield line
        yield from (f"    {detail}" for detail in _details(step))
    for finding in one.story.unread:
        yield click.style(f"not applied: {_finding(finding)} (offset {finding.offset})", fg="yellow")


def _head(one: History) -> Iterator[str]:
    from compactor.core.printable import printable

    story, row = one.story, one.story.order
    terms = " ".join(printable(row[name]) for name in _TERMS if name in row)
    by = f", found by {_FOUND_AS[one.found_as]}" if one.found_as in _FOUND_AS else ""
    yield click.style(printable(f"{one.team_id}: order {story.order_id}{by}"), bold=True)
    if row:
        filled = f"{row['filled_qty']} filled" + (f" at {row['filled_avg_price']}" if "filled_avg_price" in row else "")
        state = row["status"] or "no event of its own"
        yield printable(f"{terms}: {state}{'' if story.open else ', not open'}, {filled}")
    elif not story.intents:
        yield "no event of it in this log; other lines name it"
    if story.origin == "adopted":
        yield "origin: adopted, the broker told of it first"
    for intent in story.intents:
        yield printable(_describe_intent(intent))
    for link in one.chain:
        known = (
            f"{link.status}, {link.filled_qty} of {link.quantity or '?'} filled" if link.status else "not in this log"
        )
        yield printable(f"  {link.relation.replace('_', ' ')} {link.order_id} ({known})" + _seen_from(one, link.to))


def _describe_intent(intent: StoryIntent) -> str:
    parts = [f"{intent.ts} {intent.event}"]
    parts += [" ".join(f"{name}={value}" for name, value in intent.request.items())] if intent.request else []
    parts += [f"tags: {', '.join(intent.tags)}"] if intent.tags else []
    parts += [f"note: {intent.note}"] if intent.note else []
    parts += [f"as order {intent.broker_order_id}"] if intent.broker_order_id else []
    parts += [f"HTTP {intent.status}"] if intent.status is not None else []
    parts += [intent.reason] if intent.reason else []
    return "; ".join(parts)


def _seen_from(one: History, order_id: str) -> str:
    return "" if order_id == one.story.order_id else f", seen from {order_id}"


def _row(step: StoryEvent) -> dict[str, Any]:
    status = step.status_after
    if step.status_before is not None and step.status_before != step.status_after:
        status = f"{step.status_before} -> {step.status_after}"
    name = step.event if step.leg is None else f"{step.event} (leg {step.leg})"
    return {
        "offset": step.offset, "happened": step.ts, "recorded": step.recorded_at, "source": step.source, "event": name,
        "status": status,
    }  # fmt: skip


def _details(step: StoryEvent) -> Iterator[str]:
    from compactor.core.printable import printable

    if step.reason is not None:
        yield printable(f"the broker's reason: {step.reason}")
    if step.repeated:
        yield "delivered before; changes nothing"
    if step.changes:
        yield printable(", ".join(f"{name} {_change(*values)}" for name, values in step.changes.items()))
    for trade in step.trades:
        of = trade.reverses or trade.corrects
        text = f"trade {trade.trade_id}: {trade.kind} {trade.side} {trade.quantity} {trade.symbol}"
        text += f" @ {trade.execution_price}" + (f", of {of}" if of else "")
        yield click.style(printable(text), fg="green")
    for finding in step.findings:
        yield click.style(f"finding {_finding(finding)}", fg="yellow")
    if step.line is not None:
        yield printable(bytes(step.raw).decode(errors="replace") if step.raw is not None else step.line)


def _change(before: object, after: object) -> str:
    if before is None:
        return str(after)
    return f"{before} -> {'nothing' if after is None else after}"


def _finding(finding: Finding) -> str:
    from compactor.core.printable import printable

    return printable(f"{finding.kind}: {finding.detail}")
