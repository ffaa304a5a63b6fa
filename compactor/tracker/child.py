"""The child processes of a tracker: they end with the program that started them, however that ends.

`python -m compactor.tracker.child compact` compacts the ledgers whose paths it reads from standard input, one pass at a
time; `reconcile DATA CONFIG` reconciles once for each line that it reads; `run DATA ...` is the daemon.
Each ends when its standard input does.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from pathlib import Path

from compactor.core import CompactorError
from compactor.ledger import Ledger, LedgerError


def main(arguments: list[str]) -> None:
    """Run one of them."""
    # The terminal sends Ctrl-C to the child as well; when it is to end is for its parent to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arguments == ["compact"]:
        _compact_on_request()
        return
    if arguments[0] == "reconcile":
        _reconcile_on_request(Path(arguments[1]), arguments[2] or None)
        return
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = ["compactor", *arguments]
    runpy.run_module("compactor", run_name="__main__")


def _compact_on_request() -> None:
    ledgers: dict[str, Ledger] = {}
    for line in sys.stdin:
        path = line.rstrip("\n")
        try:
            ledgers.setdefault(path, Ledger(path)).compact()
            said = "done"
        except LedgerError as error:
            # Whoever shows the ledger reads it too and says what is wrong with it.
            said = type(error).__name__
        print(said, flush=True)


def _reconcile_on_request(data: Path, config: str | None) -> None:
    from compactor.tracker.desk import TradingDesk
    from compactor.tracker.reconciling import encode_answer, encode_failure

    desk = TradingDesk(data, config, os.environ)
    for _ in sys.stdin:
        try:
            lines = list(encode_answer(desk.reconcile()))
        except CompactorError as error:
            lines = [encode_failure(error)]
        sys.stdout.buffer.writelines(lines)
        sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    while os.read(0, 1024):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
