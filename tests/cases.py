"""The cases of `fixtures/cases`: find them, derive what the product makes of them, and say where that differs.

A case is a folder with a story, a log and the exact derived files; an expected file that is not there means that the
product must write none, or an empty one. Note: the `detail` of a finding is prose for people, so that it is
left out of the expected findings and only has to be there.

`python -m tests.cases show NAME` prints what the product derives for a case, so that somebody who adds a folder can
check it by the rules and write the expected files; `python -m tests.cases list` prints the names.
"""

import base64
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compactor import Ledger

CASES = Path(__file__).resolve().parent.parent / "fixtures" / "cases"
LOG = "events.jsonl"
FINDINGS = "findings.jsonl"
DERIVED = ("pending_orders.jsonl", "trades.jsonl", FINDINGS)


@dataclass(frozen=True)
class Case:
    """One folder of `fixtures/cases`; its name is the number of the rule and the behaviour, `3.4-a-late-fill-…`."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def rule(self) -> str:
        return self.name.partition("-")[0]

    @property
    def log(self) -> bytes:
        return (self.folder / LOG).read_bytes()

    @property
    def expected(self) -> dict[str, bytes]:
        """The bytes of each derived file; empty where the case has no such file."""
        return read_derived(self.folder)


def discover() -> list[Case]:
    """Every case, sorted by name."""
    return [Case(folder) for folder in sorted(CASES.iterdir()) if folder.is_dir()]


def read_derived(directory: Path) -> dict[str, bytes]:
    """The bytes of the derived files of a directory by their names, empty where there is none."""
    return {name: path.read_bytes() if (path := directory / name).exists() else b"" for name in DERIVED}


def derive(log: bytes, directory: Path, *, line_by_line: bool = False) -> dict[str, bytes]:
    """Write the log into the directory, in one go or with a pass after every line, and return the derived files."""
    for piece in _at_newlines(log) if line_by_line else [log]:
        with (directory / LOG).open("ab") as file:
            file.write(piece)
        with Ledger(directory, durability="none") as ledger:
            ledger.compact()
    return read_derived(directory)


def _at_newlines(log: bytes) -> list[bytes]:
    """The log cut after every `\\n`, and only there; the last piece is what has no end yet, or empty."""
    *whole, tail = log.split(b"\n")
    return [line + b"\n" for line in whole] + [tail]


def without_detail(findings: bytes) -> bytes:
    """The findings as the expected files hold them: the same lines and keys, without the prose of `detail`."""
    return b"".join(_without_detail(line) for line in findings.splitlines())


def _without_detail(line: bytes) -> bytes:
    finding = json.loads(line)
    finding.pop("detail", None)
    return json.dumps(finding, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def details(findings: bytes) -> list[str]:
    """The `detail` of each finding, an empty text where it is missing."""
    return [str(json.loads(line).get("detail") or "") for line in findings.splitlines()]


def parsed(findings: bytes) -> list[dict[str, Any]]:
    """The findings as objects."""
    return [json.loads(line) for line in findings.splitlines()]


def text_of(finding: dict[str, Any]) -> bytes:
    """The bytes that a finding keeps of its line."""
    return base64.b64decode(finding["line_base64"]) if "line_base64" in finding else str(finding["line"]).encode()


def comparable(derived: dict[str, bytes]) -> dict[str, bytes]:
    """The derived files as a case compares them."""
    return {**derived, FINDINGS: without_detail(derived[FINDINGS])}


def differences(case: Case, found: dict[str, bytes]) -> str:
    """What differs between the expected and the found files, for people; empty when nothing does."""
    expected = case.expected
    texts = [_difference(name, expected[name], found[name]) for name in DERIVED if expected[name] != found[name]]
    if not texts:
        return ""
    story = (case.folder / "story.md").read_text()
    return "\n".join([f"\n{case.name}\n\n{story}", *texts, _numbered(case.log)])


def _difference(name: str, expected: bytes, found: bytes) -> str:
    return f"{name} differs\n  expected:\n{_indented(expected)}  found:\n{_indented(found)}"


def _indented(data: bytes) -> str:
    return "".join(f"    {line.decode()}\n" for line in data.splitlines()) or "    (no lines)\n"


def _numbered(log: bytes) -> str:
    """The log with the offset before each line."""
    text, offset = "the log:\n", 0
    for line in _at_newlines(log):
        text += f"  {offset:6}  {line.decode(errors='backslashreplace').rstrip()}\n"
        offset += len(line)
    return text


def show(name: str) -> str:
    """What the product derives for a case now, file by file, in the form in which the case stores it."""
    folder = CASES / name
    if not (folder / LOG).exists():
        raise SystemExit(f"{folder} holds no {LOG}: expected the name of a folder in fixtures/cases; see `list`")
    with tempfile.TemporaryDirectory() as directory:
        found = comparable(derive((folder / LOG).read_bytes(), Path(directory)))
    return "".join(f"== {file}\n{data.decode()}" for file, data in found.items() if data)


def main(arguments: list[str]) -> None:
    """Run `list` or `show NAME`."""
    match arguments:
        case ["list"]:
            print("\n".join(case.name for case in discover()))
        case ["show", name]:
            print(show(name), end="")
        case _:
            raise SystemExit("usage: python -m tests.cases list | show NAME")


if __name__ == "__main__":
    main(sys.argv[1:])
