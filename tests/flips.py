"""One bit of one byte is turned over, in every file of a ledger, and `verify` has to say so.

`python -m tests.flips` (or `make flips`) turns a bit of every byte, which takes minutes; `tests.test_verify`
takes a sample. Note: the ledger is small on purpose, with all that there is: segments, indexes, signed heads,
checkpoints, a tail that is not sealed, and a witness.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compactor import Ledger
from compactor.proofs.keys import SigningKey, make_key
from compactor.proofs.publish import publish
from compactor.verify.report import Discrepancy
from compactor.verify.run import verify_all
from tests.cases import LOG
from tests.faults import orders

TEAM = "alpha"
SEGMENT_BYTES = 2500


class Scene:
    """A data directory with one ledger that is clean, its key and its witness."""

    def __init__(self, root: Path, raw: bytes = orders(0, 24), sealed: int = 2) -> None:
        """`sealed` of three parts of the log are sealed."""
        self.data = root / "data"
        self.ledger = self.data / "team" / TEAM
        self.ledger.mkdir(parents=True)
        self.raw = raw
        self.witness = root / "heads.jsonl"
        self.key: SigningKey = make_key(root / "key", "example.org/desk")
        cut = raw.index(b"\n", len(raw) * sealed // 3) + 1 if sealed < 3 else len(raw)
        (self.ledger / LOG).write_bytes(raw[:cut])
        with Ledger(self.ledger) as ledger:
            ledger.seal(now=True, segment_bytes=SEGMENT_BYTES)
        self.publish()
        with (self.ledger / LOG).open("ab") as log:
            log.write(raw[cut:])
        with Ledger(self.ledger) as ledger:
            ledger.compact(checkpoint=True)

    def publish(self) -> None:
        """Sign the heads that are not signed, and tell the witness."""
        publish(self.ledger, TEAM, key=self.key, witness=self.witness)

    def verify(self, *, quick: bool = False, trusting: bool = False, deep: bool = False) -> list[Discrepancy]:
        """The differences that are found; `trusting` without key and witness."""
        keys, witness = ([], None) if trusting else ([self.key.verifier], self.witness)
        result = verify_all(self.data, quick=quick, deep=deep, keys=keys, witness=witness)
        (verdict,) = result.verdicts
        assert verdict.error is None, verdict.error
        return verdict.differences + result.witness

    def files(self) -> dict[str, list[Path]]:
        """Every file, by its kind."""
        segments = self.ledger / "segments"
        state = self.ledger / ".state"
        return {
            "seals": sorted(segments.glob("*.seal.json")),
            "segments": sorted(segments.glob("*.zst")),
            "heads": sorted(segments.glob("*.head")),
            "indexes": sorted(segments.glob("*.index")),
            "checkpoints": [state / "checkpoint.0", state / "checkpoint.1"],
            "log": [self.ledger / LOG],
            "derived": [self.ledger / name for name in ("trades.jsonl", "findings.jsonl", "pending_orders.jsonl")],
            "witness": [self.witness],
        }


@contextmanager
def flipped(path: Path, at: int, bit: int) -> Iterator[None]:
    """One bit is the other way round, and then as it was."""
    with path.open("r+b", buffering=0) as file:
        file.seek(at)
        before = file.read(1)
        file.seek(at)
        file.write(bytes([before[0] ^ 1 << bit]))
        try:
            yield
        finally:
            file.seek(at)
            file.write(before)


def unreported(scene: Scene, files: Sequence[Path], most: int | None, chance: random.Random) -> list[str]:
    """The flips that `verify` does not report: of every byte, or of `most` bytes of these files together."""
    places = [(path, at) for path in files for at in range(path.stat().st_size)]
    if most is not None and most < len(places):
        places = chance.sample(places, most)
    missed = []
    for path, at in places:
        bit = chance.randrange(8)
        with flipped(path, at, bit):
            if not scene.verify():
                missed.append(f"{path.name} at {at}, bit {bit}")
    return missed


def main() -> int:
    """Every byte of every file; prints what was missed."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(10**6)
    print(f"python -m tests.flips {seed}")
    with tempfile.TemporaryDirectory() as root:
        scene = Scene(Path(root))
        assert not scene.verify(deep=True)
        missed: list[str] = []
        for kind, files in scene.files().items():
            found = unreported(scene, files, None, random.Random(seed))
            print(f"{kind}: {sum(path.stat().st_size for path in files)} bytes, {len(found)} not reported", flush=True)
            missed += found
    print("\n".join(missed))
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main())
