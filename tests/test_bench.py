"""The benchmark measures what it says: the logs are what they are described as, and every peer does the same task."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compactor import Ledger
from tests.bench import cold, generate, incremental, logs, process
from tests.bench.agree import Agreement, Disagreement, agree

EVENTS = 5_000
FILLS = {"fill", "partial_fill"}
TERMINAL = {"fill", "canceled", "expired", "rejected"}


def events_of(count: int, **options: Any) -> list[dict[str, str]]:
    return [msgspec.json.decode(line, type=dict[str, str]) for line in generate.lines("alpha", count, **options)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ledgers of made-up events, compacted by us."""
    data = tmp_path_factory.mktemp("bench")
    for log in generate.generate(data, EVENTS, 2):
        with Ledger(log.parent) as ledger:
            ledger.compact()
    return data


def test_the_same_seed_gives_the_same_bytes() -> None:
    """The same arguments give the same bytes, another seed or another team gives others."""
    first = "".join(generate.lines("alpha", 2000, seed=7))
    assert first == "".join(generate.lines("alpha", 2000, seed=7))
    assert first != "".join(generate.lines("alpha", 2000, seed=8))
    assert first != "".join(generate.lines("beta", 2000, seed=7))


def test_the_bytes_of_the_default_log_are_known() -> None:
    """Figures of different days are about the same bytes: a change of the generator changes them all."""
    text = "".join(generate.lines("alpha", 2000)).encode()
    assert "5a1a4e02" == hashlib.sha256(text).hexdigest()[:8]


def test_the_mix_is_the_documented_one() -> None:
    """30 % placements, 30 % partial fills, 19 % fills, 11 % canceled, 7 % pending_cancel, 3 % of the rest."""
    lines = events_of(60_000)
    told = {(event["order_id"], event["execution_id"]) for event in lines if event["event"] in FILLS}
    names = Counter(event["event"] for event in lines)
    again = names["fill"] + names["partial_fill"] - len(told)
    percent = {name: 100 * count // len(lines) for name, count in names.items()}
    assert 29 <= percent["new"] <= 31
    assert 47 <= 100 * len(told) // len(lines) <= 51
    assert 10 <= percent["canceled"] <= 11
    assert 6 <= percent["pending_cancel"] <= 7
    assert 2 <= 100 * (again + names["expired"] + names["rejected"] + names["done_for_day"]) // len(lines) <= 4
    assert 0 < again


def test_recorded_at_rises_strictly_and_ts_comes_before_it() -> None:
    """Lines are in the order of time, and what is recorded has happened."""
    lines = events_of(5000, days=0.0001)
    recorded = [event["recorded_at"] for event in lines]
    assert sorted(set(recorded)) == recorded
    assert [] == [event for event in lines if event["ts"][:26] > event["recorded_at"][:26]]


def test_placements_carry_full_terms_and_keys_in_the_contract_s_order() -> None:
    """format.md section 2: event, order_id, ts, recorded_at, then the terms or the fill."""
    lines = events_of(3000)
    placed = [list(event) for event in lines if event["event"] == "new" and event["order_type"] == "limit"]
    terms = ["symbol", "side", "quantity", "order_type", "time_in_force", "limit_price", "client_order_id"]
    assert ["event", "order_id", "ts", "recorded_at", *terms] == placed[0]
    filled = [list(event) for event in lines if event["event"] in FILLS]
    fill = ["execution_id", "price", "qty", "filled_qty"]
    assert ["event", "order_id", "ts", "recorded_at", *fill] == filled[0]


def test_open_orders_stay_bounded() -> None:
    """No more than --open orders are open, however long the log is."""
    opened: set[str] = set()
    for event in events_of(20_000, open_orders=40):
        if event["event"] == "new":
            opened.add(event["order_id"])
        elif event["event"] in TERMINAL:
            opened.discard(event["order_id"])
        assert len(opened) <= 40


def test_fills_add_up_to_the_cumulative_quantity() -> None:
    """`filled_qty` is the exact sum of the order's fills, and a `fill` completes the quantity."""
    quantity: dict[str, Decimal] = {}
    filled: dict[str, Decimal] = {}
    told: set[str] = set()
    for event in events_of(10_000):
        order_id = event["order_id"]
        if event["event"] == "new":
            quantity[order_id], filled[order_id] = Decimal(event["quantity"]), Decimal(0)
        elif event["event"] in FILLS and event["execution_id"] not in told:
            told.add(event["execution_id"])
            filled[order_id] += Decimal(event["qty"])
            assert Decimal(event["filled_qty"]) == filled[order_id]
            assert (event["event"] == "fill") == (filled[order_id] == quantity[order_id])


def test_the_made_up_log_makes_no_findings(data: Path) -> None:
    """The benchmark measures the common event."""
    assert [] == sorted(data.glob("team/*/findings.jsonl"))


@pytest.mark.parametrize("peer", cold.PEERS)
def test_every_peer_makes_what_we_make(peer: str, data: Path, tmp_path: Path) -> None:
    """A peer is measured only at the same task: the same trades in the same order, the same pending orders."""
    if peer in ("duckdb", "polars"):
        pytest.importorskip(peer)
    elif not cold.available([peer]):
        pytest.skip(f"{peer} is not installed")
    process.measure(cold.Task(peer, data, tmp_path, EVENTS).command())
    trades = sum(len(path.read_bytes().splitlines()) for path in data.glob("team/*/trades.jsonl"))
    pending = sum(len(path.read_bytes().splitlines()) for path in data.glob("team/*/pending_orders.jsonl"))
    assert Agreement(trades, pending) == agree(data, tmp_path)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("trades.jsonl", "quantity", "123456789.5"), ("pending_orders.jsonl", "status", "held")],
)
def test_a_difference_is_named(data: Path, tmp_path: Path, name: str, field: str, value: str) -> None:
    """One other value in one line is a disagreement that names the file, the line, the field and both values."""
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    path = sorted(tmp_path.glob(f"team/*/{name}"))[0]
    first, _, rest = path.read_bytes().partition(b"\n")
    row = msgspec.json.decode(first, type=dict[str, Any])
    row[field] = value
    path.write_bytes(msgspec.json.encode(row) + b"\n" + rest)
    with pytest.raises(Disagreement, match=rf"{name} line 1: {field} .* {value}"):
        agree(data, tmp_path)


def test_a_missing_line_is_a_disagreement(data: Path, tmp_path: Path) -> None:
    """A trade that only one side has is named."""
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    path = sorted(tmp_path.glob("team/*/trades.jsonl"))[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(Disagreement, match="only the first has it"):
        agree(data, tmp_path)


def test_numbers_agree_however_they_are_written(tmp_path: Path) -> None:
    """`"10.50"` is `"10.5"`, a null is an absent field, and our own addresses are nobody else's."""
    for name, trade in (
        ("ours", {"order_id": "o-1", "quantity": "10.50", "trade_id": "0-0", "offset": 0}),
        ("theirs", {"order_id": "o-1", "quantity": "10.5", "requested_price": None}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trades.jsonl").write_bytes(msgspec.json.encode(trade) + b"\n")
        (tmp_path / name / "pending_orders.jsonl").touch()
    assert Agreement(1, 0) == agree(tmp_path / "ours", tmp_path / "theirs")


def test_a_prepared_log_is_as_it_was_generated(tmp_path: Path) -> None:
    """What one benchmark appended or derived is gone before the next one starts."""
    log = logs.logs_of(logs.prepared(tmp_path, 500, 1))[0]
    fresh = log.read_bytes()
    subject = incremental.Subject(log.parent)
    subject.append_fill()
    subject.ledger.compact()
    subject.ledger.close()
    assert fresh != log.read_bytes()
    logs.prepared(tmp_path, 500, 1)
    assert fresh == log.read_bytes()
    assert [log] == list(log.parent.iterdir())


def test_every_measured_pass_makes_one_trade(tmp_path: Path) -> None:
    """An incremental pass appends one trade and replaces the pending orders, in each of its rounds."""
    log = logs.logs_of(logs.prepared(tmp_path, 500, 1))[0]
    subject = incremental.Subject(log.parent)
    subject.fold("a short log")
    before = sum(1 for _ in subject.ledger.rows("trades"))
    for _ in range(incremental.FILLS_PER_ORDER + 1):
        subject.append_fill()
        pending = (log.parent / "pending_orders.jsonl").read_bytes()
        assert 1 == subject.ledger.compact().new_trades
        assert pending != (log.parent / "pending_orders.jsonl").read_bytes()
    assert before + incremental.FILLS_PER_ORDER + 1 == sum(1 for _ in subject.ledger.rows("trades"))
    assert [] == list(subject.ledger.rows("findings"))
    subject.ledger.close()


def test_a_program_that_fails_is_named_with_what_it_said() -> None:
    """A measured program that fails is no figure: its command, its exit code and its last words are told."""
    with pytest.raises(process.ProgramFailed, match="ended with 3: no such log"):
        process.measure(["sh", "-c", "echo no such log >&2; exit 3"])


def test_the_memory_of_children_counts() -> None:
    """The peak is that of the whole tree, not of its largest process."""
    hold = "import time; held = bytearray(b'x') * 50_000_000; time.sleep(0.4)"
    both = f"[subprocess.Popen([sys.executable, '-c', {hold!r}]) for _ in range(2)]"
    run = f"import subprocess, sys; [process.wait() for process in {both}]"
    assert process.measure([sys.executable, "-c", run]).peak_bytes > 100_000_000


def test_the_memory_of_the_measuring_process_does_not_count() -> None:
    """A small program is small, however large the one that measures it is."""
    held = bytearray(b"x") * 150_000_000
    assert process.measure([sys.executable, "-c", "import time; time.sleep(0.1)"]).peak_bytes < len(held)
