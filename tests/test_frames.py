"""Data frames of trades, open orders, events and findings: exact in each of the three libraries."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars
import pytest

from compactor import NoLedger, frames
from compactor.core.instants import BadInstant, nanos
from compactor.tables.arrow import Unfit
from tests.conftest import ROOT
from tests.test_tables import Made, WriteLog, sample

ALL = {"trades": 120, "pending_orders": 7, "events": 254, "findings": 3}


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, compacted."""
    path = tmp_path_factory.mktemp("book")
    sample(path)
    return path


@pytest.mark.parametrize("as_", ["polars", "pandas", "arrow"])
@pytest.mark.parametrize("name", list(ALL))
def test_every_table_in_every_library(book: Path, name: str, as_: Any) -> None:
    """Trades, pending orders, events and findings as polars, pandas or Arrow, of all teams or of one."""
    frame = getattr(frames, name)
    assert ALL[name] == frame(book, as_=as_).shape[0]
    assert 0 < frame(str(book), team="alpha", as_=as_).shape[0] < ALL[name]


@pytest.mark.parametrize("as_", ["polars", "pandas", "arrow"])
def test_numbers_and_times_are_exact(write_log: WriteLog, data: Path, placed: Made, as_: Any) -> None:
    """Decimals with all their digits, times to the nanosecond."""
    ts = "2026-03-02T09:30:00.123456789-05:00"
    write_log("alpha", placed(ts=ts, limit_price="12345678901234567890123456789.123456789"))
    frame = frames.events(data, as_=as_)
    price, at = frame["limit_price"], frame["ts"]
    if as_ == "arrow":
        values = price[0].as_py(), at[0].value
    elif as_ == "pandas":
        values = price[0], at.astype("int64[pyarrow]")[0]
    else:
        values = price[0], at.dt.epoch("ns")[0]
    assert (Decimal("12345678901234567890123456789.123456789"), nanos(ts)) == values


def test_a_decimal_of_polars_has_38_digits(write_log: WriteLog, data: Path, placed: Made) -> None:
    """What does not fit is an error that names the line, and a text where that is asked for; Arrow is wide enough."""
    value = "1" * 31
    write_log("alpha", placed(limit_price=value))
    with pytest.raises(Unfit, match=r"alpha: events\.jsonl, offset 0: `limit_price` is 1111"):
        frames.events(data)
    assert [value] == frames.events(data, text=["limit_price"])["limit_price"].to_list()
    assert [Decimal(value)] == frames.events(data, as_="arrow")["limit_price"].to_pylist()


def test_a_window_of_time(book: Path) -> None:
    """`since` and `until` are times or days."""
    assert 120 == frames.trades(book, since="2026-03-02", until="2026-03-03").shape[0]
    found = frames.trades(book, since="2026-03-02T20:00:00Z")
    assert 4 == found.shape[0]
    assert found["timestamp"].min() > polars.Series(["2026-03-02T20:00:00Z"]).str.to_datetime(time_zone="UTC")[0]


def test_what_is_wrong_is_an_error_of_its_kind(book: Path, tmp_path: Path) -> None:
    """A wrong path, a wrong time and a wrong library are told apart."""
    with pytest.raises(NoLedger, match="found no ledger"):
        frames.trades(tmp_path)
    with pytest.raises(BadInstant, match="yesterday"):
        frames.trades(book, since="yesterday")
    with pytest.raises(ValueError, match="expected 'polars', 'pandas' or 'arrow'"):
        frames.trades(book, as_="numpy")  # type: ignore[arg-type]


def test_without_the_extra_the_message_says_how_to_install_it(book: Path) -> None:
    """One clear message; importing the module needs nothing."""
    code = (
        "import sys; sys.modules['pyarrow'] = None\nfrom compactor import frames\n"
        f"try: frames.trades({str(book)!r})\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("compactor.frames.trades() needs pyarrow, which is not installed")
    assert done.stdout.endswith("Install it: pip install 'duckdb>=2.0' 'polars>=1.20' 'pyarrow>=16'\n")
