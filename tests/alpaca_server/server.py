"""The whole broker as one object: a thread with an event loop that serves HTTP and WebSocket on loopback.

What it serves is in the modules beside this one. Note: the control methods may be called from any
thread and return when the thing has happened, which is before anybody who listens has heard of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from aiohttp import web

from tests.alpaca_server import rest
from tests.alpaca_server.account import Account
from tests.alpaca_server.book import Number
from tests.alpaca_server.exchange import Exchange
from tests.alpaca_server.faults import SHARES, Faults
from tests.alpaca_server.life import TEAMS, Life
from tests.alpaca_server.orders import Execution, Order
from tests.alpaca_server.resend import Resend
from tests.alpaca_server.stream import Stream
from tests.alpaca_server.truth import Truth, truth_of

KEY, SECRET = "PKTEST0000000000", "secret-of-the-test-account"


class AlpacaServer:
    """A broker on loopback; see the package's docstring for how to use it.

    `start` (RFC 3339) makes the clock a simulated one. `keys` are pairs of key and secret, one account each. `resend`
    is True for both endpoints, or names one ("trades", "activities"). `plain` leaves out the wire's oddities.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        start: str | None = None,
        port: int = 0,
        keys: Iterable[tuple[str, str]] = ((KEY, SECRET),),
        faults: Faults | None = None,
        rate_limit: int | None = 200,
        resend: bool | str = False,
        binary: bool = True,
        plain: bool = False,
        dead_seconds: float = 90.0,
    ) -> None:
        self.faults = faults or Faults()
        self.accounts = {
            key: Account(key, secret, seed=seed + number, start=start, plain=plain)
            for number, (key, secret) in enumerate(keys)
        }
        self.account = next(iter(self.accounts.values()))
        self.key, self.secret = self.account.key, self.account.secret
        self.exchange: Exchange = self.account.exchange
        self.clock = self.exchange.clock.unix
        self.life = Life(self.exchange, seed)
        self.gate = rest.Gate(self.accounts, self.faults, rate_limit)
        self.stream = Stream(self.accounts, self.faults, binary=binary, dead_seconds=dead_seconds)
        both = {"trades", "activities"}
        self.resend = Resend(frozenset(both if resend is True else {resend} if isinstance(resend, str) else ()))
        self.port = port
        self._resets = 0
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What `url_override` of TradingClient is; APCA_API_BASE_URL too."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream_url(self) -> str:
        """What `url_override` of TradingStream is."""
        return f"ws://127.0.0.1:{self.port}/stream"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a program here, for paper trading with the first account's keys, and name the teams
        that trade here."""
        keys = {"APCA_API_KEY_ID": self.key, "APCA_API_SECRET_KEY": self.secret, "APCA_API_BASE_URL": self.url}
        return keys | {"COMPACTOR_TEAMS": ",".join((*TEAMS, "alice", "bob"))}

    @property
    def requests(self) -> list[str]:
        """All requests so far, as "METHOD /path?query"."""
        return self.gate.seen

    def __enter__(self) -> AlpacaServer:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Serve, from a thread of its own; returns when the port is open."""
        self._thread = threading.Thread(target=self._loop.run_forever, name="alpaca-server", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    def close(self) -> None:
        """Cut all connections and end the thread. The truth stays readable."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        app = web.Application()
        gate = self.gate.wrap
        app.router.add_get("/stream", self.stream.handle)
        app.router.add_get("/v2/account", gate(rest.get_account))
        app.router.add_get("/v2/positions", gate(rest.get_positions))
        app.router.add_get("/v2/account/activities", gate(rest.get_activities))
        app.router.add_get("/v2/account/activities/FILL", gate(rest.get_fills))
        app.router.add_post("/v2/orders", gate(rest.post_order))
        app.router.add_get("/v2/orders", gate(rest.get_orders))
        app.router.add_delete("/v2/orders", gate(rest.delete_orders))
        app.router.add_get("/v2/orders:by_client_order_id", gate(rest.get_by_client_id))
        app.router.add_get("/v2/orders/{id}", gate(rest.get_order))
        app.router.add_patch("/v2/orders/{id}", gate(rest.patch_order))
        app.router.add_delete("/v2/orders/{id}", gate(rest.delete_order))
        app.router.add_get("/v2/events/trades", gate(self.resend.trades))
        app.router.add_get("/v2beta1/events/activities", gate(self.resend.activities))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def _close(self) -> None:
        for session in list(self.stream.sessions):
            session.leave()
            session.abort()
        if self._runner is not None:
            await self._runner.cleanup()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.sleep(0)

    # What happens at the broker. Each of these is the exchange's method of that name.

    def place(self, symbol: str = "AAPL", side: str = "buy", qty: Number | None = None, **terms: Any) -> Order:
        return self.exchange.place(symbol, side, qty, **terms)

    def fill(self, order_id: str, qty: Number | None = None, price: Number | None = None) -> Execution | None:
        return self.exchange.fill(order_id, qty, price)

    def cancel(self, order_id: str, *, wait: bool = False) -> None:
        self.exchange.cancel(order_id, wait=wait)

    def replace(self, order_id: str, **terms: Any) -> Order:
        return self.exchange.replace(order_id, **terms)

    def expire(self, order_id: str) -> None:
        self.exchange.expire(order_id)

    def bust(self, execution_id: str) -> None:
        self.exchange.bust(execution_id)

    def correct(self, execution_id: str, qty: Number, price: Number) -> str:
        return self.exchange.correct(execution_id, qty, price)

    def live(self, steps: int) -> None:
        """A random, seeded life of so many steps."""
        self.life.live(steps)

    def truth(self) -> Truth:
        """What is true now."""
        return truth_of(self.exchange)

    # What goes wrong.

    def fail_next(self, request: str, fault: str, times: int = 1) -> None:
        """Let the next requests whose "METHOD /path" contains `request` meet a fault, by its name in Faults."""
        self.gate.scripted += [(request, fault)] * times

    def refuse(self, kind: str = "unauthorized") -> None:
        """Refuse all requests and streams from now on, as the broker (`unauthorized`, `forbidden`) or as a gateway
        (`page`) does; streams that are open are closed."""
        self.gate.refusal = self.stream.refusal = kind
        self.disconnect()

    def accept(self) -> None:
        """Refuse nobody from now on."""
        self.gate.refusal = self.stream.refusal = None

    def poison(self, order_id: str, fault: str = "bad_request") -> None:
        """Let every request for this order by its id meet a fault."""
        self.gate.poisoned[order_id] = fault

    def withhold(self) -> None:
        """Let activities of executions come late: none is told from now on."""
        self.resend.withhold(self.account)

    def backfill(self) -> None:
        """Tell the activities that were withheld, with their old time."""
        self.resend.backfill(self.account)

    def reset(self) -> None:
        """Reset the paper account: it has other keys and another id now, and its orders answer 404."""
        account = self.account
        del self.accounts[account.key]
        self._resets += 1
        account.reset(f"{KEY}-{self._resets}", f"{SECRET}-{self._resets}")
        self.accounts[account.key] = account
        self.key, self.secret = account.key, account.secret
        self.resend.forget(account)
        self.gate.poisoned.clear()
        self.disconnect()

    def calm(self) -> None:
        """No faults from now on. What was withheld is told now; a clock that is wrong stays wrong."""
        self.accept()
        self.gate.poisoned.clear()
        self.resend.calm()
        if self.account.withheld_since is not None:
            self.backfill()
        for name in SHARES:
            setattr(self.faults, name, 0.0)
        self.gate.scripted.clear()

    def disconnect(self) -> None:
        """Close all streams from the broker's side."""
        self._run_for_sessions("close")

    def go_mute(self) -> None:
        """The streams that are open now say nothing any more, and answer pings."""
        for session in self.stream.sessions:
            session.mute = True

    def go_half_open(self) -> None:
        """The streams that are open now neither say nor answer anything, and stay."""
        self._run_for_sessions("go_half_open")

    def settle(self) -> None:
        """Wait until the streams have told all that happened so far, or lost it."""
        self._run_for_sessions("settle")

    def send_frame(self, frame: bytes) -> None:
        """Send bytes of your own to all who listen."""
        self._run_for_sessions("_send_bytes", frame)

    @property
    def listeners(self) -> int:
        """How many streams listen to trade updates now."""
        return sum(session.listening for session in self.stream.sessions)

    def _run_for_sessions(self, method: str, *arguments: Any) -> None:
        for session in list(self.stream.sessions):
            asyncio.run_coroutine_threadsafe(getattr(session, method)(*arguments), self._loop).result(10)


__all__ = ["KEY", "SECRET", "TEAMS", "AlpacaServer"]
