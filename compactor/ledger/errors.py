"""What can go wrong with a ledger on disk. Each message says what, where, what was expected, what was found, and what
to do.

Bad lines are not here: they are findings, values beside the result.
"""

import errno
import os
from pathlib import Path

from compactor.core import CompactorError
from compactor.core.events import Problem


class LedgerError(CompactorError):
    """Something about the files of one ledger keeps it from being compacted; other ledgers go on."""

    def __init__(self, path: str | os.PathLike[str], message: str) -> None:
        super().__init__(path, message)
        self.path = Path(path)
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class BadTeam(LedgerError):
    """A team id that is not one, or a ledger that lies outside the data directory (rule 1.1)."""


class NoLedger(LedgerError):
    """There is no log where one was expected."""


class LockHeld(LedgerError):
    """Another process compacts this ledger at this moment."""


class LogRewritten(LedgerError):
    """The log is another file, shorter, or has other bytes than when it was folded last."""


class SegmentDamaged(LedgerError):
    """Sealed history is missing, or is not what its seal says; it is never skipped. Nothing was changed."""


class TooMuch(LedgerError):
    """A pass that may read only so much would have to read more; nothing was changed."""


class DerivedConflict(LedgerError):
    """A derived file holds bytes that do not follow from the log."""


class LedgerUnreadable(LedgerError):
    """The operating system refused to read or write a file."""


class BackupConflict(LedgerError):
    """What is to be copied does not fit what is there; nothing that was there is changed."""


class UnsafeFile(LedgerError):
    """A link, a pipe, a device or the like lies in place of a file or directory of the ledger; it was not used."""


class DiskFull(LedgerError):
    """There is no room; the derived files are as they were."""


class RejectedEvents(LedgerError):
    """Lines that are no events were to be appended; nothing was written. `problems` has (line number from 1,
    problem)."""

    def __init__(self, path: str | os.PathLike[str], problems: list[tuple[int, Problem]]) -> None:
        shown = "; ".join(f"line {number}: {problem.kind}: {problem.detail}" for number, problem in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        super().__init__(path, f"nothing was appended, because of {len(problems)} bad lines. {shown}{more}")
        self.problems = problems

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.path, self.problems)


class IrregularFile(OSError):
    """Something else lies where a regular file with one name, or a directory, was expected; `strerror` says what."""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def from_os(path: Path, error: OSError, doing: str, again: str = "compact again") -> LedgerError:
    """Turn an operating system's error into one that says what was being done to which file, and what to do then."""
    file = Path(os.fsdecode(error.filename)) if error.filename is not None else path
    reason = error.strerror or str(error)
    if isinstance(error, IrregularFile):
        hint = "a ledger has neither links nor special files (format.md, 1.1). Nothing was read from it or written"
        return UnsafeFile(file, f"{reason}; {hint}. Remove it, or put the right file there, and {again}")
    if error.errno in _FULL:
        return DiskFull(file, f"{reason} while {doing}; the derived files are as they were. Make room and {again}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LedgerUnreadable(file, f"{reason} while {doing}; check owner and permissions, then {again}")
    if error.errno == errno.EIO:
        hint = "the disk may be failing. The log is the truth: save it first"
        return LedgerUnreadable(file, f"{reason} while {doing}; {hint}")
    return LedgerUnreadable(file, f"{reason} while {doing}; put that right and {again}")
