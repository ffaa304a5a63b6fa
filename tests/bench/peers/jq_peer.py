"""jq: `python jq_peer.py DATA OUT_DIR` writes OUT_DIR/<name>/{trades,pending_orders}.jsonl, one jq for each ledger.

The program is fold.jq, one pass with `foreach`, so that the log is never held as a whole. jq has one output: its last
line holds the open orders and is moved to their file here.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROGRAM = Path(__file__).with_name("fold.jq")
TAIL_BYTES = 1 << 22  # More than the open orders of a ledger take.


def fold(path: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    trades = out / "trades.jsonl"
    with trades.open("wb") as file:
        command = ["jq", "-n", "-c", "--arg", "team", path.parent.name, "-f", str(PROGRAM), str(path)]
        subprocess.run(command, stdout=file, check=True)
    with trades.open("r+b") as file:
        start = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
        file.seek(start)
        tail = file.read()
        cut = tail.rstrip(b"\n").rfind(b"\n") + 1
        file.truncate(start + cut)
    rows = json.loads(tail[cut:])["pending"]
    rows.sort(key=lambda row: (row["created_at"], row["order_id"]))
    (out / "pending_orders.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def main(data: Path, out: Path) -> None:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(lambda log: fold(log, out / log.parent.name), sorted(data.glob("team/*/events.jsonl"))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
