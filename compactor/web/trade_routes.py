"""The routes of what was derived for good: trades, findings, and the summary of trades."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, Literal

from litestar import get
from litestar.exceptions import HTTPException
from litestar.params import Parameter
from litestar.response import Response

from compactor.core.instants import BadInstant
from compactor.tables.schema import FINDINGS, TRADES, Table
from compactor.tracker.selecting import make_trade_filter
from compactor.web.api_answers import FindingsPage, Numbers, Summary, SummaryRow, TradesPage, encode, refusals
from compactor.web.line_pages import KeptTail, LinePage, is_in_memory, read_forward, read_page
from compactor.web.replies import CSV, JSON, JSON_LINES, reply
from compactor.web.row_formats import make_converter, make_line_converter, write_csv, write_json_lines
from compactor.web.site import AnyRequest, Site, find_site
from compactor.web.team_view import TeamView

_TIME = {"format": "date-time"}
_EARLIEST, _LATEST = "1900-01-02T00:00:00Z", "2261-12-30T00:00:00Z"
"""Beyond these there is no event (format.md, section 2)."""
Limit = Annotated[int, Parameter(description="How many rows, at most.", ge=1, le=1000)]
Cursor = Annotated[
    str | None,
    Parameter(description="`next_cursor` of the page before: the older rows.", pattern=r"^[0-9]{1,18}$"),
]
Since = Annotated[str | None, Parameter(description="From this RFC 3339 time on.", max_length=64, schema_extra=_TIME)]
Until = Annotated[str | None, Parameter(description="Before this RFC 3339 time.", max_length=64, schema_extra=_TIME)]
Symbol = Annotated[str | None, Parameter(description="Of this symbol only.", min_length=1, max_length=64)]
Side = Annotated[Literal["buy", "sell", "sell_short"] | None, Parameter(description="Of this side only.")]
Day = Annotated[date | None, Parameter(description="A trading day, as 2026-03-02; it begins at 20:00 New York.")]

SUMMED = frozenset({"bought", "sold", "net", "bought_value", "sold_value", "slippage", "slippage_bps"})
"""The decimals of a row of the summary."""

Wants = Callable[[bytes], bool] | None
_EMPTY = LinePage([], None)


@get("/trades", summary="The trades, newest first", responses=refusals(404, 503))
async def get_trades(
    request: AnyRequest, team: str, symbol: Symbol = None, side: Side = None, since: Since = None, until: Until = None,
    limit: Limit = 100, cursor: Cursor = None, numbers: Numbers = "text",
) -> Response[TradesPage]:  # fmt: skip
    """Every execution that the log tells of, in the order in which it told of them; a reversal has a negative
    quantity."""
    return await _answer_trades(request, team, (symbol, side, since, until), limit, cursor, numbers, JSON)


@get("/trades.csv", summary="The trades as CSV", responses=refusals(404, 503), media_type=CSV)
async def get_trades_csv(
    request: AnyRequest, team: str, symbol: Symbol = None, side: Side = None, since: Since = None, until: Until = None,
    limit: Limit = 1000, cursor: Cursor = None,
) -> Response[str]:  # fmt: skip
    """The cursor of the next page is in the header `X-Next-Cursor`."""
    return await _answer_trades(request, team, (symbol, side, since, until), limit, cursor, "text", CSV)


@get("/trades.jsonl", summary="The trades as JSON lines", responses=refusals(404, 503), media_type=JSON_LINES)
async def get_trades_jsonl(
    request: AnyRequest, team: str, symbol: Symbol = None, side: Side = None, since: Since = None, until: Until = None,
    limit: Limit = 1000, cursor: Cursor = None, numbers: Numbers = "text",
) -> Response[str]:  # fmt: skip
    """One trade a line; the cursor of the next page is in the header `X-Next-Cursor`."""
    return await _answer_trades(request, team, (symbol, side, since, until), limit, cursor, numbers, JSON_LINES)


@get("/findings", summary="The findings, newest first", responses=refusals(404, 503))
async def get_findings(
    request: AnyRequest, team: str, limit: Limit = 100, cursor: Cursor = None
) -> Response[FindingsPage]:
    """What was unreadable or suspicious in the log."""
    return await _answer_findings(request, team, limit, cursor, JSON)


@get("/findings.csv", summary="The findings as CSV", responses=refusals(404, 503), media_type=CSV)
async def get_findings_csv(request: AnyRequest, team: str, limit: Limit = 1000, cursor: Cursor = None) -> Response[str]:
    """The cursor of the next page is in the header `X-Next-Cursor`."""
    return await _answer_findings(request, team, limit, cursor, CSV)


@get("/findings.jsonl", summary="The findings as JSON lines", responses=refusals(404, 503), media_type=JSON_LINES)
async def get_findings_jsonl(
    request: AnyRequest, team: str, limit: Limit = 1000, cursor: Cursor = None
) -> Response[str]:
    """One finding a line; the cursor of the next page is in the header `X-Next-Cursor`."""
    return await _answer_findings(request, team, limit, cursor, JSON_LINES)


@get("/summary", summary="Trades by day and symbol", responses=refusals(404, 503))
async def get_summary(
    request: AnyRequest, team: str, since: Day = None, until: Day = None, symbol: Symbol = None,
    numbers: Numbers = "text",
) -> Response[Summary]:  # fmt: skip
    """Fills, quantities bought and sold, their value, and the slippage against the requested price; newest day first.
    `since` and `until` are trading days, both included."""
    return await _answer_summary(request, team, (since, until, symbol), numbers, JSON)


@get("/summary.csv", summary="Trades by day and symbol as CSV", responses=refusals(404, 503), media_type=CSV)
async def get_summary_csv(
    request: AnyRequest, team: str, since: Day = None, until: Day = None, symbol: Symbol = None
) -> Response[str]:
    """One row a day and symbol."""
    return await _answer_summary(request, team, (since, until, symbol), "text", CSV)


@get(
    "/summary.jsonl", summary="Trades by day and symbol as JSON lines", responses=refusals(404, 503),
    media_type=JSON_LINES,
)  # fmt: skip
async def get_summary_jsonl(
    request: AnyRequest, team: str, since: Day = None, until: Day = None, symbol: Symbol = None,
    numbers: Numbers = "text",
) -> Response[str]:  # fmt: skip
    """One day and symbol a line."""
    return await _answer_summary(request, team, (since, until, symbol), numbers, JSON_LINES)


async def _answer_summary(
    request: AnyRequest, team: str, terms: tuple[date | None, date | None, str | None], numbers: str, media_type: str
) -> Response[Any]:
    site = find_site(request)
    view = site.view(team)
    known, freshness = view.make_headers(), view.encode_freshness()
    etag = view.make_etag("summary", *terms, numbers, media_type)
    await _count_trades(site, view)
    lines = [encode(row) for row in view.summary.list_rows(*terms)]
    convert = make_converter(SUMMED, numbers)
    if media_type == JSON:
        body = b'{"team_id":%b,"rows":%b,%b}' % (encode(team), view.join(lines, convert), freshness)
    elif media_type == CSV:
        body = write_csv(lines, SummaryRow.__struct_fields__)
    else:
        body = write_json_lines(lines, convert)
    return reply(request, known, body, etag, media_type=media_type)


async def _answer_trades(
    request: AnyRequest, team: str, terms: tuple[str | None, str | None, str | None, str | None], limit: int,
    cursor: str | None, numbers: str, media_type: str,
) -> Response[Any]:  # fmt: skip
    symbol, side, since, until = terms
    try:
        wants = make_trade_filter(_clamp(since), _clamp(until), symbol, side)
    except (BadInstant, ValueError) as error:
        raise HTTPException(status_code=400, detail=f"since and until: expected an RFC 3339 time; {error}") from None
    site = find_site(request)
    view = site.view(team)
    etag = view.make_etag("trades", *terms, limit, cursor, numbers, media_type)
    known, freshness = view.make_headers(), view.encode_freshness()
    page = await _read_page(site, view.kept_trades(), cursor, limit, wants)
    data = _encode_page(view, TRADES, page, freshness, numbers, media_type)
    return _answer(request, known, page, data, etag, media_type)


async def _answer_findings(
    request: AnyRequest, team: str, limit: int, cursor: str | None, media_type: str
) -> Response[Any]:
    site = find_site(request)
    view = site.view(team)
    etag = view.make_etag("findings", limit, cursor, media_type)
    known, freshness = view.make_headers(), view.encode_freshness()
    page = await _read_page(site, view.kept_findings(), cursor, limit, None)
    data = _encode_page(view, FINDINGS, page, freshness, "text", media_type)
    return _answer(request, known, page, data, etag, media_type)


def _clamp(text: str | None) -> str | None:
    """A time in years that no event can have, as the earliest or latest that one can."""
    if text is None or not text[:4].isdigit() or 1900 < int(text[:4]) < 2261:
        return text
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return text
    return _EARLIEST if int(text[:4]) <= 1900 else _LATEST


async def _read_page(site: Site, tail: KeptTail | None, cursor: str | None, limit: int, wants: Wants) -> LinePage:
    if tail is None:
        return _EMPTY
    at = int(cursor) if cursor is not None else None
    if wants is None and is_in_memory(tail, at, limit):
        return read_page(tail, at, limit, wants)
    # A copy, because the tracker goes on while the thread reads.
    tail = tail._replace(lines=list(tail.lines))
    async with site.reading:
        try:
            return await asyncio.to_thread(read_page, tail, at, limit, wants)
        except OSError as error:
            raise HTTPException(status_code=503, detail=f"the ledger cannot be read: {error.strerror}") from None


def _encode_page(
    view: TeamView, table: Table, page: LinePage, freshness: bytes, numbers: str, media_type: str
) -> bytes:
    convert = make_line_converter(table, numbers)
    if media_type == JSON:
        cursor = encode(str(page.cursor) if page.cursor is not None else None)
        members = (
            encode(view.team),
            table.name.encode(),
            view.join(page.lines, convert),
            cursor,
            freshness,
        )
        return b'{"team_id":%b,"%b":%b,"next_cursor":%b,%b}' % members
    names = [name for name in table.names if name != "team_id" or table is not FINDINGS]
    return write_csv(page.lines, names) if media_type == CSV else write_json_lines(page.lines, convert)


def _answer(
    request: AnyRequest, known: dict[str, str], page: LinePage, data: bytes, etag: str, media_type: str
) -> Response[Any]:
    response = reply(request, known, data, etag, media_type=media_type)
    if page.cursor is not None and media_type != JSON:
        response.headers["X-Next-Cursor"] = str(page.cursor)
    return response


async def _count_trades(site: Site, view: TeamView) -> None:
    """Count the trades in that were added since the last time; the first time those of the whole file."""
    tail = view.kept_trades()
    if tail is None or view.summary.position == tail.end:
        return
    async with view.counting, site.reading:
        tail = view.kept_trades()
        if tail is None:
            return
        summary = view.summary
        lines = read_forward(tail._replace(lines=list(tail.lines)), summary.position)
        try:
            await asyncio.to_thread(summary.add, lines)
        except OSError as error:
            raise HTTPException(status_code=503, detail=f"the ledger cannot be read: {error.strerror}") from None
