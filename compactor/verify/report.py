"""What `verify` reports of a ledger: its discrepancies, and how far the log is sealed, signed and witnessed."""

from collections import Counter
from pathlib import Path

from msgspec import Struct

from compactor.books.failures import Failure

REPORTED_MAX = 50


class Discrepancy(Struct, frozen=True):
    """One thing that is not as it must be. `offset` is one in `file`; None means all of it."""

    kind: str
    file: str
    offset: int | None
    expected: str
    found: str
    meaning: str

    def __str__(self) -> str:
        where = self.file if self.offset is None else f"{self.file} at {self.offset}"
        return f"{where}: expected {self.expected}, found {self.found}: {self.meaning} ({self.kind})"


class Verdict(Struct):
    """What was found in one ledger. Bytes are those of its log, up to `log_bytes` of whole lines.

    `lag_bytes` are not in the derived files yet; `signed_bytes` and `witnessed_bytes` are where the newest head ends
    that is signed by the key, or held by the witness. `lines` and `root` are the newest head. With `error` nothing is
    known.
    """

    team_id: str
    path: str
    differences: list[Discrepancy] = []
    log_bytes: int = 0
    lag_bytes: int = 0
    sealed_bytes: int = 0
    segments: int = 0
    lines: int = 0
    root: str | None = None
    signed_bytes: int = 0
    witnessed_bytes: int = 0
    quick: bool = False
    elapsed_ms: int = 0
    error: Failure | None = None


class Discrepancies:
    """Collects the discrepancies of one ledger; files are named as they lie in its directory.

    A discrepancy is reported once, and of one kind in one file only the first `REPORTED_MAX`: a replaced history
    would differ in every line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[Discrepancy, None] = {}
        self._more: Counter[tuple[str, str]] = Counter()
        self._by_kind: Counter[tuple[str, str]] = Counter()

    def add(
        self, kind: str, file: Path, *, expected: object, found: object, meaning: str, offset: int | None = None
    ) -> None:
        """Take in one discrepancy."""
        name = str(file.relative_to(self._path)) if file.is_relative_to(self._path) else str(file)
        difference = Discrepancy(kind, name, offset, str(expected), str(found), meaning)
        if difference in self._found:
            return
        if self._by_kind[kind, name] >= REPORTED_MAX:
            self._more[kind, name] += 1
            return
        self._by_kind[kind, name] += 1
        self._found[difference] = None

    @property
    def all(self) -> list[Discrepancy]:
        """The discrepancies in the order in which they were found, and how many more there are of a kind."""
        more = (
            Discrepancy(kind, file, None, "none of these", f"{count} more", "they are like those above")
            for (kind, file), count in self._more.items()
        )
        return [*self._found, *more]

    def __len__(self) -> int:
        return len(self._found)
