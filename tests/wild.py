"""Wild logs, and every command over them: what `tests/test_fuzz.py` samples and `tests/fuzz.py` searches for longer.

`wild_logs` makes lines that any writer may append: values of every kind in every field, nested ones too, cut and glued
at any byte. `check_commands` lets every command run over such a log and holds what must be true of it: each command
ends well, the lines behind count, the derived files are those of one fold, and copies and imports of it are whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from compactor.core.events import DECIMALS, EVENTS, Event
from compactor.core.fast.interface import NoPlainOrders
from compactor.core.fold import Fold
from compactor.ledger import Ledger
from compactor.ledger.paths import FINDINGS, LOG, PENDING, TRADES

TEAM = "alpha"
PLACED = (
    b'{"event":"new","order_id":"o-last","ts":"2026-03-02T10:00:00Z","recorded_at":"2026-03-02T10:00:00Z",'
    b'"symbol":"AAPL","side":"buy","quantity":"2"}\n'
)
FILLED = (
    b'{"event":"partial_fill","order_id":"o-last","ts":"2026-03-02T10:00:01Z","recorded_at":"2026-03-02T10:00:01Z",'
    b'"execution_id":"x-last","price":"10","qty":"1"}\n'
)

# Values.

NUMBERS = [
    "0", "1", "10", "-1", "0.5", "1.50", "1e3", "1E-9", "-0", "0.0000000000000000000000000000000000000001", "1e39",
    "-1e39", "1e40", "1e400", "1e-400", "0e9999", "NaN", "Infinity", "1_0", "", " 1", "9" * 40, "9" * 41, "9" * 400,
    "0." + "0" * 38 + "1", "18446744073709551616", "9223372036854775808", "1e-39", "٣",
]  # fmt: skip
TIMES = [
    "2026-03-02T10:00:00Z", "2026-03-02T10:00:00.5Z", "2026-03-02T10:00:00.123456789Z", "2026-03-03T10:00:00-05:00",
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1600-02-29T00:00:00.0Z", "1900-01-01T00:00:00Z",
    "1899-12-31T23:59:59Z", "1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00.0Z", "2016-12-31T23:59:60Z",
    "2261-12-31T23:59:59.999999999Z", "2262-01-01T00:00:00.0Z", "9999-12-31T23:59:59.999999999Z",
    "9999-12-31T23:59:60Z", "9999-12-31T23:59:59-14:00", "2026-03-02T24:00:00.0Z", "2026-03-02 10:00:00+00:00",
    "2026-03-02T10:00:00+0000", "2026-03-02T10:00:00", "2026-02-30T10:00:00Z", "2026-03-02T10:00:00.1234567890123Z",
    "", "now", "1637245837444", "2100-01-01T00:00:00Z", "1950-06-01T00:00:00.25Z",
]  # fmt: skip
IDS = ["o-1", "o-2", "o-last", "x-1", "l-1", "", " ", "a/b", "..", "\0", "é", "\U0001f600", "x" * 300, '"', "\\", "\n"]
NAMES = [*EVENTS, "order_paused", "", "\0", "new\n"]
TEXTS = ["AAPL", "BTC/USD", "buy", "sell", "BUY", "OrderSide.BUY", "mleg", "simple", "day", "=1+1", *IDS]
RAW_VALUES = [
    b"null", b"true", b"{}", b"[]", b"1e400", b"-0.0", b"123456789012345678901234567890", b'"\xff"', b'"\\ud800"',
    b'"\\u0000"', b'{"a":"\xff"}', b'{"a":1e400}', b'[[[[1.5]]]]', b'{"a":[1,{"b":null}]}', b"01", b"NaN", b"tru",
    b"[" * 70 + b"]" * 70, b'"\x00"', b'"' + b"y" * 5000 + b'"', b'{"event":"new","order_id":"o-1","ts":"2026"}',
]  # fmt: skip
FIELDS = ("event", *(name for name in Event.__struct_fields__ if name not in ("order_id", "ts")), "raw", "unknown")
TIME_FIELDS = ("ts", "recorded_at", "created_at")
LEG_FIELDS = ("order_id", "id", "symbol", "side", "qty", "price", "execution_id", "filled_qty", "client_order_id", "x")


def json_numbers() -> st.SearchStrategy[bytes]:
    """Numbers as JSON texts, numbers, or what only looks like one."""
    quoted = st.sampled_from(NUMBERS).map(lambda text: json.dumps(text).encode())
    return st.one_of(quoted, st.sampled_from(NUMBERS).map(str.encode), st.sampled_from(RAW_VALUES))


def json_texts(texts: list[str]) -> st.SearchStrategy[bytes]:
    """One of some texts, mostly."""
    plain = st.sampled_from(texts).map(lambda text: json.dumps(text).encode())
    return st.one_of(plain, plain, st.sampled_from(RAW_VALUES))


@st.composite
def objects(draw: DrawFn, values: dict[str, st.SearchStrategy[bytes]], *, fields_max: int = 6) -> bytes:
    """A JSON object with some of these fields, in any order, now and then one of them twice."""
    names = draw(st.lists(st.sampled_from(sorted(values)), max_size=fields_max))
    members = [b'"%b":%b' % (name.encode(), draw(values[name])) for name in names]
    return b"{" + draw(st.sampled_from([b",", b", "])).join(members) + b"}"


def value_of(name: str) -> st.SearchStrategy[bytes]:
    """Values of a field, valid ones and others."""
    if name in DECIMALS or name in ("qty", "price", "filled_qty"):
        return json_numbers()
    if name in TIME_FIELDS:
        return json_texts(TIMES)
    if name == "event":
        return json_texts(NAMES)
    if name == "legs":
        leg = objects({one: value_of(one) if one != "x" else st.sampled_from(RAW_VALUES) for one in LEG_FIELDS})
        legs = st.lists(leg, max_size=3).map(lambda one: b"[" + b",".join(one) + b"]")
        return st.one_of(legs, legs, st.sampled_from(RAW_VALUES))
    if name in ("raw", "unknown", "extended_hours"):
        return st.sampled_from(RAW_VALUES)
    return json_texts(IDS if name.endswith("_id") or "team" in name else TEXTS)


_VALUES = {name: value_of(name) for name in FIELDS}
_VALUES["team_id"] = st.sampled_from([b'"alpha"', b'"alpha"', b'"alpha"', b'"bravo"', b"null", b'""', b"5"])
_HEADS = [
    b'"event":"new","order_id":"o-1","symbol":"AAPL","side":"buy","quantity":"10",',
    b'"event":"new","order_id":"o-1",',
    b'"event":"fill","order_id":"o-1","price":"10","qty":"1",',
    b'"event":"partial_fill","order_id":"o-1","price":"10","qty":"1","execution_id":"x-1",',
    b'"event":"snapshot","order_id":"o-1","filled_qty":"5","filled_avg_price":"11",',
    b'"event":"trade_bust","order_id":"o-1","previous_execution_id":"x-1",',
    b'"event":"trade_correct","order_id":"o-1","previous_execution_id":"x-1","price":"9","qty":"2",',
    b'"event":"assigned","order_id":"o-1","to_team":"bravo",',
    b'"event":"replaced","order_id":"o-1","replaced_by":"o-2",',
    b'"event":"canceled","order_id":"o-1",',
    b'"event":"restated","order_id":"o-2",',
    b"",
]


@st.composite
def wild_lines(draw: DrawFn) -> bytes:
    """A line without its end: mostly an event with some wild values."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.one_of(st.binary(max_size=40), st.sampled_from(RAW_VALUES))).replace(b"\n", b"")
    head = draw(st.sampled_from(_HEADS)).replace(b"o-1", draw(st.sampled_from([b"o-1", b"o-1", b"o-2", b"l-1"])))
    time_of_event = json.dumps(draw(st.sampled_from([*TIMES[:4], *TIMES]))).encode()
    wild = draw(objects(_VALUES, fields_max=4))
    return b"{%b" % head + b'"ts":%b' % time_of_event + (b"," + wild[1:] if wild != b"{}" else b"}")


@st.composite
def wild_logs(draw: DrawFn) -> bytes:
    """Whole lines, some of them cut, glued together or repeated."""
    log = b""
    for line in draw(st.lists(wild_lines(), min_size=1, max_size=12)):
        kind = draw(st.sampled_from(["whole", "whole", "whole", "whole", "cut", "glued", "twice", "many"]))
        if kind == "cut" and line:
            line = line[: draw(st.integers(0, len(line)))]
        log += line * 30 if kind == "many" else line
        log += b"" if kind == "glued" else b"\n" + line + b"\n" if kind == "twice" else b"\n"
    return log + b"\n"


# Commands.


@contextmanager
def data_directory(log: bytes) -> Iterator[Path]:
    """A data directory with one ledger that has this log."""
    # In memory where that is possible: a sync costs nothing there.
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    data = Path(tempfile.mkdtemp(prefix="fuzz-", dir=shm))
    try:
        ledger = data / "team" / TEAM
        ledger.mkdir(parents=True)
        (ledger / LOG).write_bytes(log)
        with patch.dict(os.environ, COMPACTOR_DATA=str(data)):
            yield ledger
    finally:
        shutil.rmtree(data)


def run(*arguments: str, refused: bool = False, stdin: bytes = b"") -> bytes:
    """Run a command in this process. It must end with 0, or with 1 if it may refuse the input."""
    from compactor.ui.cli import app

    done = CliRunner().invoke(app, list(arguments), input=stdin, prog_name="compactor")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    allowed = (0, 1) if refused else (0,)
    assert done.exit_code in allowed, f"compactor {' '.join(arguments)}: exit {done.exit_code}\n{done.output[-2000:]}"
    return done.stdout_bytes


def read_derived(ledger: Path) -> dict[str, bytes]:
    """The derived files as they are."""
    return {name: (ledger / name).read_bytes() for name in (PENDING, TRADES, FINDINGS) if (ledger / name).exists()}


def fold_by_the_rules(log: bytes) -> dict[str, bytes]:
    """The derived files that one fold without the compiled path makes of a log."""
    fold = Fold(TEAM, lambda *_: (), None, kept_ended=1 << 30)
    fold.plain = NoPlainOrders()
    fold.feed(log, 0)
    lines = fold.take_lines()
    files = {PENDING: fold.pending_lines(), TRADES: lines.trades, FINDINGS: lines.findings}
    return {name: data for name, data in files.items() if data}


def check_commands(log: bytes) -> None:
    """Let every command run over a log of whole lines, sealed and not; raise what any of them raises."""
    with data_directory(log) as ledger:
        run("compact", "--json")
        assert fold_by_the_rules(log) == read_derived(ledger)
        _look(ledger, log)
        run("append", "--team", TEAM, stdin=PLACED)
        with (ledger / LOG).open("ab") as file:
            file.write(FILLED)
        run("compact", "--json")
        _check_last(ledger)
        derived, whole = read_derived(ledger), (ledger / LOG).read_bytes()
        run("seal", "--now")
        _look(ledger, whole)
        run("rebuild")
        assert derived == read_derived(ledger)
        run("verify", "--deep")
        _copy(ledger.parent.parent, derived)
        _import(log)


def _copy(data: Path, derived: dict[str, bytes]) -> None:
    """A backup that is restored is the same ledger."""
    with tempfile.TemporaryDirectory(dir=data.parent) as directory:
        backup, restored = Path(directory) / "backup", Path(directory) / "restored"
        restored.mkdir()
        run("backup", str(data), str(backup))
        run("restore", str(backup), str(restored))
        assert derived == read_derived(restored / "team" / TEAM)


def _import(log: bytes) -> None:
    """The same lines as a recording, and as files of the old layout: named, or taken once."""
    with tempfile.TemporaryDirectory() as directory:
        old, data = Path(directory) / "old", Path(directory) / "data"
        data.mkdir()
        (old / "team" / TEAM).mkdir(parents=True)
        for path in (old / "recording.jsonl", old / "team" / TEAM / PENDING, old / "team" / TEAM / TRADES):
            path.write_bytes(log)
        for arguments in (("alpaca", str(old / "recording.jsonl"), "--team", "bravo"), ("legacy", str(old))):
            run("import", *arguments, "--data", str(data), refused=True)
            before = {path: path.read_bytes() for path in sorted(data.rglob("*.jsonl"))}
            run("import", *arguments, "--data", str(data), refused=True)
            assert before == {path: path.read_bytes() for path in sorted(data.rglob("*.jsonl"))}
        run("compare", str(old), "--data", str(data), refused=True)


def _check_last(ledger: Path) -> None:
    """The order behind everything else counts."""
    with Ledger(ledger) as opened:
        trades = [one for one in opened.trades() if _get(one, "order_id") == "o-last" and _get(one, "kind") == "fill"]
        assert any(_get(one, "execution_id") == "x-last" for one in trades) or b'"o-last"' in b"".join(
            line for line in (ledger / LOG).read_bytes().split(b"\n")[:-3]
        )


def _get(line: Any, name: str) -> Any:
    return line[name] if isinstance(line, dict) else getattr(line, name)


def _look(ledger: Path, log: bytes) -> None:
    """Every command that only reads."""
    assert log == run("cat", "--team", TEAM)
    run("verify", "--deep")
    run("status", "--json")
    for name in ("pending", "trades", "findings"):
        run("show", name)
        run("show", name, "--json")
    for order_id in ("o-1", "l-1", "x-1", "nobody"):
        run("history", order_id, "--raw", refused=True)
        run("history", order_id, "--raw", "--json", refused=True)
    for table in ("events", "trades", "pending", "findings"):
        run("export", table, "--format", "csv")
        run("export", table, "--format", "jsonl", "--since", "2026-01-01")
        run(
            "export",
            table,
            "--format",
            "parquet",
            "--out",
            str(ledger.parent.parent / f"{table}.parquet"),
            refused=True,
        )
    for query in (
        "SELECT * FROM events",
        "SELECT symbol, sum(quantity) FROM trades GROUP BY 1",
        "SELECT * FROM pending_orders",
    ):
        run("sql", query, refused=True)
    for what in ("--events", "--trades", "--findings"):
        run("tail", what, "--from", "0")
    run("tail", "--from", "2026-03-02T10:00:00Z", "--json")
    middle = log.find(b"\n", len(log) // 2) + 1
    for at in (("--at", str(middle)), ("--known-at", "2026-03-02T10:00:00Z"), ("--as-of", "2026-03-02T10:00:00Z")):
        run("replay", *at, "--json")
    run("diff", "0", str(middle))
    run("diff", "2026-03-02T09:00:00Z", "2026-03-02T11:00:00Z", "--as-of")
