"""What keeps a proof from being made or believed; like every error of a ledger they name place and next step."""

from pathlib import Path

from compactor.ledger import LedgerError


class MissingExtra(LedgerError):
    """What was asked for needs a package that is not installed."""


class BadKey(LedgerError):
    """A key that is none, or a file that must not be written over."""


class BadProof(LedgerError):
    """A head or a proof that does not hold; nothing that it says is to be believed."""


class NotProvable(LedgerError):
    """There is no proof of this, most often because it is not sealed yet."""


class WitnessConflict(LedgerError):
    """The witness holds a head that does not belong to this log."""


def missing_extra(path: Path) -> MissingExtra:
    """Why nothing can be signed or checked here."""
    return MissingExtra(path, "signatures need the package cryptography: pip install 'cryptography>=42'")
