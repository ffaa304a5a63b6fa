"""Old files in other forms than plain lines: read where that is possible, else named in one sentence."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from compactor.imports.legacy import import_legacy
from compactor.imports.writer import TeamImport
from compactor.ledger import Ledger

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

T = "2026-03-02T14:30:00Z"
ORDER: dict[str, Any] = {
    "team_id": "alpha",
    "order_id": "o1",
    "symbol": "AAPL",
    "side": "buy",
    "quantity": "10",
    "status": "new",
}
ORDERS = [{**ORDER, "order_id": f"o{number}", "created_at": T, "updated_at": T} for number in (1, 2)]
TRADE = {
    "team_id": "alpha",
    "order_id": "o1",
    "symbol": "AAPL",
    "side": "buy",
    "quantity": "10",
    "execution_price": "7",
    "timestamp": T,
}
LINES = "".join(json.dumps(one) + "\n" for one in ORDERS)


def _import(tmp_path: Path, content: bytes, name: str = "pending_orders.jsonl") -> TeamImport:
    home = tmp_path / "old/team/alpha"
    home.mkdir(parents=True, exist_ok=True)
    (home / name).write_bytes(content)
    [team] = import_legacy(tmp_path / "old", tmp_path / "data").teams
    return team


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(LINES.encode()),
        zstd.compress(LINES.encode()),
        LINES.encode("utf-16"),
        LINES.replace("\n", "\r\n").encode("utf-16"),
        LINES.encode("utf-8-sig"),
    ],
    ids=["gzip", "zstd", "utf-16", "utf-16 of Windows", "byte order mark"],
)
def test_compressed_lines_and_lines_in_utf_16_are_read(tmp_path: Path, content: bytes) -> None:
    """As `import alpaca` reads them; and plain lines of the same content are the same lines."""
    found = _import(tmp_path, content)
    assert (2, []) == (found.events_appended, found.problems)
    assert 0 == _import(tmp_path, LINES.encode()).events_appended


def test_compressed_files_are_found_by_their_names(tmp_path: Path) -> None:
    """`pending_orders.jsonl.gz` and `trades.jsonl.zst`, in a directory or by themselves; a plain file is first."""
    home = tmp_path / "old/team/alpha"
    home.mkdir(parents=True)
    (home / "trades.jsonl.zst").write_bytes(zstd.compress(json.dumps(TRADE).encode() + b"\n"))
    assert 3 == _import(tmp_path, gzip.compress(LINES.encode()), "pending_orders.jsonl.gz").events_appended
    for name in ("pending_orders.jsonl.gz", "trades.jsonl.zst"):
        [team] = import_legacy(home / name, tmp_path / "data").teams
        assert (0, []) == (team.events_appended, team.problems)
        assert 0 < team.duplicates
    assert ["o2"] == [row["order_id"] for row in Ledger(tmp_path / "data/team/alpha").rows("pending_orders")]
    assert 1 == _import(tmp_path, json.dumps(ORDERS[0] | {"order_id": "o3"}).encode()).events_appended


def test_a_compressed_file_that_was_cut_off_is_read_up_to_the_cut_and_named(tmp_path: Path) -> None:
    """What is there is imported, and what is missing is not passed over."""
    lines = "".join(json.dumps(ORDERS[0] | {"order_id": f"o{number * 7919}"}) + "\n" for number in range(5000))
    found = _import(tmp_path, gzip.compress(lines.encode())[:-2000])
    assert 0 < found.events_appended < 5000
    assert "cut off" in found.problems[-1].detail


@pytest.mark.parametrize(
    ("content", "command", "appended"),
    [
        (json.dumps(ORDERS), "jq -c '.[]'", 0),
        (json.dumps(ORDERS, indent=2), "jq -c '.[]'", 0),
        ("[\n" + ",\n".join(map(json.dumps, ORDERS)) + "\n]\n", "jq -c '.[]'", 1),
        ("\n".join(json.dumps(one, indent=2) for one in ORDERS), "jq -c .", 0),
    ],
    ids=["array", "pretty array", "array of lines", "pretty objects"],
)
def test_other_json_than_lines_is_named_once_with_what_to_run(
    tmp_path: Path, content: str, command: str, appended: int
) -> None:
    """Not once for each of its lines."""
    found = _import(tmp_path, content.encode())
    assert ["not_lines"] == [problem.kind for problem in found.problems]
    assert f"run {command} on the file" in found.problems[0].detail
    assert appended == found.events_appended
