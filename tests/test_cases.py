"""Every folder of `fixtures/cases` is a test: the log goes in, and the derived files come out byte for byte."""

import re
from pathlib import Path

import pytest

from tests import cases
from tests.cases import Case

FORMAT = Path(__file__).resolve().parent.parent / "compactor" / "docs" / "format.md"
ALL = cases.discover()

by_name = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


def agree(case: Case, found: dict[str, bytes]) -> None:
    """Fail with the story, both versions and the log where a derived file is not as expected."""
    if text := cases.differences(case, cases.comparable(found)):
        pytest.fail(text, pytrace=False)


@by_name
def test_a_log_becomes_exactly_the_expected_files(case: Case, tmp_path: Path) -> None:
    """Section 5: what the rule of the case promises, byte for byte; a finding has a sentence for people."""
    found = cases.derive(case.log, tmp_path)

    agree(case, found)
    assert all(cases.details(found[cases.FINDINGS]))


@by_name
def test_a_pass_after_every_line_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    """1.4: same log, same bytes, in one pass or line by line."""
    agree(case, cases.derive(case.log, tmp_path, line_by_line=True))


@by_name
def test_events_findings_and_the_tail_are_the_whole_log(case: Case, tmp_path: Path) -> None:
    """Section 5: what was set aside is in the findings with its bytes, and lies within the log."""
    found = cases.derive(case.log, tmp_path)

    for finding in cases.parsed(found[cases.FINDINGS]):
        piece = case.log[finding["offset"] : finding["offset"] + finding["length"]]
        assert finding["length"] == len(piece)
        assert finding["applied"] or cases.text_of(finding) == piece.removesuffix(b"\n")


def test_every_rule_of_sections_3_and_4_has_a_case() -> None:
    """A rule without a case is a promise that nobody checks."""
    rules = set(re.findall(r"^- ([34]\.\d+) ", FORMAT.read_text(), re.MULTILINE))

    assert 25 == len(rules)
    assert set() == rules - {case.rule for case in ALL}


def test_every_case_tells_its_story_and_names_a_rule_that_exists() -> None:
    """A case is read by people: a story of a few sentences, named after a rule or a section of the format."""
    text = FORMAT.read_text()
    known = set(re.findall(r"^- (\d\.\d+) ", text, re.MULTILINE)) | set(re.findall(r"^## (\d)\. ", text, re.MULTILINE))

    assert [] == [case.name for case in ALL if case.rule not in known]
    assert [] == [case.name for case in ALL if len((case.folder / "story.md").read_text()) < 60]


def test_every_kind_of_finding_has_a_case(tmp_path: Path) -> None:
    """Section 5 lists the kinds; `too_long` lines are made below, because a mebibyte does not belong into a fixture."""
    text = FORMAT.read_text()
    listed = text[text.index("Kinds: ") : text.index("and those named above")]
    named = text[text.index('"those named above"') : text.index("`length` counts")]
    kinds = set(re.findall(r"`([a-z0-9_]+)`", listed + named)) - {"too_long"}

    assert kinds == {finding["kind"] for case in ALL for finding in cases.parsed(case.expected[cases.FINDINGS])}


def line_of(length: int) -> bytes:
    """An event of exactly that many bytes before its `\\n`."""
    start = b'{"event":"new","order_id":"o-1","ts":"2026-03-02T10:00:00Z","raw":"'
    return start + b"x" * (length - len(start) - 2) + b'"}\n'


def test_a_line_of_a_mebibyte_is_read(tmp_path: Path) -> None:
    """Section 2: an event line has at most 1,048,576 bytes without its `\\n`."""
    found = cases.derive(line_of(1_048_576), tmp_path)

    assert b"" == found[cases.FINDINGS]
    assert 1 == found["pending_orders.jsonl"].count(b"\n")


def test_a_longer_line_is_too_long_and_the_next_one_is_read(tmp_path: Path) -> None:
    """Sections 2 and 5: one byte more is a finding `too_long` with the first 1,024 bytes, and the next line counts."""
    long = line_of(1_048_577)
    found = cases.derive(long + line_of(100), tmp_path)

    (finding,) = cases.parsed(found[cases.FINDINGS])
    assert (0, 1_048_578, "too_long", False) == tuple(finding[key] for key in ("offset", "length", "kind", "applied"))
    assert long[:1024].decode() == finding["line"]
    assert 1 == found["pending_orders.jsonl"].count(b"\n")
