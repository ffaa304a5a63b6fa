"""Busts and corrections of executions, in whatever order they and the fills are told (4.9)."""

from decimal import Decimal
from itertools import chain, islice
from typing import NamedTuple

from compactor.core.decimals import plain
from compactor.core.events import Event
from compactor.core.fill_index import NAMELESS, Fill
from compactor.core.inference import WAITING_MAX, displace, infer_rest
from compactor.core.instants import is_older
from compactor.core.orders import DECIMAL, Entry, Inferred, Order, Revision, ensure_rare, index_fills
from compactor.core.told import count_executed, count_without, list_told, note_reduction


def take_revision(order: Order, event: Event, entry: Entry) -> None:
    """Take a `trade_bust` or `trade_correct` (4.9), or keep it until its fill comes."""
    key = _find_named(order, event)
    if key is None:
        name = _name_revised(event)
        waiting = ensure_rare(order).waiting.setdefault(name, [])
        if all(revision.event != event.event for revision in waiting):
            waiting.append(_make_revision(event, name, entry))
        return
    version = _revise(order, key, _make_revision(event, key, entry), entry)
    if version is not None:
        apply_waiting(order, version, entry)


def bust_inferred(order: Order, entry: Entry) -> None:
    """Take the shares of a bust whose fill nothing has told of out of the inferred trades that still count them."""
    if order.rare is None or not order.rare.waiting or not order.rare.inferred:
        return
    told = list_told(order)
    for revision in list(chain.from_iterable(islice(order.rare.waiting.values(), WAITING_MAX))):
        if revision.event == "trade_correct" or revision.is_inferred or None in (revision.qty, revision.price):
            continue
        displaced = _find_counting(order, revision, count_without(told, revision))
        if displaced:
            assert revision.qty is not None and revision.price is not None
            own = _enter(revision, entry)
            qty = abs(DECIMAL[revision.qty])
            displace(order, displaced, own)
            infer_rest(order, displaced, qty, DECIMAL[revision.price] * qty, own)
            revision.is_inferred = True
            _leave(own, entry, revision)
            note_reduction(order, revision.ts, qty, DECIMAL[revision.price] * qty)
            told = list_told(order)


def _find_counting(order: Order, revision: Revision, told: Decimal | None) -> list[Inferred]:
    """The inferred trades that a bust takes its shares from, if the broker, who counts `told`, counts so many less than
    is known: those of before it first."""
    assert revision.qty is not None
    missing = abs(DECIMAL[revision.qty])
    is_surplus = told is not None and order.filled - told >= missing
    found: list[Inferred] = []
    for inferred in sorted(ensure_rare(order).inferred, key=lambda one: not is_older(one.ts, revision.ts)):
        if is_surplus and missing > 0:
            found.append(inferred)
            missing -= inferred.qty
    return found if missing <= 0 else []


def _enter(revision: Revision, entry: Entry) -> Entry:
    """The entry of a revision that waited, whose lines are at the place of the event that said so."""
    own = Entry(revision.offset, revision.length, revision.ts, entry.team_id, entry.derived)
    own.made = max(revision.made, entry.made if own.stem == entry.stem else 0)
    return own


def _leave(own: Entry, entry: Entry, revision: Revision) -> None:
    """Go on with an event after a revision that waited. The two may stand at the same place."""
    own.close()
    revision.made = own.made
    if own.stem == entry.stem:
        entry.made = own.made
    entry.revises = entry.revises or own.revises


def note_lines(order: Order, event: Event, entry: Entry) -> None:
    """Note how many lines a revision has made, if it waits."""
    for revision in ensure_rare(order).waiting.get(_name_revised(event), ()):
        if revision.offset == entry.offset:
            revision.made = entry.made


def _name_revised(event: Event) -> str:
    """The id by which a revision names its fill."""
    name = event.previous_execution_id or event.execution_id
    assert name is not None
    return name


def _find_named(order: Order, event: Event) -> str | None:
    """The key of the execution that a revision names, if it is known. A new version that was told before its correction
    is not what that corrects."""
    names = order.rare.names if order.rare is not None else {}
    keys = [names.get(name, name) for name in (event.previous_execution_id, event.execution_id) if name is not None]
    for key in keys:
        if key in order.fills and not (
            event.event == "trade_correct" and key != keys[0] and _is_brought(order.fills[key], event)
        ):
            return key
    return None


def _is_brought(fill: Fill, event: Event) -> bool:
    assert event.qty is not None and event.price is not None
    return (DECIMAL[fill.qty], DECIMAL[fill.price]) == (DECIMAL[event.qty], DECIMAL[event.price])


def _make_revision(event: Event, name: str, entry: Entry) -> Revision:
    new_id = event.execution_id if event.execution_id != event.previous_execution_id else None
    return Revision(
        event.event, name, entry.offset, entry.length, event.ts, new_id, event.source, event.price, event.qty
    )


class _Step(NamedTuple):
    """A revision that waited for a fill, and the entry during which its fill came."""

    key: str
    revision: Revision
    entry: Entry
    own: Entry | None = None
    """The entry of the revision itself, once it is done; what waited for its version comes before that is left."""


def apply_waiting(order: Order, key: str, entry: Entry) -> None:
    """A fill has come (or got a further id): do what was waiting for any of its ids, at the place of the events that
    said so. A chain of corrections may be told newest first, however long it is."""
    steps = _take_waiting(order, key, entry)
    while steps:
        step = steps.pop()
        if step.own is not None:
            _leave(step.own, step.entry, step.revision)
            continue
        own = _enter(step.revision, step.entry)
        version = _revise(order, step.key, step.revision, own)
        steps.append(step._replace(own=own))
        if version is not None:
            steps += _take_waiting(order, version, own)


def _take_waiting(order: Order, key: str, entry: Entry) -> list[_Step]:
    """What waited for a fill, the last one first."""
    if order.rare is None or not order.rare.waiting:
        return []
    ids = [key, *(name for name, named in order.rare.names.items() if named == key)]
    revisions = [revision for name in ids for revision in order.rare.waiting.pop(name, [])]
    return [_Step(key, one, entry) for one in sorted(revisions, key=lambda one: one.offset, reverse=True)]


def _revise(order: Order, key: str, revision: Revision, entry: Entry) -> str | None:
    """Do what a revision says of a fill. Returns the fill's new version, for which others may wait."""
    corrects = revision.event == "trade_correct"
    if corrects and order.fills[key].version is not None:
        return None  # A second correction of the same execution is a duplicate.
    while (version := order.fills[key].version) is not None:
        key = version
    fill = order.fills[key]
    if not fill.live:
        if corrects:
            entry.find(
                "correct_after_bust", f"execution {key!r} was busted before this correction of it; it stays busted"
            )
        return None
    entry.write(order, "reversal", plain(-DECIMAL[fill.qty]), fill.price, fill.execution_id, reverses=fill.trade_id)
    order.filled -= DECIMAL[fill.qty]
    index_fills(order).retract(key)
    entry.revises = True
    if not revision.is_inferred:
        _note(order, fill, revision)
    if corrects:
        _write_correction(order, key, revision, entry)
    # After a bust the same cumulative quantity can be reached again by another execution (4.3).
    index_fills(order).forget_above(order.filled)
    return fill.version


def _note(order: Order, fill: Fill, revision: Revision) -> None:
    """Note by how much a revision lowers the fills; what it took out of an inferred trade has been noted."""
    qty = DECIMAL[fill.qty]
    value = DECIMAL[fill.price] * qty
    if revision.event == "trade_correct":
        assert revision.price is not None and revision.qty is not None
        qty -= DECIMAL[revision.qty]
        value -= DECIMAL[revision.price] * DECIMAL[revision.qty]
    note_reduction(order, revision.ts, qty, value)


def _write_correction(order: Order, corrected: str, revision: Revision, entry: Entry) -> None:
    """Write the new version of a fill, unless that is known: told by a source that has only the newest version."""
    assert revision.price is not None and revision.qty is not None
    fill = order.fills[corrected]
    known = _find_version(order, corrected, revision)
    if known is not None:
        index_fills(order).replace(corrected, known)
        return
    execution_id = revision.execution_id or fill.execution_id
    trade_id = entry.write(order, "correction", revision.qty, revision.price, execution_id, corrects=fill.trade_id)
    key = (
        revision.execution_id
        if revision.execution_id and revision.execution_id not in order.fills
        else f"{NAMELESS}{entry.stem}"
    )
    version = Fill(
        execution_id, revision.qty, revision.price, None, revision.ts, revision.source, trade_id, remembered=False
    )
    index_fills(order).correct(corrected, key, version)
    order.filled += DECIMAL[revision.qty]


def _find_version(order: Order, corrected: str, revision: Revision) -> str | None:
    """The key of the execution that a correction brings, where it has been told as one: under that id, or by another
    source where the broker counts fewer shares than there would be with one more. Numbers that come back under an id
    that was corrected before are a version of their own."""
    assert revision.price is not None and revision.qty is not None
    key = revision.execution_id
    if key is None:
        return None
    fills, names = index_fills(order), ensure_rare(order).names
    key = names.get(key, key)
    if key not in fills:
        told = count_executed(order)
        if told is None or order.filled + DECIMAL[revision.qty] <= told:
            return None
        found = fills.find_alike(revision.qty, revision.price, revision.source, revision.ts, dead=False)
        if found is None or fills[found].is_version:
            return None
        names[key] = found
        key = found
    fill, last = fills[key], key
    while (version := fills[last].version) is not None:
        last = version
    is_same = (DECIMAL[fill.qty], DECIMAL[fill.price]) == (DECIMAL[revision.qty], DECIMAL[revision.price])
    return key if is_same and not fill.is_version and last != corrected else None
