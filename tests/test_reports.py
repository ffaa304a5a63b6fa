"""What people met at the broker comes out right: each report of fixtures/reports, by the path that a user takes."""

from pathlib import Path

import pytest

from tests.reports import Report, derive, find_reports

REPORTS = find_reports()
NOT_YET: dict[str, str] = {
    "a-cancel-that-knows-of-fills": "only a snapshot's `filled_qty` is inferred from (4.7)",
    "a-replacement-that-nobody-tells-of": "a successor is known by its own events alone (3.9)",
    "a-split-makes-an-order-larger": "the first quantity stands (3.2)",
    "a-weekend-without-recorded-at": "a clock without `recorded_at` stops at the first quiet day (6.1)",
    "expired-and-alive-again": "an ended order never opens again (3.4)",
    "fills-that-only-the-activities-tell": "a fill that was told after the end counts as late (3.4)",
    "fills-with-a-price-and-no-quantity": "a fill without `qty` is read as a snapshot (4.4)",
    "rest-rounds-its-times": "an older snapshot changes nothing (4.7)",
    "the-order-inside-a-frame-is-ahead": "fills of two sources need one cumulative quantity to be the same (4.3)",
    "the-stop-of-a-trailing-order-moves": "the first stop price stands (3.2)",
}
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
    assert 34 <= len(REPORTS)
    assert [] == [report.name for report in REPORTS if len(report.story.split()) < 20]


def test_reports_that_are_not_right_yet_exist() -> None:
    """A mark without its report would hide nothing, and mean nothing."""
    assert set() == NOT_YET.keys() - {report.name for report in REPORTS}
