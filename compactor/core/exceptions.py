"""The base class of every error that this package raises on purpose: `except CompactorError` catches them all.

Each room defines its own subclasses. Bad lines of a log are no exceptions: they are findings.
"""


class CompactorError(Exception):
    """Something that the caller, an operator or the broker has to put right; the message says what and how."""
