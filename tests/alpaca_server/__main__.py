"""Starts the local Alpaca by hand: `python -m tests.alpaca_server --port 8123 --seed 7`, until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
import time

from tests.alpaca_server.faults import Faults
from tests.alpaca_server.server import AlpacaServer


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C, or for so many seconds, while three teams trade at random."""
    parser = argparse.ArgumentParser(prog="python -m tests.alpaca_server", description=__doc__)
    parser.add_argument("--port", type=int, default=8123, help="port on 127.0.0.1; 0 takes a free one (default 8123)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed trades the same (default 0)")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two things that happen (default 0.5)")
    parser.add_argument("--steps", type=int, default=None, help="how many things happen in all (default: no end)")
    parser.add_argument("--seconds", type=float, default=None, help="end by itself after so long")
    parser.add_argument("--resend", action="store_true", help="offer the resend of events as well")
    parser.add_argument("--faults", type=float, default=0.0, metavar="SHARE", help="random faults, up to this share")
    chosen = parser.parse_args(arguments)
    faults = Faults.wild(chosen.seed, share=chosen.faults) if chosen.faults else Faults()
    with AlpacaServer(chosen.seed, port=chosen.port, faults=faults, resend=chosen.resend) as server:
        for name, value in server.environment.items():
            print(f"export {name}={value}")
        print(f"# stream: {server.stream_url}; Ctrl-C ends", flush=True)
        _trade(server, chosen.pause, chosen.steps, chosen.seconds)
    return 0


def _trade(server: AlpacaServer, pause: float, steps: int | None, seconds: float | None) -> None:
    started, done = time.monotonic(), 0
    try:
        while seconds is None or time.monotonic() - started < seconds:
            if steps is None or done < steps:
                server.live(1)
                done += 1
            time.sleep(pause)
    except KeyboardInterrupt:
        print(f"\n# ended after {done} steps; {len(server.truth().open)} orders are open", flush=True)


if __name__ == "__main__":
    sys.exit(main())
