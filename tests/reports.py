"""The reports of `fixtures/reports`: what people met at the broker, and the exact values that must come of it.

A report is a folder with a story, what was recorded, and the expected files. A recording (`messages.*`) is imported as
`compactor import alpaca` does, with the options in `options.json`; a log (`events.jsonl`) is compacted. An expected
file that is not there means that there must be no such line.

`python -m tests.reports show NAME` prints what the product makes of a report.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compactor import Ledger
from compactor.imports.captures import import_alpaca
from compactor.ledger import discover

REPORTS = Path(__file__).resolve().parent.parent / "fixtures" / "reports"
EXPECTED = ("pending_orders.jsonl", "trades.jsonl", "findings.jsonl", "problems.jsonl")
# Where something stands in a log depends on when it was imported; what is a sentence for people may be worded anew.
_ADDRESSES = ("trade_id", "offset", "length", "reverses", "corrects")
_PROSE = ("detail", "line", "line_base64")

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Report:
    """One folder of `fixtures/reports`."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def story(self) -> str:
        return (self.folder / "story.md").read_text()

    @property
    def recording(self) -> Path | None:
        """The recording to import; None where the report is a log."""
        return next(iter(self.folder.glob("messages.*")), None)

    @property
    def expected(self) -> dict[str, Rows]:
        return {name: _read_lines(self.folder / name) for name in EXPECTED}


def find_reports() -> list[Report]:
    """Every report, sorted by name."""
    return [Report(folder) for folder in sorted(REPORTS.iterdir()) if folder.is_dir()]


def derive(report: Report, data: Path) -> dict[str, Rows]:
    """Import or compact a report in the empty directory `data`, and return what came of it, as the expected files."""
    problems: Rows = []
    if report.recording is None:
        shutil.copy(report.folder / "events.jsonl", data)
        with Ledger(data, durability="none") as ledger:
            ledger.compact()
    else:
        options = report.folder / "options.json"
        result = import_alpaca(report.recording, data, **{"team": None, **_read_options(options)})
        assert [] == [team.error for team in result.teams if team.error]
        for team in result.teams:
            problems += [{"line": found.line, "kind": found.kind} for found in team.problems]
            problems += [{"not_fills": team.not_fills}] if team.not_fills else []
    hidden = _PROSE if report.recording is None else (*_PROSE, *_ADDRESSES)
    found: dict[str, Rows] = {name: [] for name in EXPECTED}
    for place in discover(data):
        for name in EXPECTED[:3]:
            rows = _read_lines(place.path / name)
            found[name] += [{key: row[key] for key in row if key not in hidden} for row in rows]
    return found | {"problems.jsonl": problems}


def _read_options(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _read_lines(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def show(name: str) -> str:
    """What the product makes of a report now, in the form of the expected files."""
    with tempfile.TemporaryDirectory() as directory:
        found = derive(Report(REPORTS / name), Path(directory))
    lines = {file: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) for file, rows in found.items()}
    return "".join(f"== {file}\n{text}" for file, text in lines.items() if text)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["show", name]:
            print(show(name), end="")
        case _:
            raise SystemExit("usage: python -m tests.reports show NAME")
