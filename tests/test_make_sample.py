"""The sample is what its script makes, and shows what a newcomer should see."""

from pathlib import Path

from compactor import Ledger
from tests.make_sample import SAMPLE, sample


def test_the_sample_is_what_the_script_makes() -> None:
    """The script is the description of the sample; both change together."""
    for team, log in sample().items():
        assert log == (SAMPLE / "team" / team / "events.jsonl").read_bytes()


def test_the_sample_has_open_orders_trades_of_every_kind_and_a_few_findings(tmp_path: Path) -> None:
    """A first look shows whatever the derived files can hold, and few findings: the torn line and the oddities."""
    kinds: set[str] = set()
    findings: list[str] = []
    for team, log in sample().items():
        directory = tmp_path / "team" / team
        directory.mkdir(parents=True)
        (directory / "events.jsonl").write_bytes(log)
        with Ledger(directory, durability="none") as ledger:
            ledger.compact()
            assert list(ledger.rows("pending_orders"))
            kinds |= {str(trade["kind"]) for trade in ledger.rows("trades")}
            findings += [str(finding["kind"]) for finding in ledger.rows("findings")]

    assert {"fill", "inferred", "reversal", "correction"} == kinds
    assert ["late_fill", "not_json", "unknown_status"] == sorted(findings)
