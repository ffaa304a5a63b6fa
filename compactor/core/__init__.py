"""The pure core: bytes → event → fold → state → derived lines.

It takes values and returns values. It knows no clock, no disk and no logger, and imports only the standard library
and msgspec.
"""


class CompactorError(Exception):
    """The base class of every error that this package raises on purpose: `except CompactorError` catches them all.

    It is something that the caller, an operator or the broker has to put right; the message says what and how. Each
    room defines its own subclasses. Bad lines of a log are no exceptions: they are findings.
    """
