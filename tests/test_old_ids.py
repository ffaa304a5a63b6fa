"""Under which id the orders of old files are in the ledger: the broker's, as every other source tells of them."""

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from compactor.imports.captures import import_alpaca
from compactor.imports.legacy import import_legacy
from compactor.ledger import Ledger
from tests.imported import by_team, read_files, sum_positions

T, LATER = "2026-02-02T14:30:00Z", "2026-02-02T14:34:00Z"


def _order(number: int, **fields: Any) -> dict[str, Any]:
    told = {"order_id": f"a-{number}", "broker_order_id": f"b-{number}", "symbol": "AAPL", "side": "buy"}
    return {**told, "quantity": "10", "status": "new", "filled_qty": "0", "created_at": T, "updated_at": T, **fields}


def _filled(number: int, **fields: Any) -> dict[str, Any]:
    return _order(number, status="filled", filled_qty="10", filled_avg_price="7", updated_at=LATER, **fields)


def _trade(number: int, **fields: Any) -> dict[str, Any]:
    told = {"broker_order_id": f"b-{number}", "symbol": "AAPL", "side": "buy", "quantity": "10", "execution_price": "7"}
    return {**told, "timestamp": LATER, **fields}


def _write_old(tmp_path: Path, orders: list[Any], trades: list[Any] | None = None) -> Path:
    home = tmp_path / "old/team/alpha"
    home.mkdir(parents=True, exist_ok=True)
    for name, lines in (("pending_orders", orders), ("trades", trades or [])):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return tmp_path / "old"


def _write_stream(tmp_path: Path, *told: tuple[int, str]) -> Path:
    """Messages of the stream about orders: the number of each, and what happened."""
    lines = []
    for number, event in told:
        order = {"id": f"b-{number}", "client_order_id": f"c-{number}", "symbol": "AAPL", "side": "buy", "qty": "10"}
        order |= {"status": "new", "filled_qty": "0", "type": "limit", "time_in_force": "day", "created_at": T}
        data: dict[str, Any] = {"event": event, "timestamp": T, "order": order}
        if event == "fill":
            order |= {"status": "filled", "filled_qty": "10", "filled_avg_price": "7"}
            data |= {"timestamp": LATER, "execution_id": f"x-{number}", "price": "7", "qty": "10"}
        lines.append(json.dumps({"stream": "trade_updates", "data": data}) + "\n")
    (tmp_path / "captured.jsonl").write_text("".join(lines))
    return tmp_path / "captured.jsonl"


def _list_open(data: Path) -> list[str]:
    return [row["order_id"] for row in Ledger(data / "team/alpha").rows("pending_orders")]


@pytest.mark.parametrize("stream_first", [True, False])
def test_an_order_of_old_files_and_of_the_stream_is_one(tmp_path: Path, stream_first: bool) -> None:
    """The old program has ids of its own, and the broker's beside them: no ghost, and no trade twice."""
    data, old = tmp_path / "data", _write_old(tmp_path, [_order(1), _order(2)])
    stream = _write_stream(tmp_path, (1, "new"), (1, "fill"), (2, "new"))
    for _ in "12":
        if stream_first:
            import_alpaca(stream, data, team="alpha")
        by_team(import_legacy(old, data))
        import_alpaca(stream, data, team="alpha")
        old = _write_old(tmp_path, [_order(2)], [_trade(1)])
    assert ["b-2"] == _list_open(data)
    assert {"AAPL": Decimal(10)} == sum_positions(data / "team/alpha")


def test_an_order_that_was_imported_under_its_own_id_keeps_it(tmp_path: Path) -> None:
    """Earlier versions took the old program's id. The same lines add nothing, and new ones join the order."""
    data, orders = tmp_path / "data", [_order(1), _order(2), _order(3, status="canceled")]
    import_legacy(_write_old(tmp_path, orders), data)
    log = data / "team/alpha/events.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    shutil.rmtree(data)
    Ledger(log.parent).append([event | {"order_id": event["order_id"].replace("b-", "a-")} for event in events])
    Ledger(log.parent).compact()
    before = read_files(data)
    assert 0 == by_team(import_legacy(_write_old(tmp_path, orders[::-1]), data))["alpha"].events_appended
    assert before == read_files(data)
    grown = [*orders, _filled(1), _order(2, status="accepted", order_id=None), _order(3, status="canceled", x=1)]
    import_legacy(_write_old(tmp_path, grown, [_trade(1)]), data)
    assert {"a-1", "a-2", "a-3"} == {json.loads(line)["order_id"] for line in log.read_text().splitlines()}
    assert {"AAPL": Decimal(10)} == sum_positions(data / "team/alpha")


def test_a_line_without_the_broker_s_id_has_it_from_another_line(tmp_path: Path) -> None:
    """An old program writes an order before the broker has answered; the other line may be of an earlier import."""
    data = tmp_path / "data"
    import_legacy(_write_old(tmp_path, [_order(1, broker_order_id=None, status="pending_new"), _order(1)]), data)
    import_legacy(_write_old(tmp_path, [_order(1, broker_order_id=None, status="accepted", updated_at=LATER)]), data)
    assert ["b-1"] == _list_open(data)


def test_an_order_that_was_imported_before_its_broker_s_id_was_known_keeps_its_own(tmp_path: Path) -> None:
    """The log has it under its own id; a second order of it would be a ghost."""
    data = tmp_path / "data"
    import_legacy(_write_old(tmp_path, [_order(1, broker_order_id=None)]), data)
    import_legacy(_write_old(tmp_path, [_order(1, broker_order_id=None), _order(1)]), data)
    assert ["a-1"] == _list_open(data)


def test_an_own_id_that_was_used_for_several_orders_of_the_broker_is_each_of_them(tmp_path: Path) -> None:
    """A replaced order keeps the old program's id; at the broker it is another one."""
    data = tmp_path / "data"
    orders = [_order(1, status="replaced"), _order(1, broker_order_id="b-2", quantity="9", updated_at=LATER)]
    import_legacy(_write_old(tmp_path, orders), data)
    assert ["b-2"] == _list_open(data)


def test_a_word_in_place_of_the_broker_s_id_is_none(tmp_path: Path) -> None:
    """`unknown` beside several orders: they stay apart under their own ids, and it is named once."""
    data = tmp_path / "data"
    orders = [_order(number, broker_order_id="unknown") for number in (1, 2)]
    found = by_team(import_legacy(_write_old(tmp_path, [*orders, _filled(1, broker_order_id="unknown")]), data))
    assert ["shared_id"] == [problem.kind for problem in found["alpha"].problems]
    assert ["a-2"] == _list_open(data)
    assert {"AAPL": Decimal(10)} == sum_positions(data / "team/alpha")
    for text in ("None", "null", "nan"):
        [order] = import_legacy(_write_old(tmp_path, [_order(1, broker_order_id=text)]), tmp_path / text).teams
        assert ([], ["a-1"]) == (order.problems, _list_open(tmp_path / text))
