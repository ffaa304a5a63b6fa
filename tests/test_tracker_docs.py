"""The programs of docs/tracker.md, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from compactor import Ledger
from compactor.broker.adapters import find_adapter, open_broker
from compactor.sync.answers import AskedAccount
from compactor.sync.reconcile import Reconciler
from tests.alpaca_server import AlpacaServer, Faults
from tests.chaos_brokers import ENTRY
from tests.conftest import ROOT
from tests.small_broker.server import SmallServer
from tests.test_brokers import SETTINGS

PAGE = (ROOT / "compactor/docs/tracker.md").read_text()
SECONDS = 60


def program(name: str) -> str:
    """A program of the page, by the comment in front of it."""
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def fill(server: AlpacaServer | SmallServer, order_id: str, price: str, qty: int | None) -> None:
    """Fill so many shares of an order, or all that are left."""
    if isinstance(server, AlpacaServer):
        server.fill(order_id, qty, price)
    else:
        server.exchange.fill(order_id, qty, price)


class Orchestrator:
    """The orchestrator of the page in a process of its own; `said` is what it has printed."""

    def __init__(self, directory: Path, server: AlpacaServer | SmallServer) -> None:
        (directory / "orchestrator.py").write_text(program("orchestrator"))
        environ = {**os.environ, **server.environment, "PYTHONPATH": f"{ENTRY}:{ROOT}"}
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "orchestrator.py", "signals"], cwd=directory, env=environ, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)

    def count(self, word: str) -> int:
        return sum(line.startswith(word + " ") for line in list(self.said))

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(20)
        self._thread.join(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.parametrize("broker", ["alpaca", "small"])
def test_the_orchestrator_survives_faults_and_kill_9(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    """Issue 14: it ends with the broker's own orders and trades, each placed once, with either broker."""
    monkeypatch.syspath_prepend(ENTRY)
    data = tmp_path / "data"
    data.mkdir()
    if broker == "small":
        (data / "compactor.toml").write_text(SETTINGS)
    # The small broker has no unique ids, so that every answer that is lost costs a look at its lists.
    names = [f"s{number}" for number in range(16 if broker == "alpaca" else 12)]
    (tmp_path / "signals").write_text("".join(f"{name} buy 2 SPY 529.98\n" for name in names))
    faults = Faults(
        seed=7, drop=0.1, double=0.1, reorder=0.1, disconnect=0.02, server_error=0.1, html_page=0.05, cut_body=0.05,
        crash_after_accept=0.1,
    )  # fmt: skip
    if broker == "small":
        faults.cut_body = 0.0  # The small broker's client waits half a minute for the rest.
    server: AlpacaServer | SmallServer
    server = SmallServer(5, faults=faults) if broker == "small" else AlpacaServer(5, rate_limit=None, faults=faults)
    with server:
        first = Orchestrator(tmp_path, server)
        try:
            wait_for(lambda: first.count("placed") >= 5, "five orders are placed")
            for order_id in list(server.truth().open)[:3]:
                fill(server, order_id, "529.90", 1)
        finally:
            first.end(signal.SIGKILL)

        second = Orchestrator(tmp_path, server)
        try:
            wait_for(lambda: len(server.truth().orders) == len(names), "every signal is placed")
            for number, order_id in enumerate(list(server.truth().open)):
                if number % 3 == 0:
                    fill(server, order_id, "529.91", 1)
                if number % 3 == 1:
                    fill(server, order_id, "529.92", None)
            wait_for(lambda: second.count("placed") + second.count("refused") == len(names), "all have an answer")
            server.calm()
            wait_for(lambda: bool(second.count("trade")), "a trade is reported")
        finally:
            second.end(signal.SIGINT)
        assert len(names) == len({order.client_order_id for order in server.truth().orders.values()})

        credentials = find_adapter(broker).find_credentials(server.environment, names=None, live=False, url=None)
        done = Reconciler(data, [AskedAccount("default", open_broker(credentials))]).run(settle=True)
        assert ({}, [], []) == (done.errors, done.waiting, done.problems)
        with Ledger(data / "team/alpha") as ledger:
            ledger.compact()
            assert set(server.truth().open) == {one.order_id for one in ledger.pending_orders()}
            told: dict[str, Counter[tuple[Decimal, Decimal]]] = {}
            for trade in ledger.trades():
                told.setdefault(trade.order_id, Counter())[trade.quantity, trade.execution_price] += 1
        sums = {order_id: sum(quantity * n for (quantity, _), n in found.items()) for order_id, found in told.items()}
        truth = {
            order_id: sum(quantity * n for (quantity, _), n in found.items())
            for order_id, found in server.truth().fills.items()
        }
        assert truth == sums


@pytest.fixture
def filled_data(tmp_path: Path, placed: Callable[..., Any], filled: Callable[..., Any]) -> Path:
    """A data directory with an open order and a trade of team alpha."""
    with Ledger(tmp_path / "data/team/alpha") as ledger:
        ledger.append([placed("o1"), filled("o1"), placed("o2")])
        ledger.compact()
    return tmp_path


def test_the_session_has_frames(filled_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 14: pending orders and trades as frames, refreshing."""
    pytest.importorskip("polars")
    monkeypatch.chdir(filled_data)
    session: dict[str, Any] = {}
    exec(program("jupyter"), session)
    try:
        assert ["o2"] == session["pending"]["order_id"].to_list()
        assert [Decimal("530")] == session["pending"]["limit_price"].to_list()
        assert [Decimal("529.98")] == session["trades"]["execution_price"].to_list()
        assert "Datetime" in str(session["trades"]["timestamp"].dtype)
    finally:
        session["tracker"].close()


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    """A server that takes messages."""
    got: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", got
        server.shutdown()
        thread.join()


def test_each_fill_is_a_message(
    filled_data: Path, hook: tuple[str, list[str]], placed: Callable[..., Any], filled: Callable[..., Any]
) -> None:
    """Issue 14: a webhook on each fill; a restart tells only what is new."""
    url, got = hook
    (filled_data / "hook.py").write_text(program("webhook"))
    for number in (1, 2):
        if number == 2:
            Ledger(filled_data / "data/team/bravo").append([placed("o3"), filled("o3")])
        process = subprocess.Popen(
            [sys.executable, "hook.py", url], cwd=filled_data, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        try:
            wait_for(lambda wanted=number: len(got) >= wanted, "a message")  # type: ignore[misc]
            wait_for((filled_data / "seen.json").exists, "the offset is written")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert "alpha: fill buy 10 SPY at 529.98" == got[0]
    assert "bravo: fill buy 10 SPY at 529.98" == got[-1]


def test_an_application_of_fastapi_stands_on_the_tracker(filled_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 14: thirty lines."""
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    monkeypatch.chdir(filled_data)
    with AlpacaServer(seed=3, rate_limit=None) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        page: dict[str, Any] = {"__name__": "application"}
        exec(compile(program("fastapi"), "application", "exec"), page)
        with TestClient(page["app"]) as client:
            assert (filled_data / "data/team/alpha/pending_orders.jsonl").read_bytes() == client.get(
                "/alpha/pending"
            ).content
            terms = {"symbol": "SPY", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
            placed_id = client.post("/alpha/orders", json=terms).json()["order_id"]
            assert [placed_id] == list(server.truth().orders)
            assert 400 <= client.post("/alpha/orders", json={**terms, "qty": "0"}).status_code < 500
            text = client.get("/alpha/changes", params={"limit": 5}).text
            assert ["order", "order", "trade", "order", "order"] == re.findall("event: (.*)", text)
