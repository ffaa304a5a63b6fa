"""Keep derived files of an older fold version under another name where the rules have changed (section 7).

A new fold version folds every log once more and compares what comes out with the files. Where they differ although the
file is as the older version left it, the rules have changed: the file is renamed to `<name>.fold-<version>`, and is
derived anew. A file that somebody else has changed is refused, as ever.
"""

from pathlib import Path

from compactor.ledger.checkpoint import FOLD_VERSION, CheckpointHeader
from compactor.ledger.files import Files
from compactor.ledger.paths import FINDINGS, TRADES
from compactor.ledger.tail import Tail


def find_upgrade(header: CheckpointHeader, trades: Tail, findings: Tail, files: Files) -> int | None:
    """The older fold version that derived what the files hold beyond a checkpoint; None where that is this version, or
    where a file is not as the older version left it."""
    if header.fold_version >= FOLD_VERSION:
        return header.upgrades
    for tail, left in ((trades, header.trades), (findings, header.findings)):
        is_kept = files.identity(_name_kept(tail.path, header.fold_version)) is not None
        if not is_kept and not tail.fits(left):
            return None
    return header.fold_version


def set_aside(path: Path, fold_version: int | None, files: Files) -> str | None:
    """Keep a file that an older fold version derived under another name, and return that; None for any other file."""
    if fold_version is None or path.name not in (TRADES, FINDINGS):
        return None
    kept = _name_kept(path, fold_version)
    if files.identity(kept) is not None:
        return None
    files.rename(path, kept)
    files.sync_directory(path.parent)
    return kept.name


def _name_kept(path: Path, fold_version: int) -> Path:
    return path.with_name(f"{path.name}.fold-{fold_version}")
