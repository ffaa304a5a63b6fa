"""Derived lines as typed values: nothing of a decimal or a time is lost."""

import pickle
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from compactor import DerivedConflict, Finding, Instant, Ledger, PendingOrder, Trade
from compactor.core.derived import PendingLine, TradeLine
from compactor.ledger.records import line_decoder
from tests import cases

TS = "2026-03-02T14:30:00.123456789-05:00"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One open order with a partial fill, and one line that is none."""
    ledger = Ledger(tmp_path / "team/alpha")
    order = {"order_id": "o-1", "ts": TS}
    fill = {"price": "530.0000", "qty": "0.000000001", "execution_id": "x"}
    ledger.append(
        [
            {**order, "event": "new", "symbol": "SPY", "side": "buy", "quantity": "10.50", "limit_price": "530.10"},
            {**order, "event": "partial_fill", **fill, "ts": "2026-03-02T14:30:00.123456790-05:00"},
        ]
    )
    with (ledger.path / "events.jsonl").open("ab") as log:
        log.write(b"{torn\n")
    ledger.compact()
    return ledger


def test_a_trade_keeps_its_digits_and_nanoseconds(ledger: Ledger) -> None:
    """Decimals are exact with the digits of the file; times keep nine digits and their text."""
    (trade,) = ledger.trades()
    assert isinstance(trade, Trade)
    assert ("530.0000", "0.000000001") == (str(trade.execution_price), f"{trade.quantity:f}")
    assert "2026-03-02T14:30:00.123456790-05:00" == str(trade.timestamp)
    assert 790 == trade.timestamp.ns % 1000
    assert ("fill", "SPY", "buy", None) == (trade.kind, trade.symbol, trade.side, trade.requested_price)


def test_a_pending_order_is_typed(ledger: Ledger) -> None:
    """What is not known is None; the quantities are decimals."""
    (order,) = ledger.pending_orders()
    assert isinstance(order, PendingOrder)
    assert (Decimal("10.50"), Decimal("530.10"), None) == (order.quantity, order.limit_price, order.stop_price)
    assert Decimal("0.000000001") == order.filled_qty
    assert order.created_at < order.updated_at
    assert 1 == order.updated_at.ns - order.created_at.ns


def test_findings_and_results_are_frozen(ledger: Ledger) -> None:
    """A program cannot change what it read, or what it was told."""
    (finding,) = ledger.findings()
    assert isinstance(finding, Finding)
    assert ("not_json", "{torn") == (finding.kind, finding.line)
    appended = ledger.append([{"event": "canceled", "order_id": "o-1", "ts": TS}])
    (trade,), (order,) = ledger.trades(), ledger.pending_orders()
    for one in (finding, trade, order, appended, ledger.compact(), ledger.seal(now=True), trade.timestamp):
        with pytest.raises(AttributeError):
            setattr(one, "kind" if hasattr(one, "kind") else "text", "other")


def test_rows_are_the_lines_as_mappings(ledger: Ledger) -> None:
    """Mappings remain: texts as in the file, and only what is known."""
    (row,) = ledger.rows("trades")
    assert ("530.0000", "2026-03-02T14:30:00.123456790-05:00") == (row["execution_price"], row["timestamp"])
    assert "requested_price" not in row
    assert ["o-1"] == [row["order_id"] for row in ledger.rows("pending_orders")]
    assert [False] == [row["applied"] for row in ledger.rows("findings")]


@pytest.mark.parametrize("line", [b'{"trade_id":"1-0"}\n', b"[]\n", b"{\n"])
def test_a_line_that_is_no_trade_is_a_conflict(ledger: Ledger, line: bytes) -> None:
    """The error names the file and the offset of the line."""
    path = ledger.path / "trades.jsonl"
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(line)
    with pytest.raises(DerivedConflict, match=rf"trades\.jsonl: at offset {size} expected a derived line"):
        list(ledger.trades())


def test_the_fields_are_those_of_the_files() -> None:
    """A field that the fold writes and the typed value lacks would be lost in silence."""
    assert TradeLine.__struct_fields__ == Trade.__struct_fields__
    assert PendingLine.__struct_fields__ == PendingOrder.__struct_fields__


def test_every_line_of_every_case_can_be_read() -> None:
    """The cases of the specification hold every kind of line."""
    trade, order = line_decoder(Trade), line_decoder(PendingOrder)
    count = 0
    for case in cases.discover():
        for line in case.expected["trades.jsonl"].splitlines():
            assert msgspec.json.decode(line)["quantity"] == f"{trade(line).quantity:f}"
            count += 1
        for line in case.expected["pending_orders.jsonl"].splitlines():
            assert msgspec.json.decode(line)["order_id"] == order(line).order_id
    assert count


def test_a_number_inside_legs_is_exact() -> None:
    """A JSON number that a leg came with is never read through a float."""
    line = (
        b'{"order_id":"o","team_id":"a","status":"new","filled_qty":"0","created_at":"2026-03-02T14:30:00Z",'
        b'"updated_at":"2026-03-02T14:30:00Z","legs":[{"ratio":0.1000000000000000055511151231257827}]}'
    )
    legs = line_decoder(PendingOrder)(line).legs or []
    assert Decimal("0.1000000000000000055511151231257827") == legs[0]["ratio"]


class TestInstant:
    """`Instant` loses nothing and compares moments."""

    def test_one_moment_in_two_zones_is_equal(self) -> None:
        """Compared as instants, never as text."""
        here, there = Instant("2026-03-02T14:30:00.000000001Z"), Instant("2026-03-02T09:30:00.000000001-05:00")
        assert here == there
        assert hash(here) == hash(there)
        assert here < Instant("2026-03-02T14:30:00.000000002Z")
        assert here >= there
        assert "2026-03-02T14:30:00+00:00" == here.datetime.isoformat()
        assert here != here.text

    def test_it_can_be_pickled(self) -> None:
        """Values travel between processes."""
        assert TS == pickle.loads(pickle.dumps(Instant(TS))).text

    def test_it_never_changes(self) -> None:
        """It is the key of what is compared."""
        instant = Instant(TS)
        with pytest.raises(AttributeError, match="cannot set 'ns'"):
            instant.ns = 0
        with pytest.raises(AttributeError, match="cannot delete 'text'"):
            del instant.text
        assert TS == instant.text

    @pytest.mark.parametrize("time", ["17", '"yesterday"', "true"])
    def test_a_derived_line_with_another_time_is_refused(self, time: str) -> None:
        """As any line that is none."""
        line = (
            '{"order_id":"o","team_id":"a","status":"new","filled_qty":"0","updated_at":"2026-03-02T14:30:00Z",'
            f'"created_at":{time}}}'
        )
        with pytest.raises(msgspec.ValidationError, match="expected a time as RFC 3339 text"):
            line_decoder(PendingOrder)(line.encode())

    def test_what_is_no_time_is_refused(self) -> None:
        """ValueError, as for any value that is none."""
        with pytest.raises(ValueError, match="RFC 3339"):
            Instant("yesterday")
