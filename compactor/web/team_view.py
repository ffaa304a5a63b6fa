"""What the server shows of one team, from the memory of the tracker: bodies that are encoded once for each change.

A body has an ETag made of the offset of the log and of how fresh the answer is, so that a poll without a change costs a
304. Note: how fresh everything is changes without any event, and is read from the daemon's report once a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

from compactor.ledger.paths import FINDINGS, TRADES
from compactor.tables.schema import PENDING
from compactor.tracker import TrackerStatus
from compactor.tracker.ledger_rows import LedgerRows
from compactor.tracker.live_orders import LiveOrders
from compactor.web.api_answers import IntentState, StreamState, TeamRow, TeamStatus, encode
from compactor.web.line_pages import KeptTail
from compactor.web.row_formats import add_origin, make_line_converter, write_csv, write_json_lines
from compactor.web.trade_summary import TradeSummary

FRESH_SECONDS = 1.0
"""How long what the daemon reported is believed."""


class Body(NamedTuple):
    """An encoded answer, its ETag, and the headers, as they are written, that say both that and how fresh it is."""

    data: bytes
    etag: str
    head: bytes


class TeamView:
    """One team. To be used in the thread of the event loop."""

    def __init__(self, tracker: LiveOrders, team: str) -> None:
        self._tracker = tracker
        self.team = team
        self._summary = TradeSummary()
        self._summary_of: object = None
        self.counting = asyncio.Lock()
        """Held while trades are counted in the summary."""
        self._status: TrackerStatus | None = None
        self._status_at = 0.0
        self._bodies: dict[tuple[str, str], Body] = {}
        self._bodies_of: tuple[object, ...] = ()

    @property
    def rows(self) -> LedgerRows | None:
        """The rows in memory; None where the team has no ledger."""
        return self._tracker.rows(self.team)

    @property
    def status(self) -> TrackerStatus:
        """How current the team's data is, as of the last second."""
        now = time.monotonic()
        if self._status is None or now - self._status_at > FRESH_SECONDS:
            self._status, self._status_at = self._tracker.status(self.team), now
        return self._status

    @property
    def recorded_at(self) -> str | None:
        """The time of the last event, by the log's own clock."""
        rows = self.rows
        return rows.recorded_at if rows is not None else None

    @property
    def offset(self) -> int:
        """The offset of the log as of which everything is shown."""
        rows = self.rows
        return rows.offset if rows is not None else 0

    def make_headers(self) -> dict[str, str]:
        """How fresh an answer is."""
        headers = {"X-Log-Offset": str(self.offset)}
        if (as_of := self.recorded_at) is not None:
            headers["X-As-Of"] = as_of
        if self.status.reconciled_through is not None:
            headers["X-Last-Reconcile"] = self.status.reconciled_through
        return headers

    def make_etag(self, *parts: object) -> str:
        """The ETag of an answer that depends on the log, on how fresh it is, and on `parts`. The mark of the log is in
        it because a log may be replaced by another one of the same length."""
        status, rows = self.status, self.rows
        mark = rows.mark if rows is not None else ""
        seen = (self.team, self.offset, mark, status.reconciled_through, bool(status.stale), *parts)
        return f'"{blake2b(repr(seen).encode(), digest_size=12).hexdigest()}"'

    # The open orders.

    def open_orders(self, format_: str, numbers: str) -> Body:
        """The open orders in a format."""
        status, rows = self.status, self.rows
        loaded = rows.trades if rows is not None else None
        offset = rows.offset if rows is not None else 0
        now = (offset, status.reconciled_through, bool(status.stale), rows.team_id if rows else None, loaded)
        if now != self._bodies_of:
            self._bodies.clear()
            self._bodies_of = now
        key = (format_, numbers)
        body = self._bodies.get(key)
        if body is None:
            etag = self.make_etag("open", *key)
            headers = {**self.make_headers(), **make_list_headers(etag)}
            head = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items()).encode()
            body = self._bodies[key] = Body(self._encode_open(format_, numbers), etag, head)
        return body

    def _encode_open(self, format_: str, numbers: str) -> bytes:
        rows = self.rows
        lines = [add_origin(row.line, row.origin) for row in rows.list_rows()] if rows is not None else []
        convert = make_line_converter(PENDING, numbers)
        if format_ == "jsonl":
            return write_json_lines(lines, convert)
        if format_ == "csv":
            return write_csv(lines, [*PENDING.names, "origin"])
        head = b'{"team_id":%b,"open_orders_count":%d,"orders":' % (encode(self.team), len(lines))
        return head + self.join(lines, convert) + b"," + self.encode_freshness() + b"}"

    @staticmethod
    def join(lines: list[bytes], convert: Callable[[bytes], bytes]) -> bytes:
        """Lines as a JSON array."""
        return b"[" + b",".join(map(convert, lines)) + b"]"

    def encode_freshness(self) -> bytes:
        """The members that every list has, without braces."""
        status = self.status
        found = {
            "as_of": self.recorded_at,
            "reconciled_through": status.reconciled_through,
            "stale": bool(status.stale),
        }
        return encode(found)[1:-1]

    # Trades and findings.

    def kept_trades(self) -> KeptTail | None:
        """The trades in memory."""
        rows = self.rows
        return KeptTail(rows.path / TRADES, rows.trades.position, rows.trades.lines) if rows is not None else None

    def kept_findings(self) -> KeptTail | None:
        """The findings in memory."""
        rows = self.rows
        return KeptTail(rows.path / FINDINGS, rows.findings.position, rows.findings.lines) if rows is not None else None

    @property
    def summary(self) -> TradeSummary:
        """The sums of trades as far as they are counted; none yet of a log that has taken the place of another one."""
        kept = self.rows.trades if self.rows is not None else None
        if kept is not self._summary_of:
            self._summary, self._summary_of = TradeSummary(), kept
        return self._summary

    # Status.

    def describe(self, trading: str | None) -> TeamStatus:
        """How current the answers are."""
        status, rows = self.status, self.rows
        return TeamStatus(
            team_id=self.team, has_ledger=rows is not None, offset=self.offset,
            log_bytes=rows.log_bytes if rows is not None else 0,
            open_orders_count=len(rows.open) if rows is not None else 0,
            intents=[
                IntentState(one.client_order_id, one.ts, one.request, one.tags, one.note)
                for one in self._tracker.intents(self.team)
            ],
            unplaced=self._tracker.unplaced(self.team),
            as_of=self.recorded_at, reconciled_through=status.reconciled_through, stale=bool(status.stale),
            reasons=status.stale, daemon_running=status.is_daemon_running,
            streams=[
                StreamState(
                    one.account, one.connected, _format_utc(one.stream_since), _format_utc(one.last_message_at),
                    _format_utc(one.last_reconcile_at),
                )
                for one in status.accounts
            ],
            trading=trading, server_time=_format_utc(time.time()) or "",
        )  # fmt: skip

    def describe_in_row(self) -> TeamRow:
        """The same, shorter, for the list of all teams."""
        status, rows = self.status, self.rows
        return TeamRow(
            self.team, len(rows.open) if rows is not None else 0, self.offset, self.recorded_at,
            status.reconciled_through, bool(status.stale), status.stale,
        )  # fmt: skip


def make_list_headers(etag: str) -> dict[str, str]:
    """The headers of an answer that may be kept by its client, and is asked for again with its ETag."""
    return {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}


def _format_utc(seconds: float | None) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
