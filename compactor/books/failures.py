"""One ledger's failure as a value, so that the work on the others goes on.

Note: an unexpected exception, which is a bug, becomes a value too. A bug that one team's log triggers must not hide the
orders of another team. `trace` says where it was raised; COMPACTOR_DEBUG=1 shows it.
"""

from __future__ import annotations

import re

import msgspec

from compactor.core import CompactorError
from compactor.core.printable import redact
from compactor.ledger import LedgerEntry


class Failure(msgspec.Struct, frozen=True):
    """Why the work on a ledger failed: `kind` for programs, `message` for people, `trace` for developers."""

    kind: str
    message: str
    trace: str = ""


def describe_failure(error: Exception, path: object) -> Failure:
    """The failure that `error` means for the ledger at `path`."""
    import traceback

    trace = redact("".join(traceback.format_exception(error)))
    if isinstance(error, CompactorError):
        return Failure(classify(error), redact(str(error)), trace)
    if isinstance(error, OSError):
        file = error.filename or path
        return Failure(
            "io_error",
            redact(
                f"{file}: {error.strerror or error}. Nothing was lost. See ls -ld {file}, then run the command again."
            ),
            trace,
        )
    message = (
        f"{path}: unexpected {type(error).__name__}: {error}. This is a bug in compactor; the log is untouched. "
        "COMPACTOR_DEBUG=1 shows where it happened."
    )
    return Failure("unexpected", redact(message), trace)


def classify(error: CompactorError) -> str:
    """The name of an error as programs see it: `LockHeld` is `lock_held`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def describe_bad_entry(entry: LedgerEntry) -> Failure:
    """The failure of a directory that cannot be a ledger."""
    return Failure("bad_place", f"{entry.path}: {entry.problem}")
