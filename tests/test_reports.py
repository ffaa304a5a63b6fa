"""What people met at the broker comes out right: each report of fixtures/reports, by the path that a user takes."""

from pathlib import Path

import pytest

from tests.reports import Report, derive, find_reports

REPORTS = find_reports()


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.name)
def test_a_report_gives_its_values(report: Report, tmp_path: Path) -> None:
    """Open orders, trades, findings and problems, to the last digit."""
    found = derive(report, tmp_path)
    for name, rows in report.expected.items():
        assert rows == found[name], f"{name} of {report.name}\n\n{report.story}"


def test_every_report_has_a_story() -> None:
    """A fixture that nobody can judge is not one."""
    assert 47 <= len(REPORTS)
    assert [] == [report.name for report in REPORTS if len(report.story.split()) < 20]
