"""The routes of orders: the open ones, one of them, its story, and its cancel."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import delete, get
from litestar.exceptions import HTTPException
from litestar.params import Parameter
from litestar.response import Response

from compactor.core import CompactorError
from compactor.core.printable import printable
from compactor.history.lookup import History, find_histories
from compactor.ledger import LedgerEntry
from compactor.ledger.paths import team_in_path
from compactor.ledger.records import PendingOrder
from compactor.tracker import EndedOrder
from compactor.tracker.asked_orders import Origin
from compactor.web.api_answers import HistoryAnswer, Numbers, OpenOrders, OrderAnswer, encode, refusals
from compactor.web.canceling import CannotCancel
from compactor.web.replies import CSV, JSON_LINES, encode_order, reply
from compactor.web.site import AnyRequest, Site, find_access, find_site
from compactor.web.team_view import TeamView

PREFIX_MIN = 4
"""The least beginning of an id by which an order that ended before the server began is found."""
CANCEL_PREFIX_MIN = 8
"""The least beginning of an id by which an order is canceled; a typo must not hit another one."""
EVENTS_MAX = 2_000
"""The events of a story that are shown; of more, the newest."""

OrderId = Annotated[
    str,
    Parameter(
        description="The id of an order, or a beginning of it that fits one order only.", min_length=1, max_length=128
    ),
]
_decode_id = msgspec.json.Decoder(msgspec.defstruct("_OrderIdOnly", [("order_id", str)])).decode


@get("/orders/open", summary="The open orders", responses=refusals(404))
async def get_open_orders(request: AnyRequest, team: str, numbers: Numbers = "text") -> Response[OpenOrders]:
    """What is open right now, oldest first. An unchanged answer is a 304 for the ETag that it had."""
    view = find_site(request).view(team)
    body = view.open_orders("json", numbers)
    return reply(request, view.make_headers(), body.data, body.etag)


@get("/orders/open.csv", summary="The open orders as CSV", responses=refusals(404), media_type=CSV)
async def get_open_orders_csv(request: AnyRequest, team: str) -> Response[str]:
    """Safe to open in a spreadsheet: a text that looks like a formula has an apostrophe before it."""
    view = find_site(request).view(team)
    body = view.open_orders("csv", "text")
    return reply(request, view.make_headers(), body.data, body.etag, media_type=CSV)


@get("/orders/open.jsonl", summary="The open orders as JSON lines", responses=refusals(404), media_type=JSON_LINES)
async def get_open_orders_jsonl(request: AnyRequest, team: str, numbers: Numbers = "text") -> Response[str]:
    """One order a line."""
    view = find_site(request).view(team)
    body = view.open_orders("jsonl", numbers)
    return reply(request, view.make_headers(), body.data, body.etag, media_type=JSON_LINES)


@get("/orders/{order_id:str}", summary="One order, open or ended", responses=refusals(404, 503))
async def get_order(
    request: AnyRequest, team: str, order_id: OrderId, numbers: Numbers = "text"
) -> Response[OrderAnswer]:
    """An order by its id, or by a beginning that fits one order only; however long ago it ended."""
    site = find_site(request)
    view = site.view(team)
    known, etag = view.make_headers(), view.make_etag("order", order_id, numbers)
    order = await _find_order(site, team, order_id)
    origin = await _read_origin(site, team, order)
    return reply(request, known, encode_order(order, origin, numbers), etag)


@get("/orders/{order_id:str}/history", summary="The story of an order", responses=refusals(404, 503))
async def get_history(request: AnyRequest, team: str, order_id: OrderId) -> Response[HistoryAnswer]:
    """Its events in log order with the broker's messages, what each of them changed, the trades it made, and the orders
    around it: what it replaces, and what belongs to it."""
    site = find_site(request)
    view = site.view(team)
    rows = view.rows
    if rows is None:
        raise _missing(team, order_id)
    known, etag = view.make_headers(), view.make_etag("history", order_id)
    try:
        order_id = (await _find_order(site, team, order_id)).order_id
    except HTTPException as missing:
        if missing.status_code != 404:
            raise
    entry = LedgerEntry(team_in_path(rows.path), rows.path)
    found = await _read(site, find_histories, entry, order_id)
    if not found or not found[0].story.events:
        raise _missing(team, order_id)
    return reply(request, known, _encode_history(found[0]), etag)


@delete(
    "/orders/{order_id:str}",
    summary="Ask the broker to cancel an order",
    status_code=202,
    responses=refusals(404, 409, 503),
)
async def cancel_order(request: AnyRequest, team: str, order_id: OrderId) -> Response[OrderAnswer]:
    """The answer has the order as it is right after the request. It stays open until the broker says that it is
    canceled, and a fill can still win."""
    site, access = find_site(request), find_access(request)
    if access.read_only:
        raise HTTPException(status_code=403, detail="this key may only read")
    order = await _find_order(site, team, order_id)
    if order.order_id != order_id and len(order_id) < CANCEL_PREFIX_MIN:
        raise HTTPException(
            status_code=404, detail=f"to cancel, expected the whole id or {CANCEL_PREFIX_MIN} letters of it at least"
        )
    if isinstance(order, EndedOrder):
        raise HTTPException(
            status_code=409, detail=f"order {order.order_id} has ended as {order.status}; there is nothing to cancel"
        )
    try:
        await site.canceler.cancel(order.order_id)
    except CannotCancel as error:
        raise HTTPException(status_code=error.status, detail=str(error)) from None
    finally:
        site.log.info("cancel_requested", team_id=team, order_id=order.order_id, key_id=access.key_id)
    known = site.view(team).make_headers()
    after = site.tracker.order(order.order_id, team) or order
    origin = await _read_origin(site, team, after)
    return reply(request, known, encode_order(after, origin, "text"), status=202)


async def _find_order(site: Site, team: str, order_id: str) -> PendingOrder | EndedOrder:
    found = site.tracker.order(order_id, team)
    if found is not None:
        return found
    rows = site.view(team).rows
    ids = rows.find_ids(order_id) if rows is not None else []
    if len(ids) > 1:
        raise HTTPException(
            status_code=404, detail=f"{len(ids)} orders begin with {printable(order_id)}; give more of the id"
        )
    for one in (order_id, _find_traded(site.view(team), order_id)):
        found = await _find_in_log(site, team, one) if one is not None else None
        if found is not None:
            return found
    raise _missing(team, order_id)


async def _find_in_log(site: Site, team: str, order_id: str) -> PendingOrder | EndedOrder | None:
    async with site.reading:
        try:
            return await site.tracker.find_order(order_id, team)
        except CompactorError as error:
            raise HTTPException(status_code=503, detail=str(error)) from None


async def _read_origin(site: Site, team: str, order: PendingOrder) -> Origin | None:
    found = site.tracker.origin(order.order_id, team)
    if found is not None:
        return found
    async with site.reading:
        try:
            return await site.tracker.read_origin(order.order_id, team)
        except CompactorError as error:
            raise HTTPException(status_code=503, detail=str(error)) from None


def _find_traded(view: TeamView, prefix: str) -> str | None:
    """The one order among the last trades whose id begins so."""
    tail = view.kept_trades()
    if tail is None or len(prefix) < PREFIX_MIN:
        return None
    encoded = encode(prefix)[:-1]
    ids = {_decode_id(line).order_id for line in tail.lines if b'"order_id":' + encoded in line}  # type: ignore[attr-defined]
    return ids.pop() if len(ids) == 1 else None


async def _read(site: Site, function: Any, *arguments: Any) -> Any:
    """Call what reads the disk in a thread; few at once."""
    async with site.reading:
        try:
            return await asyncio.to_thread(function, *arguments, raw=True)
        except (CompactorError, OSError) as error:
            raise HTTPException(status_code=503, detail=printable(error)) from None


def _encode_history(found: History) -> bytes:
    story = found.story
    answer = HistoryAnswer(
        found.team_id, story.order_id, story.open, story.origin, story.intents, story.order,
        story.events[-EVENTS_MAX:], story.unread, found.chain,
    )  # fmt: skip
    return encode(answer)


def _missing(team: str, order_id: str) -> HTTPException:
    return HTTPException(status_code=404, detail=f"team {team} has no order {printable(order_id)}")
