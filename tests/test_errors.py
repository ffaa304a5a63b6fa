"""What the operating system reports becomes an error that says what was done to which file, and what to do next."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from compactor import DiskFull, LedgerError, LedgerUnreadable, RejectedEvents, UnsafeFile
from compactor.core.events import Problem
from compactor.ledger.errors import IrregularFile, from_os

PATH = Path("/data/team/alpha/trades.jsonl")


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, DiskFull, "Make room and compact again"),
        (errno.EDQUOT, DiskFull, "Make room and compact again"),
        (errno.EFBIG, DiskFull, "Make room and compact again"),
        (errno.EACCES, LedgerUnreadable, "check owner and permissions, then compact again"),
        (errno.EPERM, LedgerUnreadable, "check owner and permissions, then compact again"),
        (errno.EROFS, LedgerUnreadable, "check owner and permissions, then compact again"),
        (errno.EIO, LedgerUnreadable, "The log is the truth: save it first"),
        (errno.EMFILE, LedgerUnreadable, "put that right and compact again"),
    ],
)
def test_an_error_says_what_was_done_and_what_to_do(number: int, kind: type[LedgerError], advice: str) -> None:
    """House: error messages say what was found, where, and what to do."""
    error = from_os(PATH, OSError(number, os.strerror(number)), "writing the trades")
    assert kind is type(error)
    message = str(error)
    assert all(part in message for part in (str(PATH), os.strerror(number), "writing the trades", advice))
    assert number == errno.EIO or "save it first" not in message


def test_the_file_that_the_system_names_is_the_one_that_is_named() -> None:
    """An error that carries a name is about that file; one without is about the file that was worked on."""
    named = from_os(PATH, OSError(errno.EACCES, "Permission denied", "/data/team/alpha/.state/lock"), "locking")
    assert "/data/team/alpha/.state/lock" == str(named.path)
    assert str(PATH) == str(from_os(PATH, OSError(errno.EACCES, "Permission denied"), "locking").path)


def test_a_link_in_place_of_a_file_is_unsafe() -> None:
    """1.1: neither links nor special files; whatever number the error has."""
    error = from_os(PATH, IrregularFile(errno.ENOSPC, "is a link", str(PATH)), "writing the trades", "seal again")
    assert UnsafeFile is type(error)
    assert "is a link" in str(error) and str(error).endswith("put the right file there, and seal again")


def test_five_bad_lines_are_shown_and_the_others_counted() -> None:
    """Append: nothing was written, and the message stays short."""
    problems = [(number, Problem("not_json", f"what {number} is")) for number in range(1, 8)]
    assert "7 bad lines" in str(RejectedEvents(PATH, problems))
    assert "line 5: not_json: what 5 is; and 2 more" in str(RejectedEvents(PATH, problems))
    assert str(RejectedEvents(PATH, problems[:5])).endswith("line 5: not_json: what 5 is")


@pytest.mark.parametrize(("count", "told"), [(5, None), (6, "; and 1 more"), (7, "; and 2 more")])
def test_the_first_five_bad_lines_are_shown(count: int, told: str | None) -> None:
    """And the others counted."""
    problems = [(number, Problem("bad_value", f"no {number}")) for number in range(1, count + 1)]
    message = RejectedEvents(PATH, problems).message
    assert message.endswith(told or "line 5: bad_value: no 5")
    assert (True, False) == ("line 5: bad_value: no 5" in message, "no 6" in message)


def test_what_was_rejected_can_be_told_to_another_process() -> None:
    """An append in a process of its own loses neither the lines nor what is wrong with them."""
    error = RejectedEvents(PATH, [(3, Problem("not_json", "expected an object"))])
    told = pickle.loads(pickle.dumps(error))
    assert (str(error), error.path, error.problems) == (str(told), told.path, told.problems)
