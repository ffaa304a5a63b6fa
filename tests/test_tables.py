"""Tables: every value exactly as it came, whole lines of segments and log, and files that are whole or not there."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from compactor import Ledger
from compactor.core.derived import Finding, PendingLine, TradeLine
from compactor.core.events import Event
from compactor.core.fold import Fold
from compactor.core.instants import BadInstant, nanos
from compactor.core.lines import Block
from compactor.ledger import LedgerEntry
from compactor.tables.arrow import WIDE, Shape, Unfit, batches, with_fitting_types
from compactor.tables.rows import EventRows
from compactor.tables.schema import EVENTS, FINDINGS, PENDING, TRADES
from compactor.ui.cli import app
from tests import cases
from tests.conftest import ROOT
from tests.stories import damaged, order_lives, to_lines

Made = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]
Run = Callable[..., Result]
WHAT = {"trades": TRADES, "pending": PENDING, "events": EVENTS, "findings": FINDINGS}


@pytest.fixture
def run(data: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with `data` as the data directory."""
    monkeypatch.setenv("COMPACTOR_DATA", str(data))
    monkeypatch.delenv("COMPACTOR_DEBUG", raising=False)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), prog_name="compactor")

    return invoke


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the log of every case of `fixtures/cases` as a team, compacted."""
    path = tmp_path_factory.mktemp("books")
    for number, case in enumerate(cases.discover()):
        ledger = path / "team" / f"case-{number:03}"
        ledger.mkdir(parents=True)
        # A line that only a ledger of the case's own team takes is a finding here, and is compared as one.
        (ledger / "events.jsonl").write_bytes(case.log)
        Ledger(ledger).compact()
    return path


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def exported(books: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["export", *arguments, "--data", str(books)])
    assert 0 == result.exit_code, result.stderr
    return result.stdout


class TestRows:
    @pytest.mark.parametrize(
        ("table", "struct", "own"),
        [
            (TRADES, TradeLine, set()),
            (PENDING, PendingLine, set()),
            (FINDINGS, Finding, {"team_id"}),
            (EVENTS, Event, {"event", "offset", "length", "raw"}),
        ],
    )
    def test_a_table_has_every_field_of_its_lines(self, table: Any, struct: Any, own: set[str]) -> None:
        """Section 5: the full list; a field that is added to the format is missed here first."""
        # The model separates the two kinds of `legs`, which are one column.
        assert set(struct.__struct_fields__) - {"leg_fills"} | own == set(table.names)

    @pytest.mark.parametrize("what", ["trades", "pending", "findings"])
    def test_json_lines_are_the_derived_lines(self, books: Path, what: str) -> None:
        """Section 5: what an export of a derived file holds is what the file holds, in its order."""
        name = {"trades": "trades", "pending": "pending_orders", "findings": "findings"}[what]
        expected = [
            {"team_id": place.name, **json.loads(line)}
            for place in sorted((books / "team").iterdir())
            for line in cases.read_derived(place)[f"{name}.jsonl"].splitlines()
        ]
        assert expected == objects(exported(books, what))
        assert len(expected) > 50

    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def test_the_events_are_those_that_the_fold_applies(self, data: st.DataObject) -> None:
        """1.4, 5: however damaged a log is, events and findings that were not applied are the whole of it."""
        log = data.draw(damaged(to_lines(data.draw(order_lives()))))
        fold = Fold("alpha", lambda *_: ())
        fold._retention = None
        fold.feed(log, 0)
        rows = list(EventRows("alpha").rows(Block(0, log, len(log))))
        assert fold.counts.events == len(rows)
        spans = [(row[1], row[2]) for row in rows]
        spans += [
            (one["offset"], one["length"]) for one in objects(fold.take_lines().findings.decode()) if not one["applied"]
        ]
        covered = sorted(place for start, length in spans for place in range(start, start + length))
        assert len(set(covered)) == len(covered)
        rest = bytes(byte for place, byte in enumerate(log) if place not in set(covered))
        assert b"" == rest.replace(b"\r", b"").replace(b" ", b"").replace(b"\n", b"")

    def test_an_event_is_as_it_was_written(self, run: Run, data: Path, write_log: WriteLog) -> None:
        """Section 2: decimals and times as they came, `raw` and `legs` verbatim, nanoseconds of `recorded_at` too."""
        line = (
            '{"event":"new","order_id":"o","ts":"2026-03-02T09:30:00.1-05:00","recorded_at":"2026-03-02T14:30:00.123456789Z",'
            '"quantity":1.50,"limit_price":"530.00","legs":[{"ratio":1.10}],"raw":{"price": 1.10, "note":"\\u00e9"}}'
        )
        write_log("alpha", line)
        text = run("export", "events").stdout
        row = objects(text)[0]
        assert ("2026-03-02T09:30:00.1-05:00", "2026-03-02T14:30:00.123456789Z") == (row["ts"], row["recorded_at"])
        assert ("1.50", "530.00") == (row["quantity"], row["limit_price"])
        assert '"legs":[{"ratio":1.10}]' in text
        assert '"raw":{"price": 1.10, "note":"\\u00e9"}' in text
        assert (0, len(line) + 1) == (row["offset"], row["length"])

    def test_what_nobody_checks_is_shown_as_well_as_it_can_be(
        self, run: Run, write_log: WriteLog, placed: Made
    ) -> None:
        """Section 2: `raw` is never interpreted, and `recorded_at` is understood in more notations than one."""
        ledger = write_log("alpha")
        head = json.dumps(placed(recorded_at="2026-03-02 14:33:02.5+0000"))[:-1].encode()
        (ledger / "events.jsonl").write_bytes(head + b', "raw": {"a": "\xff"}}\n')
        row = objects(run("export", "events").stdout)[0]
        assert ("2026-03-02T14:33:02.500000000Z", {"a": "\ufffd"}) == (row["recorded_at"], row["raw"])

    def test_a_line_that_is_not_whole_is_not_there_yet(self, run: Run, write_log: WriteLog, placed: Made) -> None:
        """Section 2: a last line without its newline is not there yet."""
        ledger = write_log("alpha", placed())
        with open(ledger / "events.jsonl", "a") as log:
            log.write(json.dumps(placed("o2")))
        assert ["o1"] == [row["order_id"] for row in objects(run("export", "events").stdout)]

    def test_segments_and_log_are_one_sequence(self, run: Run, data: Path) -> None:
        """8.4: every reader goes through segments and log; what is exported does not change by sealing."""
        sample(data)
        before = run("export", "events").stdout
        assert 0 == run("seal", "--now").exit_code
        with open(data / "team/alpha/events.jsonl", "a") as log:
            log.write('{"event":"new","order_id":"last","ts":"2026-03-03T00:00:00Z"}\n')
        after = objects(run("export", "events").stdout)
        assert ["last"] == [row["order_id"] for row in after if row not in objects(before)]
        assert 255 == len(after)

    def test_a_ledger_that_its_events_name(self, run: Run, data: Path, placed: Made) -> None:
        """1.2: the first event that carries a team names the ledger; another team's events are findings."""
        lines = [placed("a"), placed("b", team_id="solo"), placed("c", team_id="other"), placed("d")]
        (data / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        found = [(row["team_id"], row["order_id"]) for row in objects(run("export", "events").stdout)]
        assert [("default", "a"), ("solo", "b"), ("solo", "d")] == found

    def test_windows_of_time_compare_instants(self, run: Run, data: Path, write_log: WriteLog, placed: Made) -> None:
        """Section 2: times are compared as instants, never as text; `since` is in the window and `until` is not."""
        times = ["2026-03-02T09:29:59.999999999-05:00", "2026-03-02T14:30:00Z", "2026-03-02T10:00:00-05:00"]
        write_log("alpha", *(placed(f"o{n}", ts=ts) for n, ts in enumerate(times)), "garbage")
        run("compact")

        def orders(what: str, *window: str) -> list[Any]:
            return [row.get("order_id", row.get("kind")) for row in objects(run("export", what, *window).stdout)]

        assert ["o1", "o2"] == orders("events", "--since", "2026-03-02T14:30:00Z")
        assert ["o0"] == orders("events", "--until", "2026-03-02T14:30:00Z")
        assert ["o1"] == orders("pending", "--since", "2026-03-02T14:30:00Z", "--until", "2026-03-02T15:00:00Z")
        assert ["o0", "o1", "o2"] == orders("events", "--since", "2026-03-02", "--until", "2026-03-03")
        # A line that is no event has the time of the event before it.
        assert ["not_json"] == orders("findings", "--since", "2026-03-02T15:00:00Z")
        assert [] == orders("findings", "--until", "2026-03-02T15:00:00Z")


def sample(data: Path) -> None:
    """Lay fixtures/sample into a data directory and compact it."""
    for place in (ROOT / "fixtures/sample/team").iterdir():
        (data / "team" / place.name).mkdir(parents=True)
        log = data / "team" / place.name / "events.jsonl"
        log.write_bytes((place / "events.jsonl").read_bytes())
        Ledger(log.parent).compact()


class TestFormats:
    @pytest.mark.parametrize("what", list(WHAT))
    def test_csv_has_what_json_lines_have(self, books: Path, what: str) -> None:
        """Text in CSV: the same values as they came; what is not known is empty."""
        rows = list(csv.DictReader(io.StringIO(exported(books, what, "--format", "csv"))))
        expected = objects(exported(books, what))
        assert list(WHAT[what].names) == list(rows[0])
        assert [_as_csv(WHAT[what], row) for row in expected] == rows

    @pytest.mark.parametrize("what", list(WHAT))
    def test_parquet_loses_nothing(self, books: Path, tmp_path: Path, what: str) -> None:
        """Exact decimals, nanoseconds and zones: each value of each case is the number and instant of its text."""
        file = tmp_path / "table.parquet"
        exported(books, what, "--out", str(file))
        found = parquet.read_table(file)
        expected = objects(exported(books, what))
        assert len(expected) == found.num_rows
        for column in WHAT[what].columns:
            texts = [row.get(column.name) for row in expected]
            assert _typed(column.kind, texts) == _values(found.column(column.name)), column.name
            if column.kind == "time":
                ends = [text and ("Z" if text[-1] == "Z" else text[-6:]) for text in texts]
                assert ends == found.column(f"{column.name}_zone").to_pylist()

    def test_decimals_are_as_wide_as_all_programs_read(self, books: Path, tmp_path: Path) -> None:
        """DECIMAL(38, 9): nine places are the finest that there are, and other programs stop at 38 digits."""
        exported(books, "trades", "--out", str(tmp_path / "t.parquet"))
        schema = parquet.read_schema(tmp_path / "t.parquet")
        assert arrow.decimal128(38, 9) == schema.field("quantity").type
        assert arrow.timestamp("ns", "UTC") == schema.field("timestamp").type

    @pytest.mark.parametrize(
        ("price", "expected"),
        [
            ("0.123456789012", arrow.decimal128(38, 18)),
            ("1" * 31, arrow.decimal256(76, 38)),
            ("9" * 29, arrow.decimal128(38, 9)),
            ("-" + "9" * 29 + ".123456789", arrow.decimal128(38, 9)),
            ("1.000000000000000000000000", arrow.decimal128(38, 9)),
        ],
    )
    def test_a_column_is_as_wide_as_its_values_need(
        self, run: Run, write_log: WriteLog, placed: Made, tmp_path: Path, price: str, expected: Any
    ) -> None:
        """Nothing is rounded: a value with more digits makes its column wider, and no other one."""
        write_log("alpha", placed("o1"), placed("o2", limit_price=price))
        result = run("export", "events", "--out", str(tmp_path / "e.parquet"))
        assert 0 == result.exit_code, result.stderr
        found = parquet.read_table(tmp_path / "e.parquet")
        assert expected == found.schema.field("limit_price").type
        assert [Decimal("530"), Decimal(price)] == found.column("limit_price").to_pylist()
        assert arrow.decimal128(38, 9) == found.schema.field("quantity").type

    @pytest.mark.parametrize(
        ("field", "value"),
        [("limit_price", "1" * 40), ("limit_price", "0." + "1" * 39)],
    )
    def test_what_fits_no_type_names_its_line(
        self, run: Run, write_log: WriteLog, placed: Made, tmp_path: Path, field: str, value: str
    ) -> None:
        """An error that names the line and the way on; that column as text then loses nothing."""
        out = tmp_path / "e.parquet"
        write_log("alpha", placed("o1"), placed("o2", **{field: value}))
        first = len(json.dumps(placed("o1"))) + 1
        refused = run("export", "events", "--out", str(out))
        assert 1 == refused.exit_code
        assert f"alpha: events.jsonl, offset {first}: `{field}` is {value}" in refused.stderr
        assert f"--text {field}" in refused.stderr
        assert [] == list(tmp_path.glob("*.parquet*")) + list(tmp_path.glob(".*"))
        assert 0 == run("export", "events", "--out", str(out), "--text", field).exit_code
        assert value == parquet.read_table(out).column(field).to_pylist()[1]

    def test_all_numbers_and_times_as_texts(self, books: Path, tmp_path: Path) -> None:
        """--text all: what came in as text goes out as it came; offsets stay numbers."""
        exported(books, "trades", "--out", str(tmp_path / "t.parquet"), "--text", "all")
        found = parquet.read_table(tmp_path / "t.parquet")
        expected = [tuple(row.get(name) for name in TRADES.names) for row in objects(exported(books, "trades"))]
        assert list(TRADES.names) == found.column_names
        assert expected == list(zip(*(column.to_pylist() for column in found.columns), strict=True))

    @pytest.mark.parametrize(
        "ts", ["2026-03-02T14:30:60Z", "2026-03-02t14:30:00.000000001z", "2261-12-31T23:59:59.999999999Z"]
    )
    def test_times_that_arrow_does_not_read_itself(
        self, run: Run, write_log: WriteLog, placed: Made, tmp_path: Path, ts: str
    ) -> None:
        """Section 2: whatever the format takes as a time is that instant in the table."""
        write_log("alpha", placed(ts=ts))
        assert 0 == run("export", "events", "--out", str(tmp_path / "e.parquet")).exit_code
        assert [nanos(ts)] == _values(parquet.read_table(tmp_path / "e.parquet").column("ts"))

    def test_of_a_field_that_stands_twice_the_last_one_counts(self, run: Run, data: Path) -> None:
        """The rows read a line as the fold does, whatever the first of two values is."""
        log = data / "team" / "alpha" / "events.jsonl"
        log.parent.mkdir(parents=True)
        log.write_text(
            '{"event":"new","order_id":"o","ts":"2026-03-02T14:30:00Z","recorded_at":{},"unknown":1e400,'
            '"recorded_at":"2026-03-02T14:30:01.5Z"}\n'
        )
        result = run("export", "events")
        assert (0, "2026-03-02T14:30:01.5Z") == (result.exit_code, json.loads(result.stdout)["recorded_at"])

    def test_a_table_without_rows_has_its_columns(self, run: Run, write_log: WriteLog, tmp_path: Path) -> None:
        """A program that reads a file every day need not fear a quiet one."""
        write_log("alpha")
        assert ",".join(TRADES.names) + "\n" == run("export", "trades", "--format", "csv").stdout
        assert "" == run("export", "trades").stdout
        run("export", "trades", "--out", str(tmp_path / "t.parquet"))
        assert Shape(TRADES, widths=WIDE).schema() == parquet.read_schema(tmp_path / "t.parquet")


digits = st.text("0123456789", min_size=1, max_size=40)
decimals = st.builds(
    lambda sign, whole, part: f"{sign}{whole}{'.' if part else ''}{part}"[:41],
    st.sampled_from(["", "-"]), digits, st.one_of(st.just(""), digits),
).filter(lambda text: text[-1] != "." and sum(map(str.isdigit, text)) <= 40)  # fmt: skip
instants = st.builds(
    lambda at, fraction, zone: f"{at:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + fraction + zone,
    st.datetimes(),
    st.one_of(st.just(""), st.from_regex(r"\.[0-9]{1,9}", fullmatch=True)),
    st.sampled_from(["Z", "z", "-05:00", "+05:30", "+00:00"]),
)


class TestLaws:
    """Whatever the format takes as a number or a time is that very number or time, or is refused."""

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.one_of(st.none(), decimals), min_size=1, max_size=5))
    def test_a_decimal_is_exact_or_unfit(self, texts: list[str | None]) -> None:
        """Section 2: up to 40 digits, wherever the point stands."""
        rows = [tuple(text if name == "limit_price" else None for name in EVENTS.names) for text in texts]
        needed = [_digits(text) for text in texts if text is not None]
        try:
            found = _column("limit_price", rows)
        except Unfit:
            assert any(whole > 38 or places > 38 for whole, places in needed)
        else:
            assert [None if text is None else Decimal(text) for text in texts] == found
            assert all(whole <= 38 and places <= 38 for whole, places in needed)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.one_of(st.none(), instants), min_size=1, max_size=5))
    def test_a_time_is_exact_or_unfit(self, texts: list[str | None]) -> None:
        """Section 2: 0 to 9 fractional digits, any offset, any year that 64 bits of nanoseconds reach."""
        try:
            expected = [None if text is None else nanos(text) for text in texts]
        except BadInstant:
            return  # Beyond the years 1 to 9999 in UTC: no event has it.
        rows = [tuple(text if name == "ts" else None for name in EVENTS.names) for text in texts]
        try:
            assert expected == _column("ts", rows)
        except Unfit:
            assert any(ns is not None and abs(ns) >= 2**63 for ns in expected)


def _digits(text: str) -> tuple[int, int]:
    """How many digits a number needs before and behind the point."""
    whole, _, places = text.lstrip("-").partition(".")
    return len(whole.lstrip("0")), len(places.rstrip("0"))


def _column(name: str, rows: list[Any]) -> list[Any]:
    source: Any = _Rows(rows)
    return with_fitting_types(
        Shape(EVENTS),
        lambda shape: [value for batch in batches(source, shape) for value in _values(batch.column(name))],
    )


class _Rows:
    """A source of rows that were made up."""

    table = EVENTS

    def __init__(self, rows: list[Any]) -> None:
        length = EVENTS.find("length")
        self.rows = [(*row[:length], 1, *row[length + 1 :]) for row in rows]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def describe_row(self, row: Any) -> str:
        return str(row)

    def find_entry(self, row: Any) -> LedgerEntry:
        return LedgerEntry("alpha", Path())


def _as_csv(table: Any, row: dict[str, Any]) -> dict[str, str]:
    return {name: _cell(row.get(name), table.columns[table.find(name)].kind) for name in table.names}


def _cell(value: Any, kind: str) -> str:
    if value is None:
        return ""
    if kind == "json":
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value).lower() if kind == "bool" else str(value)


def _typed(kind: str, texts: list[Any]) -> list[Any]:
    if kind == "json":
        return [None if one is None else json.dumps(one, separators=(",", ":"), ensure_ascii=False) for one in texts]
    make: dict[str, Callable[[Any], Any]] = {"decimal": Decimal, "time": nanos}
    return [None if text is None else make.get(kind, lambda value: value)(text) for text in texts]


def _values(column: Any) -> list[Any]:
    is_time = arrow.types.is_timestamp(column.type)
    found: list[Any] = (column.cast(arrow.int64()) if is_time else column).to_pylist()
    return found


class TestFiles:
    def test_a_file_is_whole_or_as_it_was(self, run: Run, data: Path, tmp_path: Path) -> None:
        """An export that fails leaves what was there, and nothing beside it."""
        sample(data)
        out = tmp_path / "trades.csv"
        out.write_text("yesterday's\n")
        (data / "team/bravo/trades.jsonl").write_text("garbage\n")
        result = run("export", "trades", "--out", str(out), "--team", "bravo")
        assert (1, "") == (result.exit_code, result.stdout)
        assert f"{data}/team/bravo/trades.jsonl: at offset 0 expected a derived line" in result.stderr
        assert "yesterday's\n" == out.read_text()
        assert [out.name] == [path.name for path in tmp_path.iterdir() if path != data]
        assert 0 == run("export", "trades", "--out", str(out), "--team", "alpha").exit_code
        assert 41 == len(out.read_text().splitlines())

    @pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
    def test_a_ledger_that_cannot_be_read_is_left_out_by_name(
        self, run: Run, data: Path, tmp_path: Path, format_: str
    ) -> None:
        """No team can keep the rows of the others from anybody; exit code 1 says that one is missing."""
        sample(data)
        out = tmp_path / f"trades.{format_}"
        (data / "team/alpha/trades.jsonl").write_text("garbage\n")
        result = run("export", "trades", "--out", str(out))
        assert 1 == result.exit_code
        assert f"alpha: left out: {data}/team/alpha/trades.jsonl: at offset 0 expected a derived line" in result.stderr
        assert "1 of 3 ledgers were left out" in result.stderr
        assert b"bravo" in out.read_bytes() or format_ == "parquet"
        if format_ == "parquet":
            assert "alpha" not in (teams := parquet.read_table(out)["team_id"].to_pylist())
            assert "bravo" in teams

    @pytest.mark.parametrize("value", [{"limit_price": "1e39"}, {"limit_price": "1" * 40}])
    def test_a_value_that_no_type_holds_is_of_one_ledger_only(
        self, run: Run, data: Path, write_log: WriteLog, tmp_path: Path, value: dict[str, str]
    ) -> None:
        """A value that no column holds stopped Parquet and SQL for all."""
        event = {"event": "new", "order_id": "o", "ts": "2026-03-02T15:00:00Z", "symbol": "SPY", "side": "buy"}
        for team in ("alpha", "bravo", "charlie"):
            write_log(team, event | {"quantity": "1"} | (value if team == "bravo" else {}))
        out = tmp_path / "events.parquet"
        result = run("export", "events", "--out", str(out))
        assert 1 == result.exit_code
        assert "bravo: left out: bravo: events.jsonl, offset 0" in result.stderr
        assert ["alpha", "charlie"] == parquet.read_table(out)["team_id"].to_pylist()
        result = run("sql", "select team_id from events", "--json")
        assert 1 == result.exit_code
        assert ["alpha", "charlie"] == [json.loads(line)["team_id"] for line in result.stdout.splitlines()]
        assert "bravo: left out: bravo: events.jsonl, offset 0" in result.stderr
        (name,) = value
        assert 0 == run("export", "events", "--out", str(out), "--text", name).exit_code
        assert 3 == parquet.read_table(out).num_rows

    @pytest.mark.parametrize(
        "name",
        ["team/alpha/events.jsonl", "team/alpha/segments/x.csv", "team/new/events.jsonl", "team/alpha/.state/lock"],
    )
    def test_a_file_of_a_ledger_is_never_a_target(self, run: Run, data: Path, write_log: WriteLog, name: str) -> None:
        """1.3: the log is the only truth; a slip of the hand cannot put a table in its place."""
        write_log("alpha", "{}")
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        result = run("export", "events", "--format", "jsonl", "--out", str(data / name))
        assert 2 == result.exit_code
        assert "never written by an export" in result.stderr
        assert "{}\n" == (data / "team/alpha/events.jsonl").read_text()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--out", "table.xlsx"], "the name tells no format"),
            (["--out", "/dev/null", "--format", "csv"], "expected a file that may be written"),
            (["--out", "nowhere/t.csv"], "no such directory"),
            (["--since", "yesterday"], "is not an RFC 3339 time"),
            (["--since", "2026-03-03", "--until", "2026-03-02"], "lies before --since"),
            (["--text", "nothing"], "no such column"),
            (["--json", "--format", "csv"], "exclude each other"),
            (["--team", "nobody"], "no ledger of team 'nobody'"),
        ],
    )
    def test_wrong_use(self, run: Run, write_log: WriteLog, arguments: list[str], message: str) -> None:
        """Exit code 2, one message, and nothing written."""
        write_log("alpha")
        result = run("export", "trades", *arguments)
        assert (2, "") == (result.exit_code, result.stdout)
        assert message in result.stderr

    def test_memory_does_not_grow_with_the_log(self, data: Path, write_log: WriteLog, placed: Made) -> None:
        """Events are streamed and not loaded: a log of 43 MB within 40 MB more than a table without rows needs."""
        ledger = write_log("alpha")
        line = json.dumps(placed(raw={"message": "x" * 4000})) + "\n"
        (ledger / "events.jsonl").write_text(line * 10_000)
        peaks = {what: _peak_of(what, data) for what in ("trades", "events")}
        assert 10_000 == parquet.read_metadata(data / "events.parquet").num_rows
        assert peaks["events"] - peaks["trades"] < 40 << 20


def _peak_of(what: str, data: Path) -> int:
    """The greatest resident size of an export in bytes."""
    code = (
        "import resource, sys\nfrom compactor.ui.cli import app\ntry: app(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    arguments = ["export", what, "--data", str(data), "--out", str(data / f"{what}.parquet")]
    command = [sys.executable, "-c", code, *arguments]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout) * 1024


class TestWithoutTheExtra:
    """Somebody who has not installed the extra `tables`."""

    def run(self, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        code = (
            "import sys\nfor name in ('duckdb', 'pyarrow', 'polars', 'pandas'): sys.modules[name] = None\n"
            "from compactor.ui.cli import main\nsys.argv[0] = 'compactor'\nmain()"
        )
        environment = {**os.environ, "COMPACTOR_DATA": str(data)}
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    @pytest.mark.parametrize("arguments", [["export", "trades", "--format", "parquet"], ["sql", "select 1"]])
    def test_the_message_says_how_to_install_it(self, data: Path, write_log: WriteLog, arguments: list[str]) -> None:
        """One clear message: what is missing and what to do."""
        write_log("alpha")
        done = self.run(data, *arguments)
        assert (1, "") == (done.returncode, done.stdout)
        assert done.stderr.endswith("Install it: pip install 'duckdb>=2.0' 'polars>=1.20' 'pyarrow>=16'\n")
        assert 1 == len(done.stderr.splitlines())

    @pytest.mark.parametrize("format_", ["jsonl", "csv"])
    def test_json_lines_and_csv_need_nothing(self, data: Path, write_log: WriteLog, placed: Made, format_: str) -> None:
        """Texts need no types."""
        write_log("alpha", placed())
        done = self.run(data, "export", "events", "--format", format_)
        assert (0, "") == (done.returncode, done.stderr)
        assert "530.00" in done.stdout
