"""A broker to measure against: it says what it is told to say, as fast as it can (a process of `bench.live`).

It knows one account with orders that are filled in parts, tells them on its stream, as replay, or over REST, and does
not trade. Note: it answers HTTP and WebSocket on one port with `websockets`, which alpaca-py brings,
so measuring needs nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY, SECRET = "PKBENCH00000", "secret-of-the-bench"
PARTS = 4
"""Each order is accepted, and filled in so many parts."""
TEAMS = 20
_HEAD = b'{"stream":"trade_updates","data":'


class Orders:
    """`number` orders, over an hour until a minute ago."""

    def __init__(self, number: int) -> None:
        now = time.time()
        self.updates: list[bytes] = []
        self.fills: list[dict[str, Any]] = []
        self.orders: list[dict[str, Any]] = []
        for index in range(number):
            at = now - 60 - 3500 * (1 - (index + 1) / number)
            self._add(index, at)

    def _add(self, index: int, at: float) -> None:
        order = _order(index, at)
        self.updates.append(_frame("new", at, order))
        for part in range(1, PARTS + 1):
            order["filled_qty"], order["filled_avg_price"] = str(part * 5), "182.25"
            order["status"] = "filled" if part == PARTS else "partially_filled"
            order["updated_at"] = _rfc3339(at + part / 100)
            event = "fill" if part == PARTS else "partial_fill"
            fill = {"price": "182.25", "qty": "5", "execution_id": _uuid(index, part), "position_qty": str(part * 5)}
            self.updates.append(_frame(event, at + part / 100, order, **fill))
            self.fills.append(_activity(index, part, at + part / 100, order, event))
        self.orders.append(order)


def _order(index: int, at: float) -> dict[str, Any]:
    stamp = _rfc3339(at)
    return {
        "id": _uuid(index, 0), "client_order_id": f"team{index % TEAMS:02d}:{index}", "created_at": stamp,
        "updated_at": stamp, "submitted_at": stamp, "filled_at": None, "expired_at": None, "expires_at": stamp,
        "canceled_at": None, "failed_at": None, "replaced_at": None, "replaced_by": None, "replaces": None,
        "asset_id": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415", "symbol": "AAPL", "asset_class": "us_equity",
        "notional": None, "qty": str(PARTS * 5), "filled_qty": "0", "filled_avg_price": None, "order_class": "",
        "order_type": "limit", "type": "limit", "side": "buy", "position_intent": "buy_to_open", "time_in_force": "day",
        "limit_price": "182.50", "stop_price": None, "status": "new", "extended_hours": False, "legs": None,
        "trail_percent": None, "trail_price": None, "hwm": None, "subtag": None, "source": None,
    }  # fmt: skip


def _frame(event: str, at: float, order: dict[str, Any], **fill: str) -> bytes:
    stamp = _rfc3339(at)
    data = {
        "event": event, "timestamp": stamp, "at": stamp, "event_id": f"{order['id']}-{event}-{order['filled_qty']}",
        **fill, "order": order,
    }  # fmt: skip
    return json.dumps({"stream": "trade_updates", "data": data}, separators=(",", ":")).encode()


def _activity(index: int, part: int, at: float, order: dict[str, Any], event: str) -> dict[str, Any]:
    return {
        "id": f"{int(at * 1e6):020d}::{_uuid(index, part)}", "activity_type": "FILL", "transaction_time": _rfc3339(at),
        "type": event, "price": "182.25", "qty": "5", "side": "buy", "symbol": "AAPL",
        "leaves_qty": str(PARTS * 5 - part * 5), "order_id": order["id"], "cum_qty": str(part * 5),
        "order_status": order["status"],
    }  # fmt: skip


def _uuid(index: int, part: int) -> str:
    return f"{index:08x}-{part:04x}-4000-8000-0000deadbeef"


def _rfc3339(at: float) -> str:
    seconds, micros = divmod(int(at * 1e6), 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{micros:06d}Z"


class Broker:
    """Serves `orders`, on the stream after a line on standard input: all at once, or `every_seconds` apart.

    In the second case nothing of them is told over REST, so that a reconcile is not ahead of the stream.
    """

    def __init__(self, orders: Orders, *, replay: bool, every_seconds: float) -> None:
        self._orders = orders
        self._replay = replay
        self._every_seconds = every_seconds

    async def tell(self, socket: Any) -> None:
        """Greet whoever connects, and say it all, once somebody wants it."""
        await socket.recv()
        await socket.send('{"stream":"authorization","data":{"status":"authorized","action":"authenticate"}}')
        await socket.recv()
        await socket.send('{"stream":"listening","data":{"streams":["trade_updates"]}}')
        print("listening", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for frame in self._orders.updates:
            await socket.send(frame)
            if self._every_seconds:
                print(time.perf_counter_ns(), flush=True)
                await asyncio.sleep(self._every_seconds)
        await socket.wait_closed()

    def answer(self, connection: Any, request: Any) -> Any:
        """What is asked over REST; None for the stream."""
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/stream":
            return None
        if parts.path == "/v2/events/trades" and self._replay:
            answer = connection.respond(200, "".join(self._events()))
            del answer.headers["Content-Type"]
            answer.headers["Content-Type"] = "text/event-stream"
            return answer
        found = self._found(parts.path, query)
        return connection.respond(404 if found is None else 200, json.dumps(found))

    def _events(self) -> Iterator[str]:
        for frame in self._orders.updates:
            yield f"data: {frame[len(_HEAD) : -1].decode()}\n\n"

    def _found(self, path: str, query: dict[str, str]) -> Any:
        if path == "/v2/account":
            return {"id": "bench", "status": "ACTIVE"}
        if self._every_seconds or query.get("status") == "open":
            return []
        if path == "/v2/orders":
            after = query.get("after", "")
            return [one for one in self._orders.orders if one["submitted_at"] > after][: int(query["limit"])]
        if path == "/v2/account/activities/FILL":
            token = query.get("page_token", "")
            wanted = (one for one in self._orders.fills if query.get("order_id") in (None, one["order_id"]))
            return [one for one in wanted if one["id"] > token][: int(query["page_size"])]
        found = [one for one in self._orders.orders if path == f"/v2/orders/{one['id']}"]
        return found[0] if found else None


async def serve(broker: Broker) -> None:
    """Serve on a free port of the loopback, which is printed, until the process is ended."""
    from websockets.asyncio.server import serve as listen

    async with listen(
        broker.tell, "127.0.0.1", 0, process_request=broker.answer, compression=None, write_limit=1 << 20
    ) as server:  # fmt: skip
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.live_broker", description=__doc__)
    parser.add_argument("--orders", type=int, default=1000)
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--every-ms", type=float, default=0.0)
    options = parser.parse_args()
    broker = Broker(Orders(options.orders), replay=options.replay, every_seconds=options.every_ms / 1000)
    asyncio.run(serve(broker))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
