"""Importing old files: nothing counts twice and nothing is lost, wherever the import is stopped."""

import errno
import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor.imports import legacy, writer
from compactor.imports.earlier import Earlier, recall_lines
from compactor.imports.legacy import OldFiles, find_old_directories, import_legacy, put_away
from compactor.imports.old_layout import read_old_lines
from compactor.imports.old_orders import ORDERS, TRADES
from compactor.ledger import Ledger
from compactor.ledger.files import Files
from compactor.ledger.log_writer import append_lines
from tests.imported import by_team, read_derived, read_files, sum_positions

FIXTURES = Path(__file__).parent.parent / "fixtures"
OLD, EXPECTED = FIXTURES / "legacy" / "old", FIXTURES / "legacy" / "expected"
T = "2026-03-02T14:30:00Z"


def _without_addresses(path: Path) -> list[Any]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("trade_id", "offset")} for row in rows]


def test_old_files_become_the_expected_ledgers(tmp_path: Path) -> None:
    """fixtures/legacy: two teams, trades with and without orders, torn lines; each share comes out once."""
    teams = by_team(import_legacy(OLD, tmp_path / "data"))
    for expected in sorted(EXPECTED.glob("team/*/*.jsonl")):
        name = expected.relative_to(EXPECTED)
        assert [json.loads(line) for line in expected.read_text().splitlines()] == _without_addresses(
            tmp_path / "data" / name
        )
    assert [(4, "not_json"), (11, "not_json")] == [(found.line, found.kind) for found in teams["alpha"].problems]
    assert (13, 6) == (teams["alpha"].lines_read, teams["beta"].lines_read)
    assert not list((tmp_path / "data").rglob("findings.jsonl"))


def test_old_files_again_add_nothing(tmp_path: Path) -> None:
    """From the directory, from one team's directory, or from a single file: the same lines are the same events."""
    import_legacy(OLD, tmp_path / "data")
    before = read_files(tmp_path / "data")
    for path in (OLD, OLD / "team/alpha", OLD / "team/beta/pending_orders.jsonl", OLD / "team/alpha/trades.jsonl"):
        assert {0} == {team.events_appended for team in by_team(import_legacy(path, tmp_path / "data")).values()}
        assert before == read_files(tmp_path / "data")
    assert OLD.joinpath("team/alpha/pending_orders.jsonl").exists()


def test_a_file_that_grew_adds_what_is_new(tmp_path: Path) -> None:
    """The old program may still run: its file is imported again, and a trade it wrote later is no second trade."""
    lines = (OLD / "team/alpha/pending_orders.jsonl").read_text().splitlines(keepends=True)
    trade = (OLD / "team/alpha/trades.jsonl").read_text().splitlines(keepends=True)[0]
    (tmp_path / "old.jsonl").write_text("".join(lines[:6]))
    import_legacy(tmp_path / "old.jsonl", tmp_path / "data")
    (tmp_path / "old.jsonl").write_text("".join(lines[:7]))
    (tmp_path / "trades.jsonl").write_text(trade)
    assert 2 == by_team(import_legacy(tmp_path / "old.jsonl", tmp_path / "data"))["alpha"].events_appended
    assert {"AAPL": Decimal(100), "MSFT": Decimal(-20)} == sum_positions(tmp_path / "data/team/alpha")


def test_an_order_that_was_imported_and_does_not_say_how_much_is_filled_is_named_once(tmp_path: Path) -> None:
    """The next import of a growing file tells what is new."""
    untold = _order(1, status="filled", quantity=None, notional="500", filled_qty=None)
    old, data = _old(tmp_path, [untold]), tmp_path / "data"
    assert ["unknown_fill"] == [one.kind for one in by_team(import_legacy(old, data))["alpha"].problems]
    _old(tmp_path, [untold, _order(2)])
    assert [] == by_team(import_legacy(old, data))["alpha"].problems


def _old(tmp_path: Path, orders: list[dict[str, Any]], trades: list[dict[str, Any]] | None = None) -> Path:
    """The directory of an old team with these lines."""
    home = tmp_path / "old/team/alpha"
    home.mkdir(parents=True, exist_ok=True)
    (home / "pending_orders.jsonl").write_text("".join(json.dumps(one) + "\n" for one in orders))
    (home / "trades.jsonl").write_text("".join(json.dumps(one) + "\n" for one in trades or []))
    return tmp_path / "old"


def _order(number: int, **fields: Any) -> dict[str, Any]:
    told = {
        "order_id": f"o{number}",
        "broker_order_id": f"b{number}",
        "symbol": "AAPL",
        "side": "buy",
        "quantity": "10",
    }
    return {**told, "status": "new", "filled_qty": "0", "created_at": T, "updated_at": T} | fields


def _trade(number: int, minute: int = 31, **fields: Any) -> dict[str, Any]:
    told = {"broker_order_id": f"b{number}", "symbol": "AAPL", "side": "buy", "quantity": "10", "execution_price": "7"}
    return {**told, "timestamp": f"2026-03-02T14:{minute}:00Z"} | fields


def _rows(data: Path) -> dict[str, str]:
    """The status of each open order of team alpha."""
    return {row["order_id"]: row["status"] for row in Ledger(data / "team/alpha").rows("pending_orders")}


def test_lines_that_were_removed_or_moved_are_still_the_same(tmp_path: Path) -> None:
    """Old files get rotated: without their first lines, or in another order, they add and book nothing twice."""
    orders = [_order(n, status="filled", filled_qty="10", filled_avg_price="7") for n in (1, 2, 3)]
    trades = [_trade(1), _trade(2), _trade(3), _trade(9, broker_order_id=None)]
    import_legacy(_old(tmp_path, orders, trades), tmp_path / "data")
    before = read_files(tmp_path / "data")
    for kept_orders, kept_trades in (
        (orders, trades[1:]),
        (orders[1:], trades),
        ([], trades[::-1]),
        (orders[::-1], []),
    ):
        found = by_team(import_legacy(_old(tmp_path, kept_orders, kept_trades), tmp_path / "data"))
        assert {0} == {team.events_appended for team in found.values()}
        assert before == read_files(tmp_path / "data")
    assert {"AAPL": Decimal(40)} == sum_positions(tmp_path / "data/team/alpha")


def test_what_an_earlier_version_imported_is_known(tmp_path: Path) -> None:
    """0.1.0 made its ids of the line's number; the line itself stands in `raw`."""
    orders, trades = [_order(1), _order(2)], [_trade(1)]
    import_legacy(_old(tmp_path, orders, trades), tmp_path / "data")
    log = tmp_path / "data/team/alpha/events.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for number, event in enumerate(events):
        event["event_id"] = f"digest:{number}"
        if "execution_id" in event:
            event["execution_id"] = "legacy:1"
    shutil.rmtree(tmp_path / "data")
    Ledger(log.parent).append(events)
    found = by_team(import_legacy(_old(tmp_path, orders[::-1], [_trade(5), *trades]), tmp_path / "data"))
    assert (1, 3) == (found["alpha"].events_appended, found["alpha"].duplicates)


def test_a_later_trade_takes_no_earlier_one_from_its_order(tmp_path: Path) -> None:
    """Matching by value looks at new trades only: what is in the log stays where it is."""
    first = _order(1, broker_order_id=None, quantity="10")
    trade = _trade(1, broker_order_id=None)
    import_legacy(_old(tmp_path, [first], [trade]), tmp_path / "data")
    nearer = _order(2, broker_order_id=None, updated_at="2026-03-02T14:31:00Z", status="filled", filled_qty="10")
    nearer["filled_avg_price"] = "7"
    later = _trade(2, 33, broker_order_id=None)
    by_team(import_legacy(_old(tmp_path, [first, nearer], [later, trade]), tmp_path / "data"))
    trades = [(row["order_id"], row["quantity"]) for row in Ledger(tmp_path / "data/team/alpha").rows("trades")]
    assert [("o1", "10"), ("o2", "10")] == trades


def test_an_old_trade_finds_the_order_that_the_ledger_has(tmp_path: Path) -> None:
    """A parallel run: the stream has told the order and its fill, so the old files must not tell them again."""
    ledger = Ledger(tmp_path / "data/team/alpha")
    event = {"order_id": "b1", "symbol": "AAPL", "side": "buy", "quantity": "10", "source": "stream"}
    ledger.append([{"event": "new", "ts": T, **event}])
    fill = {"execution_id": "x-1", "price": "7", "qty": "10", "filled_qty": "10", "ts": "2026-03-02T14:31:00Z"}
    ledger.append([{"event": "fill", **event, **fill}])
    by_team(import_legacy(_old(tmp_path, [_order(1)], [_trade(1)]), tmp_path / "data"))
    assert {} == _rows(tmp_path / "data")
    assert {"AAPL": Decimal(10)} == sum_positions(tmp_path / "data/team/alpha")


def test_an_old_trade_finds_an_order_that_the_ledger_has_under_its_own_id(tmp_path: Path) -> None:
    """The order is told by an earlier program with both ids; the trade has the broker's only."""
    ledger = Ledger(tmp_path / "data/team/alpha")
    order = {"event": "new", "order_id": "mine", "ts": T, "symbol": "AAPL", "side": "buy", "quantity": "10"}
    ledger.append([{**order, "broker_order_id": "b1"}])
    ledger.compact()
    by_team(import_legacy(_old(tmp_path, [], [_trade(1)]), tmp_path / "data"))
    assert {} == _rows(tmp_path / "data")
    assert ["mine"] == [row["order_id"] for row in ledger.rows("trades")]


def test_a_rewritten_file_ends_orders_by_their_trades(tmp_path: Path) -> None:
    """The old program keeps open orders only: one that is gone and has a trade is filled."""
    import_legacy(_old(tmp_path, [_order(1), _order(2)]), tmp_path / "data", rewritten=True)
    found = by_team(import_legacy(_old(tmp_path, [_order(2)], [_trade(1)]), tmp_path / "data", rewritten=True))
    assert (1, []) == (found["alpha"].events_appended, found["alpha"].vanished)
    assert {"b2": "new"} == _rows(tmp_path / "data")
    assert {"AAPL": Decimal(10)} == sum_positions(tmp_path / "data/team/alpha")


def test_an_order_that_vanished_from_a_rewritten_file_is_marked_and_named(tmp_path: Path) -> None:
    """Without a trade nobody knows how it ended, or whether: it stays visible, but not as an order like any other."""
    data = tmp_path / "data"
    import_legacy(_old(tmp_path, [_order(1), _order(2)]), data, rewritten=True)
    old = _old(tmp_path, [_order(2)])
    assert [] == by_team(import_legacy(old, data))["alpha"].vanished
    for appended in (1, 0):
        found = by_team(import_legacy(old, data, rewritten=True))["alpha"]
        assert (appended, ["b1"]) == (found.events_appended, found.vanished)
        assert 1 == found.lines_read, "a mark stands on no line"
        assert {"b1": "vanished", "b2": "new"} == _rows(data)
    assert ["unknown_status"] == [row["kind"] for row in Ledger(data / "team/alpha").rows("findings")]


def test_orders_that_stay_in_a_rewritten_file_are_not_marked(tmp_path: Path) -> None:
    """Importing the same again adds nothing, whatever the program does with its file."""
    data, old = tmp_path / "data", _old(tmp_path, [_order(1), _order(2)])
    for appended in (2, 0, 0):
        found = by_team(import_legacy(old, data, rewritten=True))["alpha"]
        assert (appended, []) == (found.events_appended, found.vanished)


def test_an_order_whose_line_was_rewritten_is_still_in_the_file(tmp_path: Path) -> None:
    """The line of the earlier import is gone; another one tells of the same order."""
    data = tmp_path / "data"
    import_legacy(_old(tmp_path, [_order(1)]), data, rewritten=True)
    changed = _order(1, status="accepted", updated_at="2026-03-02T15:00:00Z")
    assert [] == by_team(import_legacy(_old(tmp_path, [changed]), data, rewritten=True))["alpha"].vanished
    assert {"b1": "accepted"} == _rows(data)


def test_an_event_that_another_program_imported_is_no_line_of_an_old_file(tmp_path: Path) -> None:
    """Its source says `import`, and it has neither an id nor the line that it came from."""
    ledger = Ledger(tmp_path / "data/team/alpha")
    event = {"event": "new", "order_id": "o1", "ts": T, "symbol": "AAPL", "side": "buy", "quantity": "10"}
    ledger.append([{**event, "source": "import"}, {**event, "source": "import", "event_id": "digest:1", "raw": {}}])
    found = by_team(import_legacy(_old(tmp_path, [_order(1)]), tmp_path / "data"))["alpha"]
    assert (1, []) == (found.events_appended, found.problems)


def test_orders_that_vanished_are_marked_in_every_team(tmp_path: Path) -> None:
    """A directory of several teams, in any of which an order may be missing; each numbers its own orders."""
    data, teams = tmp_path / "data", ("alpha", "beta", "gamma")
    for numbers in ([1, 2], [2]):
        for team in teams:
            home = tmp_path / "old/team" / team
            home.mkdir(parents=True, exist_ok=True)
            kept = [_order(n, broker_order_id=f"{team}-{n}") for n in (numbers if team != "beta" else [1, 2])]
            (home / "pending_orders.jsonl").write_text("".join(json.dumps(one) + "\n" for one in kept))
        found = by_team(import_legacy(tmp_path / "old", data, rewritten=True))
    assert {"alpha": ["alpha-1"], "beta": [], "gamma": ["gamma-1"]} == {team: found[team].vanished for team in teams}
    for team, status in zip(teams, ("vanished", "new", "vanished"), strict=True):
        rows = {row["order_id"]: row["status"] for row in Ledger(data / "team" / team).rows("pending_orders")}
        assert {f"{team}-1": status, f"{team}-2": "new"} == rows


def test_a_line_is_recalled_for_its_own_file_and_team() -> None:
    """What the log has of old trades is no old order, and another team's line is not known by it."""
    text = json.dumps(_trade(1, order_id="o1", status="filled", created_at=T, updated_at=T, filled_qty="10"))
    told = Earlier({(TRADES, text): ["o1"], (ORDERS, text): ["o1"]}, set(), {}, {})
    for has, (orders, trades) in (((TRADES,), (0, 1)), ((ORDERS,), (1, 0)), ((TRADES, ORDERS), (1, 1))):
        old = read_old_lines([], [], team="alpha")
        kept = {key: list(ids) for key, ids in told.lines.items() if key[0] in has}
        recall_lines(old, "alpha", Earlier(kept, set(), {}, {}))
        assert (orders, trades) == (len(old.orders), len(old.trades))
        assert all(line.is_known and line.event["order_id"] == "o1" for line in (*old.orders, *old.trades))
    old = read_old_lines([], [text.encode()], team="beta")
    recall_lines(old, "alpha", Earlier({}, set(), {}, {}))
    recall_lines(old, "alpha", Earlier({(TRADES, text): ["o1"]}, set(), {}, {}))
    assert [("beta", False), ("alpha", True)] == [(line.event["team_id"], line.is_known) for line in old.trades]


def test_an_order_that_the_broker_told_of_does_not_hide_one_that_vanished(tmp_path: Path) -> None:
    """What the broker tells of an order is for the broker to end; the orders after it are looked at all the same."""
    data = tmp_path / "data"
    import_legacy(_old(tmp_path, [_order(1), _order(2)]), data, rewritten=True)
    with Ledger(data / "team/alpha") as ledger:
        heard = {"event": "accepted", "order_id": "b1", "ts": "2026-03-02T15:00:00Z", "source": "stream"}
        ledger.append([heard])
        ledger.compact()
    found = by_team(import_legacy(_old(tmp_path, []), data, rewritten=True))["alpha"]
    assert ["b2"] == found.vanished
    assert {"b1": "accepted", "b2": "vanished"} == _rows(data)


def test_an_order_may_return_to_a_rewritten_file(tmp_path: Path) -> None:
    """A file that was read while it was being rewritten lacks orders that are there the next time."""
    data = tmp_path / "data"
    whole = [_order(1, status="accepted"), _order(2)]
    for _ in "12":
        import_legacy(_old(tmp_path, whole), data, rewritten=True)
        assert {"b1": "accepted", "b2": "new"} == _rows(data)
        import_legacy(_old(tmp_path, []), data, rewritten=True)
        assert {"b1": "vanished", "b2": "vanished"} == _rows(data)
        import_legacy(_old(tmp_path, whole[1:]), data, rewritten=True)
        assert {"b1": "vanished", "b2": "new"} == _rows(data)
    found = by_team(import_legacy(_old(tmp_path, whole[1:], [_trade(1)]), data, rewritten=True))
    assert [] == found["alpha"].vanished
    assert {"b2": "new"} == _rows(data)


def test_an_order_that_says_no_status_returns_as_new(tmp_path: Path) -> None:
    """The old program tells only orders that are open."""
    data = tmp_path / "data"
    for orders, status in (([_order(1, status=None)], "new"), ([], "vanished"), ([_order(1, status=None)], "new")):
        import_legacy(_old(tmp_path, orders), data, rewritten=True)
        assert {"b1": status} == _rows(data)


def test_a_directory_with_old_orders_alone_is_found(tmp_path: Path) -> None:
    """Before its first trade an old program had one file; beside a log it may be the ledger's own."""
    home = tmp_path / "team/alpha"
    home.mkdir(parents=True)
    (home / "pending_orders.jsonl").write_text(json.dumps(_order(1)) + "\n")
    assert [home] == find_old_directories(tmp_path)
    (home / "events.jsonl").touch()
    assert [] == find_old_directories(tmp_path)


def test_an_order_that_the_broker_tells_of_is_left_to_the_broker(tmp_path: Path) -> None:
    """A parallel run: that an old program has forgotten an order says nothing against the stream."""
    data = tmp_path / "data"
    import_legacy(_old(tmp_path, [_order(1), _order(2)]), data, rewritten=True)
    Ledger(data / "team/alpha").append([{"event": "accepted", "order_id": "b1", "ts": T, "source": "stream"}])
    found = by_team(import_legacy(_old(tmp_path, [_order(2)]), data, rewritten=True))
    assert [] == found["alpha"].vanished
    assert {"b1": "accepted", "b2": "new"} == _rows(data)


def test_directories_with_old_files_are_found(tmp_path: Path) -> None:
    """Rule 1.3: what a ledger derived is not old, not even where its state is gone; old files are, beside a log too."""
    data = _old_in_place(tmp_path)
    assert [data / "team/alpha", data / "team/beta"] == find_old_directories(data)
    import_legacy(data, data)
    assert [] == find_old_directories(data)
    shutil.rmtree(data / "team/alpha/.state")
    assert [] == find_old_directories(data)
    shutil.copy(OLD / "team/alpha/trades.jsonl", data / "team/alpha")
    assert [data / "team/alpha"] == find_old_directories(data)


def _old_in_place(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    shutil.copytree(OLD, data)
    return data


def test_old_files_in_place_are_put_away(tmp_path: Path) -> None:
    """The data directory itself: old files move to legacy/, and what then has their names is derived from the log."""
    data = _old_in_place(tmp_path)
    by_team(import_legacy(data, data))
    import_legacy(OLD, tmp_path / "elsewhere")
    assert read_files(OLD) == {
        name.replace("/legacy", ""): found for name, found in read_files(data).items() if "/legacy/" in name
    }
    kept = {name: found for name, found in read_derived(data).items() if "/legacy/" not in name}
    assert read_derived(tmp_path / "elsewhere") == kept
    before = read_files(data)
    assert {0} == {team.events_appended for team in by_team(import_legacy(data, data)).values()}
    assert before == read_files(data)


def test_old_orders_that_were_put_away_alone_are_read_from_there(tmp_path: Path) -> None:
    """A team without trades: the file that has their name since is derived."""
    home = tmp_path / "data/team/alpha"
    home.mkdir(parents=True)
    (home / "pending_orders.jsonl").write_text(json.dumps(_order(1)) + "\n")
    for appended in (1, 0):
        found = by_team(import_legacy(tmp_path / "data", tmp_path / "data"))
        assert (appended, 1) == (found["alpha"].events_appended, found["alpha"].lines_read)
        assert ["pending_orders.jsonl"] == [path.name for path in (home / "legacy").iterdir()]


def test_a_team_that_cannot_be_imported_stops_no_other(tmp_path: Path) -> None:
    """Its error says what is wrong; the others are imported, and its old files stay where they are."""
    data = _old_in_place(tmp_path)
    (data / "team/alpha/events.jsonl").mkdir()
    errors = {team.team_id: team.error for team in import_legacy(data, data).teams}
    assert errors["alpha"] is not None and "events.jsonl" in errors["alpha"].message
    assert errors["beta"] is None
    assert not (data / "team/alpha/legacy").exists() and (data / "team/beta/legacy").exists()


def test_a_team_whose_old_files_cannot_be_read_has_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails in the middle: the error is the team's, and the others are imported."""
    data, real = _old_in_place(tmp_path), OldFiles.read_lines

    def read_lines(self: OldFiles, path: Path | None, on_bytes: Callable[[int], None]) -> Any:
        if self.team == "alpha":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(self, path, on_bytes)

    monkeypatch.setattr(OldFiles, "read_lines", read_lines)
    errors = {team.team_id: team.error for team in import_legacy(data, data).teams}
    assert errors["alpha"] is not None and "Input/output error" in errors["alpha"].message
    assert errors["beta"] is None


def test_a_team_whose_ledger_cannot_be_written_has_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: its old files stay where they are, and the next import goes on."""
    data, real = _old_in_place(tmp_path), append_lines

    def append(path: Path, *given: Any) -> Any:
        if path.parent.name == "alpha":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *given)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "append_lines", append)
        errors = {team.team_id: team.error for team in import_legacy(data, data).teams}
    assert errors["alpha"] is not None and "No space left on device" in errors["alpha"].message
    assert errors["beta"] is None
    assert not (data / "team/alpha/legacy").exists() and (data / "team/beta/legacy").exists()
    assert [None, None] == [team.error for team in import_legacy(data, data).teams if team.team_id != "unassigned"]


def test_progress_is_told_in_bytes_of_the_old_files(tmp_path: Path) -> None:
    """A long import is not silent."""
    told: list[tuple[int, int]] = []
    old = _old(tmp_path, [_order(number) for number in range(300)], [_trade(number) for number in range(200)])
    import_legacy(old, tmp_path / "data", progress=lambda *now: told.append(now))
    total = sum(path.stat().st_size for path in (tmp_path / "old/team/alpha").iterdir())
    assert told == sorted(told) and {total} == {of for _, of in told}
    assert total >= told[-1][0] > total - (1 << 16)


def test_a_single_file_in_place_is_put_away(tmp_path: Path) -> None:
    """Naming the file instead of the directory is the same."""
    data = _old_in_place(tmp_path)
    import_legacy(data / "team/beta/pending_orders.jsonl", data)
    assert {"pending_orders.jsonl", "trades.jsonl"} == {path.name for path in (data / "team/beta/legacy").iterdir()}
    assert not (data / "team/alpha/legacy").exists()


def test_a_ledgers_own_files_are_never_taken_for_old_ones(tmp_path: Path) -> None:
    """Rule 1.3: derived files may lie there without any state; importing them would tell every order again."""
    ledger = tmp_path / "data/team/alpha"
    open_order = {"event": "new", "order_id": "o1", "ts": T, "symbol": "AAPL", "side": "buy", "quantity": "5"}
    Ledger(ledger).append([open_order])
    Ledger(ledger).compact()
    before = read_files(tmp_path / "data")
    assert [] == import_legacy(tmp_path / "data", tmp_path / "data").teams
    shutil.rmtree(ledger / ".state")
    [team] = import_legacy(tmp_path / "data", tmp_path / "data").teams
    assert (["not_old"], 0) == ([problem.kind for problem in team.problems], team.events_appended)
    assert team.error is None
    assert before == read_files(tmp_path / "data")
    Ledger(ledger).append([{"event": "fill", "order_id": "o1", "ts": T, "price": "1", "qty": "2", "filled_qty": "2"}])
    Ledger(ledger).compact()
    shutil.rmtree(ledger / ".state")
    assert [] == import_legacy(tmp_path / "data", tmp_path / "data").teams


@pytest.mark.parametrize(
    ("trades", "is_old"),
    [(None, False), ("", False), (json.dumps({"order_id": "o1", "price": "1", "qty": "2", "ts": T}) + "\n", True)],
)
def test_orders_that_a_ledger_may_have_derived_are_old_beside_old_trades(
    tmp_path: Path, trades: str | None, is_old: bool
) -> None:
    """An empty file of trades tells nothing: then the log decides."""
    ledger = tmp_path / "data/team/alpha"
    Ledger(ledger).append([{"event": "new", "order_id": "o1", "ts": T, "symbol": "AAPL", "side": "buy"}])
    Ledger(ledger).compact()
    shutil.rmtree(ledger / ".state")
    (ledger / "trades.jsonl").unlink(missing_ok=True)
    if trades is not None:
        (ledger / "trades.jsonl").write_text(trades)
    [team] = import_legacy(tmp_path / "data", tmp_path / "data").teams
    assert is_old is ("not_old" not in [problem.kind for problem in team.problems])


@pytest.mark.parametrize(
    ("lines", "is_old"),
    [
        ([_order(1)], False),
        ([_order(1, limit_price=None)], True),
        ([_order(1), _order(1)], True),
        ([_order(1, status="canceled")], True),
        ([_order(1, order_id=None)], True),
        ([_order(1), "torn"], True),
    ],
    ids=["open once", "with a null", "twice", "ended", "without an id", "with a torn line"],
)
def test_what_no_ledger_would_write_is_an_old_file(tmp_path: Path, lines: list[Any], is_old: bool) -> None:
    """The log beside it has the same orders, and nothing was compacted yet: the lines have to tell."""
    home = tmp_path / "data/team/alpha"
    Ledger(home).append([{"event": "new", "order_id": "o1", "ts": T, "symbol": "AAPL", "side": "buy", "quantity": "9"}])
    (home / "pending_orders.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    [team] = import_legacy(tmp_path / "data", tmp_path / "data").teams
    assert is_old == ("not_old" not in [problem.kind for problem in team.problems])
    assert is_old == (home / "legacy/pending_orders.jsonl").exists()


def test_a_file_of_several_teams_is_old_where_one_of_them_has_imported_it(tmp_path: Path) -> None:
    """A ledger that imported a line of it shows that, although another ledger has its order from elsewhere."""
    data, old = tmp_path / "data", tmp_path / "old"
    old.mkdir()
    placed = {"event": "new", "order_id": "o1", "ts": T, "symbol": "AAPL", "side": "buy", "quantity": "10"}
    Ledger(data / "team/alpha").append([placed])
    (old / "pending_orders.jsonl").write_text(json.dumps(_order(2, team_id="beta")) + "\n")
    import_legacy(old, data)
    (old / "events.jsonl").touch()
    lines = [_order(1, team_id="alpha"), _order(2, team_id="beta")]
    (old / "pending_orders.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    found = by_team(import_legacy(old, data))
    assert [] == [problem.kind for team in found.values() for problem in team.problems]
    assert [1, 1] == [len(list(Ledger(data / "team" / name).rows("pending_orders"))) for name in ("alpha", "beta")]


def test_an_old_file_beside_a_new_log_is_still_old(tmp_path: Path) -> None:
    """A program wrote events before anybody imported: ended orders show that the file is no ledger's own."""
    data = _old_in_place(tmp_path)
    (data / "team/alpha/trades.jsonl").unlink()
    Ledger(data / "team/alpha").append([{"event": "canceled", "order_id": "a-3", "ts": "2026-02-03T10:00:00Z"}])
    by_team(import_legacy(data, data))
    assert [] == list(Ledger(data / "team/alpha").rows("pending_orders"))
    assert (data / "team/alpha/legacy/pending_orders.jsonl").exists()


def test_nothing_is_put_away_where_nothing_could_be_read(tmp_path: Path) -> None:
    """A file of something else stays where it is, and is reported."""
    place = tmp_path / "data/team/alpha"
    place.mkdir(parents=True)
    (place / "pending_orders.jsonl").write_text("what is this?\n")
    [team] = import_legacy(tmp_path / "data", tmp_path / "data").teams
    assert ["not_json"] == [problem.kind for problem in team.problems]
    assert {"team/alpha/pending_orders.jsonl"} == set(read_files(tmp_path / "data"))


class Stopped(BaseException):
    """The process was killed here."""


class StoppingFiles(Files):
    """The real file system until the call that is the last one."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def _count(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise Stopped

    def make_directory(self, path: Path) -> bool:
        self._count()
        return super().make_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self._count()
        super().sync_directory(path)


def _stop_append(calls: int) -> Callable[..., Any]:
    count = iter(range(calls))

    def stopping(*given: Any) -> Any:
        if next(count, None) is None:
            raise Stopped
        return append_lines(*given)

    return stopping


@pytest.mark.parametrize("calls", range(22))
def test_a_stop_while_putting_away_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Stopped before any rename or sync: the next import ends with the bytes of one that was never stopped."""
    data = _old_in_place(tmp_path)
    stopping = StoppingFiles(calls)
    with monkeypatch.context() as patch:
        patch.setattr(legacy, "put_away", lambda source: put_away(source, stopping))
        try:
            import_legacy(data, data)
            assert calls >= 20, "the range above covers every call"
        except Stopped:
            pass
    by_team(import_legacy(data, data))
    _assert_as_if_never_stopped(tmp_path, data)


@pytest.mark.parametrize("calls", range(18))
def test_a_stop_while_appending_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Stopped between any two batches, here of one event: what is in the log is recognized, the rest follows."""
    data = _old_in_place(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "BATCH_LINES", 1)
        patch.setattr(writer, "append_lines", _stop_append(calls))
        try:
            import_legacy(data, data)
            assert calls >= 17, "the range above covers every batch"
        except Stopped:
            pass
    by_team(import_legacy(data, data))
    _assert_as_if_never_stopped(tmp_path, data)


def _assert_as_if_never_stopped(tmp_path: Path, data: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(OLD, whole)
    import_legacy(whole, whole)
    assert read_derived(whole) == read_derived(data)
