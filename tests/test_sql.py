"""SQL over all teams: exact numbers, nothing that can be changed, and wrong SQL is one message."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compactor import Ledger
from compactor.tables.query import named_tables
from compactor.tables.schema import TABLES
from compactor.ui.cli import app
from tests.conftest import ROOT
from tests.test_tables import sample

Made = Callable[..., dict[str, Any]]
WriteLog = Callable[..., Path]
Ask = Callable[..., Result]


@pytest.fixture
def ask(data: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask a query of `data`."""
    monkeypatch.setenv("COMPACTOR_DATA", str(data))
    monkeypatch.delenv("COMPACTOR_DEBUG", raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["sql", *arguments], prog_name="compactor")


def rows(result: Result) -> list[dict[str, Any]]:
    assert 0 == result.exit_code, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


class TestAnswers:
    def test_all_teams_are_in_one_table(self, ask: Ask, data: Path) -> None:
        """Views trades, pending_orders, events, findings over all teams; --team leaves one."""
        sample(data)
        query = "select team_id, count(*) as n from {} group by all order by 1"
        counts = {name: rows(ask(query.format(name), "--json")) for name in TABLES}
        assert {"trades": 120, "pending_orders": 7, "events": 254, "findings": 3} == {
            name: sum(row["n"] for row in found) for name, found in counts.items()
        }
        assert ["alpha", "bravo", "charlie"] == [row["team_id"] for row in counts["trades"]]
        assert [{"n": 41}] == rows(ask("select count(*) as n from trades", "--team", "bravo", "--json"))

    def test_sums_are_exact(self, ask: Ask, write_log: WriteLog, placed: Made, filled: Made) -> None:
        """No float ever touches a price: a sum that doubles get wrong."""
        ledger = write_log("alpha", placed(quantity="3"))
        for number, qty in enumerate(["0.1", "0.2", "0.000000003"]):
            write_log("alpha", filled(event="partial_fill", execution_id=f"x{number}", qty=qty, filled_qty=None))
        Ledger(ledger).compact()
        query = "select sum(quantity) q, sum(quantity * execution_price) money, typeof(sum(quantity)) t from trades"
        assert [{"q": "0.300000003", "money": "158.99400158994", "t": "DECIMAL(38,9)"}] == rows(ask(query, "--json"))

    def test_times_keep_nanoseconds_and_compare_as_instants(self, ask: Ask, write_log: WriteLog, placed: Made) -> None:
        """Section 2: an instant is compared as one, whatever the offset it is written with."""
        write_log(
            "alpha", placed("a", ts="2026-03-02T09:30:00.000000001-05:00"), placed("b", ts="2026-03-02T14:30:00Z")
        )
        query = "select ts, ts_zone from events where ts > '2026-03-02T10:30:00-04:00'"
        assert [{"ts": "2026-03-02T14:30:00.000000001Z", "ts_zone": "-05:00"}] == rows(ask(query, "--json"))

    def test_a_day_is_one_of_utc(
        self, ask: Ask, write_log: WriteLog, placed: Made, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No locale: what a query answers does not depend on where the machine stands."""
        monkeypatch.setenv("TZ", "America/New_York")
        write_log("alpha", placed("a", ts="2026-03-02T01:00:00Z"))
        query = "select ts::date as day, ts >= '2026-03-02' as later, hour(ts) as hour from events"
        assert [{"day": "2026-03-02", "later": True, "hour": 1}] == rows(ask(query, "--json"))

    def test_only_whole_lines_are_seen(self, ask: Ask, write_log: WriteLog, placed: Made) -> None:
        """A last line without its newline is not there yet."""
        ledger = write_log("alpha", placed())
        with open(ledger / "events.jsonl", "a") as log:
            log.write(json.dumps(placed("o2")))
        assert [{"n": 1}] == rows(ask("select count(*) n from events", "--json"))

    def test_a_query_that_reads_a_table_twice_reads_the_same(self, ask: Ask, data: Path) -> None:
        """A stream can be read once only; a table of a query can be joined with itself."""
        sample(data)
        query = "select count(*) n from trades a join trades b using (team_id, trade_id)"
        assert [{"n": 120}] == rows(ask(query, "--json"))

    @pytest.mark.parametrize("value", ["1" * 31, "0.1234567890123456789"])
    def test_what_fits_no_decimal_names_its_line(self, ask: Ask, write_log: WriteLog, placed: Made, value: str) -> None:
        """DuckDB has 38 digits: never a rounded number, but the line, and the column as text."""
        write_log("alpha", placed("o1"), placed("o2", limit_price=value))
        refused = ask("select limit_price from events")
        assert (1, "") == (refused.exit_code, refused.stdout)
        assert "alpha: events.jsonl, offset " in refused.stderr
        found = rows(ask("select limit_price from events", "--json", "--text", "limit_price"))
        assert value == found[1]["limit_price"]

    def test_a_table_for_people_and_csv_for_programs(self, ask: Ask, data: Path) -> None:
        """Aligned text in a pipe, CSV with a head, two columns of one name told apart."""
        sample(data)
        query = "select symbol, sum(quantity) s, sum(quantity) s from trades where symbol[1] in ('K', 'A') group by 1"
        query += " having symbol in ('KO', 'AMD') order by 1"
        assert ["symbol    s  s_2", "AMD     225  225", "KO      610  610"] == ask(query).stdout.splitlines()
        text = ask(query, "--format", "csv").stdout
        assert [["symbol", "s", "s_2"], ["AMD", "225", "225"]] == list(csv.reader(io.StringIO(text)))[:2]

    def test_values_that_json_has_no_type_for(self, ask: Ask, write_log: WriteLog) -> None:
        """Whatever a query gives is a line of JSON."""
        write_log("alpha")
        query = (
            "select date '2026-03-02' d, interval 1 day i, [1.5, null] l, {'a': 2} s, 12::hugeint h, 'x'::blob b,"
            " null n, true t, timestamp '2026-03-02 10:00:00' ts, 0.5::double f"
        )
        assert [
            {"d": "2026-03-02", "l": ["1.5", None], "s": {"a": 2}, "h": 12, "b": "x", "n": None, "t": True,
             "ts": "2026-03-02T10:00:00", "f": 0.5}
        ] == [{name: row[name] for name in row if name != "i"} for row in rows(ask(query, "--json"))]  # fmt: skip

    def test_a_table_is_read_when_its_name_stands_in_the_query(self) -> None:
        """Reading the events of years takes its time: what a query cannot mean is not read."""
        assert ["trades"] == [table.name for table in named_tables('select * from "Trades" where kind = 1')]
        assert ["events", "findings"] == [table.name for table in named_tables("from events, findings")]
        assert [] == named_tables("select 1 as mytrades")
        assert list(TABLES) == [table.name for table in named_tables("show tables")]


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("selec 1", 'syntax error at or near "selec"'),
            ("select nothing from trades", 'column "nothing" not found'),
            ("select * from orders", "Table with name orders does not exist"),
            ("", "found 0 statements, expected one"),
            ("select 1; select 2", "found 2 statements, expected one"),
            ("drop table trades", "expected one that only reads"),
            ("create table x as from trades", "expected one that only reads"),
            ("copy trades to 'x.csv'", "expected one that only reads"),
            ("attach 'x.db'", "expected one that only reads"),
            ("set threads = 1", "expected one that only reads"),
            ("select * from read_text('/etc/hostname')", "disabled by configuration"),
            ("select quantity / 'x' from trades", "x"),
        ],
    )
    def test_wrong_sql_is_wrong_usage(
        self, ask: Ask, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, query: str, message: str
    ) -> None:
        """Exit code 2, one message from the database, nothing on standard output, nothing written."""
        monkeypatch.chdir(tmp_path)
        sample(data)
        result = ask(query)
        assert (2, "") == (result.exit_code, result.stdout)
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert ["data"] == os.listdir(tmp_path)

    def test_a_ledger_that_cannot_be_read_is_left_out_by_name(self, ask: Ask, data: Path) -> None:
        """A sum that silently lacks a team would be a wrong number: it is named, and the exit code is 1."""
        sample(data)
        (data / "team/bravo/trades.jsonl").write_text("garbage\n")
        result = ask("select distinct team_id from trades", "--json")
        assert 1 == result.exit_code
        assert "bravo" not in result.stdout
        assert "alpha" in result.stdout
        assert f"bravo: left out: {data}/team/bravo/trades.jsonl: at offset 0 expected a derived" in result.stderr
        alone = ask("select count(*) from trades", "--team", "bravo")
        assert (1, "") == (alone.exit_code, alone.stdout)

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_ends_a_query_at_once(
        self, data: Path, write_log: WriteLog, tmp_path: Path, number: int, code: int
    ) -> None:
        """Its exit code, one message, and no temporary files, although the database is in the middle of a step."""
        write_log("alpha")
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        query = "select sum(a.range * b.range) from range(100000) a, range(10000000) b"
        environment = {**os.environ, "COMPACTOR_DATA": str(data), "TMPDIR": str(scratch)}
        command = [sys.executable, "-m", "compactor", "sql", query]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while not list(scratch.glob("*/tables.db")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=10)
        assert code == process.returncode
        assert stderr.startswith("\nStopped.")
        assert [] == list(scratch.iterdir())
