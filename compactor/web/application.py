"""Assemble the application: its routes, its OpenAPI document, its errors, and the gate in front of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar, Router, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, License, Reference, SecurityScheme, Tag
from litestar.response import Response
from structlog.typing import FilteringBoundLogger as Logger

from compactor import __version__
from compactor.broker.credentials import BadCredentials
from compactor.core.printable import redact
from compactor.settings.accounts import find_accounts
from compactor.settings.configuration import Configuration
from compactor.tables.schema import PENDING, TRADES
from compactor.tracker.live_orders import LiveOrders
from compactor.web import order_routes, team_routes, trade_routes
from compactor.web.api_answers import encode
from compactor.web.api_keys import KeyStore
from compactor.web.canceling import Canceler
from compactor.web.connections import REQUEST_BYTES_MAX
from compactor.web.gate import Gate, Receive, Scope, Send
from compactor.web.health_link import HealthSource
from compactor.web.page_files import get_index, get_page_file, get_reference, read_page_files
from compactor.web.short_way import ShortWay
from compactor.web.site import AnyRequest, Site, require_team
from compactor.web.system_routes import get_livez, get_metrics, get_readyz

_ABOUT = """\
The open orders and the trades of a team, from memory and as of an offset of its log.

Keys come from `compactor key create`; send one as `Authorization: Bearer KEY` or as `?key=KEY`. Decimals are strings,
or JSON numbers with `numbers=json`. Errors are `{"detail": ...}`. Every answer says how fresh it is: `X-Log-Offset`,
`X-As-Of`, `X-Last-Reconcile`."""
TEAM_ROUTES: list[Any] = [
    order_routes.get_open_orders, order_routes.get_open_orders_csv, order_routes.get_open_orders_jsonl,
    order_routes.get_order, order_routes.get_history, order_routes.cancel_order, trade_routes.get_trades,
    trade_routes.get_trades_csv, trade_routes.get_trades_jsonl, trade_routes.get_findings,
    trade_routes.get_findings_csv, trade_routes.get_findings_jsonl, trade_routes.get_summary,
    trade_routes.get_summary_csv, trade_routes.get_summary_jsonl, team_routes.get_status, team_routes.get_events,
]  # fmt: skip


FORGET_SECONDS = 600.0
ENDED_SECONDS = 86_400


class Application:
    """The gate with the application behind it, as ASGI."""

    def __init__(self, gate: Gate, site: Site, inner: Litestar) -> None:
        self._gate = gate
        self._site = site
        self.inner = inner
        self.traffic = gate.traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        await self._gate(scope, receive, send)

    def close_streams(self) -> None:
        """End every event stream, because the server ends."""
        self._site.end_streams()


@asynccontextmanager
async def make_application(
    data: Path, found: Configuration, log: Logger, *,
    health: HealthSource | None = None, has_keys: bool = True,
) -> AsyncIterator[Application]:  # fmt: skip
    """The application of a data directory, its tracker following the logs for as long. Without `has_keys` everybody
    may do everything. Raises CompactorError."""
    settings = found.settings
    keys = KeyStore(data) if has_keys else None
    try:
        accounts = find_accounts(settings.accounts, os.environ)
    except BadCredentials as error:
        log.info("cancel_unavailable", reason=str(error))
        accounts = []
    # The daemon keeps the derived files current; here they are only read.
    async with LiveOrders(data, compact=False) as tracker:
        inner = _make_litestar()
        gate = Gate(keys, settings, log)
        site = Site(data, tracker, settings, Canceler(data, accounts), keys, gate.traffic, log, health)
        gate.inner = inner  # type: ignore[assignment]
        gate.short_way = ShortWay(site).answer
        inner.state.site = site
        inner.state.page_files = read_page_files(has_keys=has_keys)
        inner.state.document = encode(_make_document(inner))
        forgetting = asyncio.create_task(_forget_ended(tracker))
        try:
            yield Application(gate, site, inner)
        finally:
            forgetting.cancel()
            site.end_streams()


async def _forget_ended(tracker: LiveOrders) -> None:
    """Drop from memory what ended long ago, now and then; the log still has it for whoever asks."""
    while True:
        await asyncio.sleep(FORGET_SECONDS)
        before = time.time_ns() - ENDED_SECONDS * 10**9
        for team in tracker.teams():
            if (rows := tracker.rows(team)) is not None:
                rows.drop_ended(before)


def _make_litestar() -> Litestar:
    team = Router("/api/v1/team/{team:str}", route_handlers=TEAM_ROUTES, guards=[require_team], tags=["team"])
    return Litestar(
        route_handlers=[
            team, team_routes.list_teams, team_routes.list_teams_csv, team_routes.list_teams_jsonl,
            team_routes.get_key, get_livez, get_readyz, get_metrics, get_index, get_reference, get_page_file,
            _get_document,
        ],
        state=State({}), openapi_config=_describe(), exception_handlers={Exception: _explain},
        request_max_body_size=REQUEST_BYTES_MAX, debug=False, logging_config=None,
    )  # fmt: skip


def _describe() -> OpenAPIConfig:
    schemes: dict[str, SecurityScheme | Reference] = {
        "bearer": SecurityScheme(type="http", scheme="bearer", description="A key of compactor key create."),
        "query": SecurityScheme(type="apiKey", security_scheme_in="query", name="key", description="The same key."),
    }
    return OpenAPIConfig(
        title="compactor", version=__version__, description=_ABOUT, license=License("MIT", identifier="MIT"),
        components=Components(security_schemes=schemes), security=[{"bearer": []}, {"query": []}],
        tags=[Tag("team", "What is known of one team.")], render_plugins=[], use_handler_docstrings=True,
    )  # fmt: skip


def _make_document(inner: Litestar) -> dict[str, Any]:
    """The OpenAPI document; decimals are strings by their types, and may be numbers where that is asked for."""
    document = inner.openapi_schema.to_schema()
    either = {"type": ["string", "number", "null"], "description": "A decimal; a number with numbers=json."}
    for name, table in (("OpenOrderAnswer", PENDING), ("OrderAnswer", PENDING), ("TradeLine", TRADES)):
        properties = document["components"]["schemas"][name]["properties"]
        properties |= {column.name: either for column in table.columns if column.kind == "decimal"}
    document["components"]["schemas"]["SummaryRow"]["properties"] |= dict.fromkeys(trade_routes.SUMMED, either)
    return document


@get("/api/openapi.json", include_in_schema=False)
async def _get_document(request: AnyRequest) -> Response[bytes]:
    """The OpenAPI document."""
    return Response(content=request.app.state.document, media_type="application/json")


def _explain(request: AnyRequest, error: Exception) -> Response[Any]:
    """Every error as `{"detail": …}`; what is our fault is logged with where it was, and not shown."""
    if not isinstance(error, HTTPException):
        site: Site | None = getattr(request.app.state, "site", None)
        if site is not None:
            site.log.error("request_failed", path=redact(request.scope["path"])[:500], exc_info=error)
        error = HTTPException(status_code=500, detail="this failed inside the server; its log says where")
    detail = error.detail
    if error.status_code == 400 and isinstance(error.extra, list) and error.extra:
        first = error.extra[0]
        detail = f"{first.get('key')}: {first.get('message')}" if isinstance(first, dict) else detail
    elif error.status_code == 404 and detail == "Not Found":
        detail = "there is nothing at this path; see /api"
    headers = dict(error.headers or {})
    return Response(
        content=encode({"detail": detail}),
        status_code=error.status_code,
        headers=headers,
        media_type="application/json",
    )
