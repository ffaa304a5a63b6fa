"""What happens to the files of a ledger while the soak runs: things that the format promises to survive.

Nothing here changes or removes bytes of the log, since it is the only truth; it only appends what a dying writer would.
Note: derived files are removed while holding the ledger's lock, because a file that vanishes in the middle of
a pass is another program's doing at a moment when the pass has already looked.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.stories import FRAGMENTS, GARBAGE

LINE_BYTES_TOO_MANY = (1 << 20) + 1

Damage = Callable[[Path, Random], None]


def remove_derived(ledger: Path, chance: Random) -> None:
    """1.3: everything but the log and its segments can be deleted."""
    lock = ledger / ".state" / "lock"
    if not lock.exists():
        return
    names = ["pending_orders.jsonl", "trades.jsonl", "findings.jsonl", ".state/checkpoint.0", ".state/checkpoint.1"]
    with lock.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for name in chance.sample(names, chance.randint(1, len(names))):
            (ledger / name).unlink(missing_ok=True)


def corrupt_checkpoint(ledger: Path, chance: Random) -> None:
    """7: a damaged slot is set aside; no good slot means a full refold."""
    slots = [path for path in sorted(ledger.glob(".state/checkpoint.[01]")) if path.stat().st_size]
    for path in slots[: chance.randint(0, len(slots))]:
        try:
            with path.open("r+b") as slot:
                place = chance.randrange(os.fstat(slot.fileno()).st_size)
                byte = os.pread(slot.fileno(), 1, place)
                os.pwrite(slot.fileno(), bytes([byte[0] ^ 0x10]), place)
        except FileNotFoundError:
            # It was set aside, as the damage before this one asked for.
            continue


def append_garbage(ledger: Path, chance: Random) -> None:
    """2: lines that are no events are findings."""
    _append(ledger, chance.choice([*GARBAGE, *GARBAGE, b"x" * LINE_BYTES_TOO_MANY + b"\n"]))


def append_torn(ledger: Path, chance: Random) -> None:
    """5: a fragment of a write that was cut off is fused with the next line, whose event is recovered."""
    torn = f'{{"event":"new","order_id":"torn-{chance.randrange(10**9)}","ts":"2026-03-02T14:30:00Z","symbol":"SPY"}}'
    _append(ledger, chance.choice([*FRAGMENTS, torn[: chance.randint(1, len(torn) - 1)].encode()]))


def _append(ledger: Path, data: bytes) -> None:
    """One write in append mode, as every other writer does it."""
    descriptor = os.open(ledger / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


DAMAGES: dict[str, Damage] = {
    "derived_removed": remove_derived,
    "checkpoints_corrupted": corrupt_checkpoint,
    "garbage_appended": append_garbage,
    "torn_appended": append_torn,
}
