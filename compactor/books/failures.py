"""One ledger's failure as a value, so that the work on the others goes on.

The rule that surprises: an unexpected exception, which is a bug, becomes a value too. A bug in reading one team's log
must not keep another team's orders out of sight. `trace` keeps the place for COMPACTOR_DEBUG=1.
"""

from __future__ import annotations

import re

import msgspec

from compactor.ledger import LedgerEntry, LedgerError


class Failure(msgspec.Struct, frozen=True):
    """Why a ledger could not be worked on: `kind` for programs, `message` for people, `trace` for developers."""

    kind: str
    message: str
    trace: str = ""


def describe_failure(error: Exception, path: object) -> Failure:
    """The failure that `error` means for the ledger at `path`."""
    import traceback

    trace = "".join(traceback.format_exception(error))
    if isinstance(error, LedgerError):
        return Failure(classify(error), str(error), trace)
    if isinstance(error, OSError):
        place = error.filename or path
        return Failure(
            "io_error",
            f"{place}: {error.strerror or error}. Nothing was lost. See ls -ld {place}, then run the command again.",
            trace,
        )
    message = (
        f"{path}: unexpected {type(error).__name__}: {error}. This is a bug in compactor; the log is untouched. "
        "COMPACTOR_DEBUG=1 shows where it happened."
    )
    return Failure("unexpected", message, trace)


def classify(error: LedgerError) -> str:
    """The name of an error as programs see it: `LockHeld` is `lock_held`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def describe_bad_entry(place: LedgerEntry) -> Failure:
    """The failure of a directory that cannot be a ledger."""
    return Failure("bad_place", f"{place.path}: {place.problem}")
