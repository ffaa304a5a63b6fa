"""SQLite by the standard library: `python sqlite_peer.py DATA OUT_DIR` writes
OUT_DIR/<name>/{trades,pending_orders}.jsonl.

As fast as it was made: one process and one database in memory per ledger, on all cores; lines decoded by msgspec into
tuples; one transaction without journal; `insert or ignore` on the execution drops the duplicates; SQLite itself
writes the JSON.

Note: SQLite has no decimals, so that the sums of the few open orders are made in Python.
"""

import os
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import IO

import msgspec

BATCH_BYTES = 1 << 20
TERMS = [
    "order_id",
    "symbol",
    "side",
    "quantity",
    "order_type",
    "time_in_force",
    "limit_price",
    "stop_price",
    "client_order_id",
]

SCHEMA = f"""
pragma journal_mode = off; pragma synchronous = off; pragma locking_mode = exclusive; pragma cache_size = -1000000;
create table placed (order_id primary key, {", ".join(TERMS[1:])}, ts) without rowid;
create table lives (event, order_id, ts);
create table fills (place integer primary key, order_id, execution_id, ts, price, qty, unique (execution_id, order_id));
"""

TRADES = """
select json_object('team_id', ?, 'order_id', order_id, 'symbol', symbol, 'side', side, 'quantity', qty,
    'execution_price', price, 'order_type', order_type, 'timestamp', fills.ts, 'client_order_id', client_order_id,
    'execution_id', execution_id, 'kind', 'fill') || char(10)
from fills cross join placed using (order_id) order by place
"""

OPEN = f"""
select {", ".join(f"placed.{name}" for name in TERMS)}, placed.ts from placed
where order_id not in (select order_id from lives where event in ('fill', 'canceled', 'expired', 'rejected'))
order by placed.ts, order_id
"""


class Line(msgspec.Struct, gc=False):
    """What the two outputs need of an event."""

    event: str
    order_id: str
    ts: str
    symbol: str | None = None
    side: str | None = None
    quantity: str | None = None
    order_type: str | None = None
    time_in_force: str | None = None
    limit_price: str | None = None
    stop_price: str | None = None
    client_order_id: str | None = None
    execution_id: str | None = None
    price: str | None = None
    qty: str | None = None


def batches(file: IO[bytes]) -> Iterator[list[Line]]:
    decode = msgspec.json.Decoder(Line).decode_lines
    rest = b""
    while data := file.read(BATCH_BYTES):
        whole, _, tail = (rest + data).rpartition(b"\n")
        yield decode(whole)
        rest = tail


def placement(event: Line) -> tuple[str | None, ...]:
    terms = event.order_id, event.symbol, event.side, event.quantity, event.order_type, event.time_in_force
    return *terms, event.limit_price, event.stop_price, event.client_order_id, event.ts


def load(connection: sqlite3.Connection, path: Path) -> None:
    """Put each event into the one table that asks for it."""
    place, live, fill = (
        f"insert into placed values ({', '.join('?' * 10)})",
        "insert into lives values (?, ?, ?)",
        "insert or ignore into fills (order_id, execution_id, ts, price, qty) values (?, ?, ?, ?, ?)",
    )
    with path.open("rb", buffering=0) as file, connection:
        for lines in batches(file):
            connection.executemany(
                place,
                [placement(event) for event in lines if event.event == "new"],
            )
            connection.executemany(fill, [(e.order_id, e.execution_id, e.ts, e.price, e.qty) for e in lines if e.price])
            connection.executemany(
                live, [(e.event, e.order_id, e.ts) for e in lines if e.event not in ("new", "partial_fill")]
            )


def pending(connection: sqlite3.Connection, team: str) -> Iterator[bytes]:
    """The open orders' lines; the few that there are, so in Python."""
    orders = connection.execute(OPEN).fetchall()
    marks = defaultdict[str, list[tuple[str, str]]](list)
    connection.execute("create temp table open as select order_id from (" + OPEN + ")")
    for order_id, ts, event in connection.execute("select order_id, ts, event from lives join open using (order_id)"):
        marks[order_id].append((ts, event))
    sums = defaultdict[str, list[Decimal]](lambda: [Decimal(0), Decimal(0)])
    few = connection.execute("select order_id, ts, price, qty from fills where order_id in (select order_id from open)")
    for order_id, ts, price, qty in few:
        marks[order_id].append((ts, "partially_filled"))
        sums[order_id][0] += Decimal(qty)
        sums[order_id][1] += Decimal(price) * Decimal(qty)
    for order in orders:
        yield msgspec.json.encode(row(order, team, sorted(marks[order[0]]), *sums[order[0]])) + b"\n"


def row(
    order: tuple[str | None, ...], team: str, marks: list[tuple[str, str]], filled: Decimal, money: Decimal
) -> dict[str, str | None]:
    canceling = any(event == "pending_cancel" for _, event in marks)
    found = dict(zip(TERMS, order, strict=False))
    found |= {"team_id": team, "created_at": order[-1], "filled_qty": f"{filled:f}"}
    found["status"] = "pending_cancel" if canceling else marks[-1][1] if marks else "new"
    found["updated_at"] = marks[-1][0] if marks else order[-1]
    if filled:
        exact = Context(prec=60, rounding=ROUND_HALF_EVEN)
        found["filled_avg_price"] = f"{exact.divide(money, filled).quantize(Decimal('1e-9'), context=exact):f}"
    return found


def fold(path: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA)
    load(connection, path)
    team = path.parent.name
    with (out / "trades.jsonl").open("w", encoding="utf-8", buffering=1 << 20) as file:
        file.writelines(line for (line,) in connection.execute(TRADES, (team,)))
    with (out / "pending_orders.jsonl").open("wb") as rows:
        rows.writelines(pending(connection, team))
    connection.close()


def main(data: Path, out: Path) -> None:
    logs = sorted(data.glob("team/*/events.jsonl"))
    with ProcessPoolExecutor(min(len(logs), os.cpu_count() or 1)) as pool:
        for job in [pool.submit(fold, log, out / log.parent.name) for log in logs]:
            job.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
