"""What people met at the broker comes out right: each report of fixtures/reports, by the path that a user takes."""

from pathlib import Path

import pytest

from tests.reports import Report, derive, find_reports

REPORTS = find_reports()
NOT_YET: dict[str, str] = {}
"""Reports that still come out wrong, and why."""


def _mark(report: Report) -> object:
    reason = NOT_YET.get(report.name)
    marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
    return pytest.param(report, id=report.name, marks=marks)


@pytest.mark.parametrize("report", map(_mark, REPORTS))
def test_a_report_gives_its_values(report: Report, tmp_path: Path) -> None:
    """Open orders, trades, findings and problems, to the last digit."""
    found = derive(report, tmp_path)
    for name, rows in report.expected.items():
        assert rows == found[name], f"{name} of {report.name}\n\n{report.story}"


def test_every_report_has_a_story() -> None:
    """A fixture that nobody can judge is not one."""
    assert 39 <= len(REPORTS)
    assert [] == [report.name for report in REPORTS if len(report.story.split()) < 20]


def test_reports_that_are_not_right_yet_exist() -> None:
    """A mark without its report would hide nothing, and mean nothing."""
    assert set() == NOT_YET.keys() - {report.name for report in REPORTS}
