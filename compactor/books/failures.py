"""One ledger's failure as a value, so that the work on the others goes on.

The rule that surprises: an unexpected exception, which is a bug, becomes a value too. A bug in reading one team's log
must not keep another team's orders out of sight. `trace` keeps the place for COMPACTOR_DEBUG=1.
"""

from __future__ import annotations

import re

import msgspec

from compactor.ledger import LedgerError, LedgerPlace


class Failure(msgspec.Struct, frozen=True):
    """Why a ledger could not be worked on: `kind` for programs, `message` for people, `trace` for developers."""

    kind: str
    message: str
    trace: str = ""


def failure_of(error: Exception, path: object) -> Failure:
    """The failure that `error` means for the ledger at `path`."""
    import traceback

    trace = "".join(traceback.format_exception(error))
    if isinstance(error, LedgerError):
        return Failure(kind_of(error), str(error), trace)
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


def kind_of(error: LedgerError) -> str:
    """The name of an error as programs see it: `LockHeld` is `lock_held`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def bad_place(place: LedgerPlace) -> Failure:
    """The failure of a directory that cannot be a ledger."""
    return Failure("bad_place", f"{place.path}: {place.problem}")


def name_of(place: LedgerPlace) -> str:
    """What a ledger is called before it is read; a directory that is itself a ledger is named by its events (1.2)."""
    return place.team_id or "default"
