"""The page in a headless Chromium, against a real server: live rows, trades, cancel, cut connections, keys, access.

Every page of these tests fails its test if it says anything on the console, or asks another host for anything.
Pictures of the main views are written to `build/page`.
"""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.alpaca_server.server import AlpacaServer
from tests.browser import REQUIRED, open_browser, why_not
from tests.conftest import ROOT
from tests.page_data import HOSTILE_ID, TeamLog
from tests.web_client import Served, until

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None and not REQUIRED, reason=REASON or "")
PICTURES = ROOT / "build" / "page"
WEIGHT_MAX = 150_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    assert REASON is None, REASON
    with open_browser() as one:
        yield one


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("page") / "data"
    data.mkdir()
    (data / "compactor.toml").write_text("http_requests_per_minute = 100000\n")
    log = TeamLog(data, "alpha")
    log.asks = True
    log.day(40, 14)
    TeamLog(data, "busy", 2).day(120, 500)
    TeamLog(data, "quiet", 3).day(6, 0)
    TeamLog(data, "few", 4).day(3, 7)
    one = Served(data)
    yield one
    one.close()


class Watched:
    """A page, and what it must not do."""

    def __init__(self, page: Any, own: str) -> None:
        self.page = page
        self.said: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self._check(request.url, own))
        self.weight = 0
        self.requests: list[str] = []

    def _check(self, url: str, own: str) -> None:
        self.requests.append(url)
        if not url.startswith((own, "data:")):
            self.said.append(f"asked {url}")


@contextmanager
def opened(
    browser: Any, served: Served, fragment: str, *, size: tuple[int, int] = (1400, 900), scheme: str = "light",
    url: str | None = None, is_silent: bool = True, **options: Any,
) -> Iterator[Any]:  # fmt: skip
    """A page at a fragment of the address; a new profile each time."""
    own = url or served.url
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, timezone_id="UTC", **options
    )
    watched = Watched(context.new_page(), own)
    try:
        watched.page.goto(f"{own}/#{fragment}")
        yield watched.page
        if is_silent:
            assert [] == watched.said
        assert not [one for one in watched.requests if "ck_" in one]
    finally:
        context.close()


def rows(page: Any, table: str = "orders") -> list[str]:
    found: list[str] = page.locator(f"#{table}-table > tbody > tr:not(.fills)").evaluate_all(
        "all => all.map(one => one.dataset.key)"
    )
    return found


def see(page: Any, table: str, key: str) -> Any:
    """Wait until a table has a row."""
    found = page.locator(f'#{table}-table tr[data-key="{key}"]')
    found.wait_for(timeout=10_000)
    return found


def picture(page: Any, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    # Rows that appear slowly are shown as they will be.
    page.screenshot(path=str(PICTURES / f"{name}.png"), animations="disabled")


def watch_news(page: Any, table: str) -> None:
    """Keep the classes of rows that a table gets from now on, in `window.news`."""
    page.evaluate(
        "(table) => { window.news = []; new MutationObserver((all) => all.forEach((one) => one.addedNodes.forEach("
        "(row) => window.news.push(row.className)))).observe("
        "document.querySelector(`#${table}-table tbody`), { childList: true }) }",
        table,
    )


# Live.


def test_an_event_appears_without_a_reload_and_a_filled_order_moves_to_the_trades(browser: Any, served: Served) -> None:
    """An appended event appears in the table; a filled order leaves it and appears among the trades."""
    log = TeamLog(served.data, "live")
    log.place(60, symbol="KO")
    with opened(browser, served, f"key={served.key('live')}") as page:
        page.locator("#orders-table tbody tr").first.wait_for()
        assert 0 == page.locator("tr.new").count(), "what was there before is no news"
        watch_news(page, "orders")
        order = log.place(symbol="SPY", quantity="30")
        row = see(page, "orders", order["order_id"])
        assert "0 / 30" in row.inner_text()
        assert ["new"] == page.evaluate("() => window.news")
        page.wait_for_function("() => document.querySelector('tr.new') === null")
        log.fill(order, 10, 10)
        page.wait_for_function(
            "text => document.querySelector('#orders-table').textContent.includes(text)", arg="10 / 30"
        )
        assert "partially filled" in row.inner_text()
        log.fill(order, 20, 30)
        row.wait_for(state="detached", timeout=10_000)
        assert 2 == page.locator("#trades-table tbody tr").count()
        assert "1" == page.locator("#orders-count").inner_text()


def test_requests_without_an_order_stand_above_the_open_orders(browser: Any, served: Served) -> None:
    """On its way, refused, never placed; and the origin of an order once it is one."""
    log = TeamLog(served.data, "asked")
    log.place(30, client_order_id="elsewhere", symbol="KO")
    with opened(browser, served, f"key={served.key('asked')}") as page:
        page.locator("#orders-table tbody tr").first.wait_for()
        assert page.locator("#asked").is_hidden()
        log.ask("asked:1", symbol="SPY", note="signal 7")
        row = see(page, "asked", "asked:1")
        assert "submitting" in row.inner_text() and "signal 7" in row.inner_text()
        log.ask("asked:2", symbol="NVDA")
        log.conclude("asked:2", "refused", code="40310000", reason="insufficient buying power")
        page.locator("#asked-table tr[data-mark=refused]").wait_for()
        assert "insufficient buying power (40310000)" in page.locator("#asked-table").inner_text()
        picture(page, "asked")
        order = log.place(client_order_id="asked:1", symbol="SPY")
        log.conclude("asked:1", "submitted", broker_order_id=order["order_id"])
        row.wait_for(state="detached")
        assert "submitted here" in see(page, "orders", order["order_id"]).inner_text()
        assert "adopted" in page.locator("#orders-table").inner_text()


def test_a_change_patches_its_cells_and_leaves_selection_focus_and_scroll(browser: Any, served: Served) -> None:
    """Cells are patched, never a table redrawn."""
    log = TeamLog(served.data, "patch")
    orders = [log.place(600 - number, symbol="SPY", quantity="100") for number in range(60)]
    with opened(browser, served, f"key={served.key('patch')}", size=(1400, 500)) as page:
        row = see(page, "orders", orders[10]["order_id"])
        row.locator("button.link").focus()
        page.evaluate("""() => {
            window.scrollTo(0, 400);
            window.nodes = [...document.querySelectorAll('#orders-table > tbody > tr')];
            const cell = window.nodes[5].querySelector('td[data-column="type"]');
            getSelection().selectAllChildren(cell);
        }""")
        before = page.evaluate("[getSelection().toString(), scrollY, document.activeElement.closest('tr').dataset.key]")
        assert before[0]
        log.fill(orders[10], 10, 10)
        log.fill(orders[30], 10, 10)
        page.wait_for_function(
            "() => document.querySelector('#orders-table').textContent.split('10 / 100').length === 3"
        )
        after = page.evaluate("[getSelection().toString(), scrollY, document.activeElement.closest('tr').dataset.key]")
        assert before == after
        assert page.evaluate(
            "[...document.querySelectorAll('#orders-table > tbody > tr')].every((one, at) => one === nodes[at])"
        )


class Relay:
    """A relay in front of the server whose connections can be cut."""

    def __init__(self, served: Served) -> None:
        self._to = (served.host, served.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: list[socket.socket] = []
        self.is_down = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_down:
                    client.close()
                    continue
                server = socket.create_connection(self._to)
                self._pairs += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Cut every connection, and refuse new ones."""
        self.is_down = True
        for one in self._pairs:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._pairs.clear()

    def close(self) -> None:
        self.cut()
        self._listener.close()


def test_a_cut_connection_resumes_without_a_gap_and_says_so_meanwhile(browser: Any, served: Served) -> None:
    """Last rows stay visible and turn grey; afterwards everything that happened is there."""
    log = TeamLog(served.data, "cut")
    first = log.place(symbol="SPY", quantity="5")
    relay = Relay(served)
    try:
        with opened(browser, served, f"key={served.key('cut')}", url=relay.url, is_silent=False) as page:
            row = see(page, "orders", first["order_id"])
            relay.cut()
            second = log.place(symbol="KO", quantity="7")
            log.fill(first, 5, 5)
            page.wait_for_function("() => document.documentElement.dataset.late === 'true'", timeout=20_000)
            assert row.is_visible()
            assert "no word from the server" in page.locator("#late").inner_text()
            picture(page, "stale")
            relay.is_down = False
            see(page, "orders", second["order_id"])
            row.wait_for(state="detached", timeout=20_000)
            assert 1 == page.locator("#trades-table tbody tr").count()
            page.wait_for_function("() => document.documentElement.dataset.late === 'false'", timeout=20_000)
    finally:
        relay.close()


def test_a_log_that_takes_the_place_of_another_one_is_shown_alone(browser: Any, served: Served) -> None:
    """The page reads everything again by itself, also where the new log is longer than the old one."""
    log = TeamLog(served.data, "other")
    old = log.place(symbol="SPY")
    key = served.key("other")
    with opened(browser, served, f"key={key}") as page:
        row = see(page, "orders", old["order_id"])
        shutil.rmtree(log.path.parent)
        page.wait_for_function("() => document.documentElement.dataset.late === 'true'", timeout=20_000)
        assert row.is_visible(), "what is live at the broker is never missing"
        new = TeamLog(served.data, "other", 2)
        orders = [new.place(number, symbol="KO") for number in range(4)]
        see(page, "orders", orders[-1]["order_id"])
        row.wait_for(state="detached", timeout=20_000)
        assert {one["order_id"] for one in orders} == set(rows(page))


def test_cancel_asks_first_names_paper_and_reaches_the_broker(browser: Any, tmp_path: Path) -> None:
    """`compactor run --http` against the local Alpaca: the order is canceled there, and leaves the table."""
    with AlpacaServer(1) as broker:
        served = Served(tmp_path, command="run", environ=broker.environment)
        try:
            until(lambda: broker.listeners, "the stream")
            orders = [
                broker.place("AAPL", "buy", 10, client_order_id=f"alpha:{n}", type="limit", limit_price="100")
                for n in range(3)
            ]
            key = served.key("alpha")
            until(
                lambda: served.get("/api/v1/team/alpha/status", key).json().get("open_orders_count") == 3, "the orders"
            )
            with opened(browser, served, f"key={key}") as page:
                row = see(page, "orders", orders[0].id)
                page.wait_for_function(
                    "() => document.querySelector('#fresh-stream').textContent.includes('connected')", timeout=15_000
                )
                row.locator("button.cancel").click()
                assert "Paper trading" == page.locator("#confirm-kind").inner_text()
                picture(page, "cancel")
                page.locator("#confirm button[value=keep]").click()
                assert row.is_visible()
                row.locator("button.cancel").click()
                page.locator("#confirm-yes").click()
                row.wait_for(state="detached", timeout=20_000)
                assert orders[0].id not in broker.truth().open
                page.locator("#cancel-all").click()
                assert "Cancel all 2 open orders of alpha?" == page.locator("#confirm-title").inner_text()
                page.locator("#confirm-yes").click()
                page.wait_for_function(
                    "() => document.querySelector('#orders-count').textContent === '0'", timeout=20_000
                )
                assert not broker.truth().open
                page.wait_for_function(
                    "() => document.querySelector('#fresh-reconcile').textContent.startsWith('Reconciled')",
                    timeout=15_000,
                )
        finally:
            assert 0 == served.close()


# Who sees what.


def test_a_wrong_key_shows_nothing(browser: Any, served: Served) -> None:
    """Neither rows nor names of teams; and a key that is revoked while it is looked at loses its page."""
    with opened(browser, served, "key=ck_wrong_key", is_silent=False) as page:
        page.locator("#sign-in").wait_for()
        assert "not known" in page.locator("#sign-in-reason").inner_text()
        assert "alpha" not in page.content()
        page.fill("#key", served.key("alpha"))
        page.click("#sign-in button[type=submit]")
        page.locator("#orders-table tbody tr").first.wait_for()
    made = served.keys.create("alpha")
    with opened(browser, served, f"key={made.key}", is_silent=False) as page:
        page.locator("#orders-table tbody tr").first.wait_for()
        assert "key" not in page.evaluate("location.href")
        served.keys.revoke(made.key_id)
        TeamLog(served.data, "alpha", 9).place(symbol="KO")
        page.locator("#sign-in").wait_for(timeout=20_000)
        assert "NVDA" not in page.inner_text("main")


def test_a_key_that_may_only_read_has_no_cancel(browser: Any, served: Served) -> None:
    """The button says why."""
    with opened(browser, served, f"key={served.key('alpha', read_only=True)}") as page:
        button = page.locator("#orders-table button.cancel").first
        button.wait_for()
        assert (True, "This key may only read") == (button.is_disabled(), button.get_attribute("title"))


def test_a_hostile_client_order_id_is_shown_as_text(browser: Any, served: Served) -> None:
    """In the table, in the story, in a finding: never as HTML."""
    log = TeamLog(served.data, "hostile")
    order = log.place(client_order_id=HOSTILE_ID, symbol="<b>SPY</b>", status="<i>odd</i>")
    with opened(browser, served, f"key={served.key('hostile')}") as page:
        row = see(page, "orders", order["order_id"])
        page.locator("#orders-columns summary").click()
        page.locator("#orders-columns label", has_text="Client id").locator("input").check()
        assert HOSTILE_ID.replace("\u202e", "") in row.inner_text().replace("\u202e", "")
        row.locator("button.link").click()
        page.locator("#story .timeline li").first.wait_for()
        assert "<img" in page.locator("#story").inner_text()
        assert 0 == page.locator("main img, main b, main i, #story img, #story script, #story b").count()
        assert page.title() not in ("1", "2")
        assert order["order_id"] in page.evaluate("location.hash")


def test_an_administrator_sees_all_teams_and_goes_from_one_to_another(browser: Any, served: Served) -> None:
    """An overview with freshness, and a switcher."""
    with opened(browser, served, f"key={served.key(None)}") as page:
        for team in ("alpha", "busy", "quiet"):
            page.locator("#overview-table tbody tr", has_text=team).first.wait_for()
        assert {"alpha", "busy", "quiet"} <= set(rows(page, "overview"))
        picture(page, "all-teams")
        page.locator("#overview-table button", has_text="alpha").click()
        page.locator("#orders-table tbody tr").first.wait_for()
        assert "#team=alpha" == page.evaluate("location.hash")
        watch_news(page, "trades")
        page.select_option("#team-choice", "quiet")
        page.wait_for_function("() => document.querySelector('#orders-empty').textContent.includes('No open orders')")
        assert "not reconciled with the broker yet" in page.locator("#orders-empty").inner_text()
        page.locator("#trades-table tbody tr").first.wait_for()
        assert {""} == set(page.evaluate("() => window.news")), "the trades of another team are no news"
        picture(page, "empty")


# Reading it.


def test_the_story_of_an_order_can_be_shared_as_a_link(browser: Any, served: Served) -> None:
    """Timeline, changes, trades and the broker's message; the link opens it again."""
    log = TeamLog(served.data, "story")
    order = log.place(120, symbol="MSFT", quantity="30")
    log.fill(order, 10, 10, 60)
    key = served.key("story")
    with opened(browser, served, f"key={key}&order={order['order_id']}") as page:
        page.locator("#story .timeline li").nth(1).wait_for()
        text = page.locator("#story").inner_text()
        assert "partial fill" in text and "0 → 10" in text and "The broker's message" in text
        page.locator("#story details summary").last.click()
        assert '"event": "fill"' in page.locator("#story pre").last.inner_text()
        picture(page, "story")
        log.fill(order, 10, 20)
        page.locator("#story .timeline li").nth(2).wait_for(timeout=10_000)
        assert page.locator("#story details[open]").count() == 1
        page.keyboard.press("Escape")
        assert page.locator("#story").is_hidden()
        assert order["order_id"] not in page.evaluate("location.hash")


def test_brackets_stand_together_fills_expand_and_empty_columns_vanish(browser: Any, served: Served) -> None:
    """Orders of one bracket with their roles; fills under their order."""
    log = TeamLog(served.data, "bracket")
    entry = log.bracket(300)
    log.place(400, symbol="KO", quantity="40", order_type="market", limit_price=None, stop_price=None)
    log.place(200, symbol="KO", quantity="40", order_type="market", limit_price=None, stop_price=None)
    log.fill(entry, 25, 25, 10)
    with opened(browser, served, f"key={served.key('bracket')}") as page:
        row = see(page, "orders", entry["order_id"])
        symbols = page.locator("#orders-table td[data-column=symbol] button.link").all_inner_texts()
        assert ["KO", "NVDA", "NVDA", "NVDA", "KO"] == symbols
        roles = page.locator("#orders-table td[data-column=role]").all_inner_texts()
        assert ["", "entry", "target", "stop", ""] == roles
        assert page.locator("#orders-table th[data-column=trail]").is_hidden()
        assert page.locator("#orders-table th[data-column=limit]").is_visible()
        row.locator("button.more").click()
        page.locator("tr.fills li").wait_for()
        assert "buy 25 at" in page.locator("tr.fills").inner_text()


def test_filter_sort_columns_and_time_zone_are_remembered(browser: Any, served: Served) -> None:
    """Also across a reload; a filter in its tab only, and it is plain to see that it hides something."""
    key = served.key("alpha")
    with opened(browser, served, f"key={key}") as page:
        page.locator("#orders-table tbody tr").first.wait_for()
        page.locator("#orders-table th[data-column=symbol] button").click()
        symbols = page.locator("#orders-table td[data-column=symbol] button.link").all_inner_texts()
        page.select_option("#zone", "America/New_York")
        page.keyboard.press("/")
        page.keyboard.type("nvda sell")
        page.wait_for_function("() => document.querySelector('#orders-count').textContent.includes(' of ')")
        assert {"NVDA"} == set(page.locator("#orders-table td[data-column=symbol] button.link").all_inner_texts())
        page.reload()
        page.locator("#orders-table tbody tr").first.wait_for()
        assert "nvda sell" == page.locator("#orders-filter").input_value()
        assert " of " in page.locator("#orders-count").inner_text()
        page.fill("#orders-filter", "")
        assert symbols == page.locator("#orders-table td[data-column=symbol] button.link").all_inner_texts()
        assert "America/New_York" == page.locator("#zone").input_value()
        assert "ascending" == page.locator("#orders-table th[data-column=symbol]").get_attribute("aria-sort")


def test_arrow_keys_go_from_row_to_row(browser: Any, served: Served) -> None:
    """Keyboard: rows, the story, and back."""
    with opened(browser, served, f"key={served.key('alpha')}") as page:
        first = page.locator("#orders-table button.link").first
        first.wait_for()
        first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.locator("#story .timeline li").first.wait_for()
        assert rows(page)[1] in page.evaluate("location.hash")
        page.keyboard.press("Escape")
        assert rows(page)[1] == page.evaluate("document.activeElement.closest('tr').dataset.key")


@pytest.mark.parametrize("view", ["desk", "story", "overview", "sign-in", "phone", "reference"])
def test_axe_finds_nothing_serious(browser: Any, served: Served, view: str) -> None:
    """axe-core, in both colour schemes."""
    from axe_playwright_python.sync_playwright import Axe

    size = (390, 844) if view == "phone" else (1400, 900)
    fragment = {"overview": f"key={served.key(None)}", "sign-in": ""}.get(view, f"key={served.key('few')}")
    with opened(browser, served, fragment, size=size, bypass_csp=True, reduced_motion="reduce") as page:
        if view == "reference":
            page.goto(f"{served.url}/api")
            page.locator(".operation").first.wait_for()
            page.locator(".operation summary").first.click()
        elif view in ("desk", "story", "phone"):
            page.locator("#orders-table tbody tr").first.wait_for()
        if view == "story":
            page.locator("#orders-table button.link").first.click()
            page.locator("#story .timeline li").first.wait_for()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = Axe().run(page).response["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert [] == [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in serious]


def test_a_phone_shows_cards_of_two_lines_and_cuts_no_number(browser: Any, served: Served) -> None:
    """Container queries; numbers never cut or wrapped, nothing to scroll sideways."""
    with opened(browser, served, f"key={served.key('alpha')}", size=(390, 844)) as page:
        page.locator("#orders-table tbody tr").first.wait_for()
        heights = page.locator("#orders-table > tbody > tr").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().height)"
        )
        assert max(heights) < 72, (
            page.locator("#orders-table > tbody > tr").nth(heights.index(max(heights))).inner_text()
        )
        cut = page.locator("td.number").evaluate_all(
            "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).length"
        )
        assert 0 == cut
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        picture(page, "phone")


def test_nothing_scrolls_sideways_at_any_width(browser: Any, served: Served) -> None:
    """A phone, a tablet, half of a screen: whatever does not fit goes below, or is left out where it says least."""
    with opened(browser, served, f"key={served.key('alpha')}", size=(390, 900)) as page:
        page.locator("#orders-table tbody tr").first.wait_for()
        wide: dict[int, list[object]] = {}
        for width in (320, 390, 480, 560, 600, 640, 700, 768, 820, 900, 1000, 1100, 1200, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            found = page.locator(".scroll, html").evaluate_all(
                "all => all.map(one => [one.firstElementChild.id, one.scrollWidth - one.clientWidth])"
                ".filter(([_, over]) => over > 1)"
            )
            wide |= {width: found} if found else {}
        assert {} == wide
        page.set_viewport_size({"width": 620, "height": 900})
        picture(page, "narrow")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "team", "size"),
    [("desk", "alpha", (1400, 900)), ("busy", "busy", (1400, 900)), ("wall", "alpha", (2560, 1440))],
)
def test_pictures_of_the_main_views(
    browser: Any, served: Served, name: str, team: str, size: tuple[int, int], scheme: str
) -> None:
    """Desktop, wall and busy, in both colour schemes: no number is cut on any of them."""
    with opened(browser, served, f"key={served.key(team)}", size=size, scheme=scheme) as page:
        page.locator("#orders-table tbody tr").first.wait_for()
        assert 0 == page.locator("td.number").evaluate_all(
            "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).length"
        )
        picture(page, f"{name}-{scheme}")


def test_the_page_weighs_little(served: Served) -> None:
    """Under 150 kB over the wire, and each file comes with an ETag."""
    page = served.get("/").text
    seen, waiting, weight = {""}, re.findall(r'"(/page/[^"]+)"', page), 0
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = served.get(path, headers={"Accept-Encoding": "gzip"}, stream=True)
        weight += len(answer.raw.read())
        if path.endswith(".js"):
            text = served.get(path).text
            waiting += [f"/page/{name}" for name in re.findall(r'from "\./([^"]+)"', text)]
        assert 304 == served.get(path, headers={"If-None-Match": answer.headers["ETag"]}).status_code
    assert weight + len(page) < WEIGHT_MAX
    assert {"/page/main.js", "/page/table.js", "/page/style.css"} <= seen


def test_what_is_vendored_is_what_its_checksum_says() -> None:
    """With its licence."""
    from hashlib import sha256

    vendor = ROOT / "compactor/web/page/vendor"
    listed = dict(re.findall(r"^([0-9a-f]{64})  (\S+)$", (vendor / "README.txt").read_text(), re.MULTILINE))
    listed = {name: digest for digest, name in listed.items()}
    found = {
        path.name: sha256(path.read_bytes()).hexdigest() for path in vendor.iterdir() if path.suffix in (".js", ".css")
    }
    assert found == listed
    assert "MIT" in (vendor / "uplot.LICENSE.txt").read_text()


def test_the_page_is_right_again_after_the_machine_slept(browser: Any, served: Served) -> None:
    """Timers that stood still wake it up: it listens again at once."""
    log = TeamLog(served.data, "sleep")
    log.place(symbol="KO")
    with opened(browser, served, f"key={served.key('sleep')}", is_silent=False) as page:
        page.locator("#orders-table tbody tr").first.wait_for()
        started = time.monotonic()
        page.clock.install()
        page.clock.fast_forward(3_600_000)
        order = log.place(symbol="SPY")
        see(page, "orders", order["order_id"])
        assert time.monotonic() - started < 20
