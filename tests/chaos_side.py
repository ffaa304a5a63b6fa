"""Our side in chaos: the writers of the streams, the resends, one reconciler and an application that trades.

All of it is the real code over a data directory. It can be killed, and starts again with what is on disk.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compactor.books.order_index import OrderIndex
from compactor.broker.adapters import open_broker
from compactor.broker.alpaca.adapter import AlpacaAccount
from compactor.broker.alpaca.resend import EventStreams
from compactor.broker.budget import Budget
from compactor.broker.credentials import BadCredentials, Credentials
from compactor.broker.placing import Trader
from compactor.broker.port import BrokerError, BrokerPort, Translation
from compactor.sync.answers import AskedAccount
from compactor.sync.gaps import Gaps
from compactor.sync.reconcile import Reconciler
from compactor.sync.reconciled import Reconciled
from compactor.sync.stream_writer import StreamWriter
from tests.alpaca_server.life import TEAMS
from tests.chaos_brokers import BROKERS, ChaosBroker, ChaosServer

QUIET_SECONDS = 10
TIMEOUT_SECONDS, RESEND_SECONDS = (5.0, 30.0), 30.0
"""Where nothing hangs a slow answer means a busy machine. The second is for a resend that has no end."""
SHORT_TIMEOUT_SECONDS, SHORT_RESEND_SECONDS = (1.0, 0.04), 0.2
"""Where requests hang, nobody has time to wait for them in each of thousands of runs."""


class Patient(Budget):
    """A budget that does not wait when the broker asks for a pause: here nobody has real seconds."""

    def pause(self, seconds: float) -> None:
        """Go on at once."""


class Killed(Exception):
    """An application was killed between the broker's yes and its own write."""


class MortalTrader(Trader):
    """An application that places orders, and is killed at the worst moment where `dies` says so."""

    dies = False

    def _write(self, path: Path, team: str, order: Translation, outcome: Sequence[Any] = ()) -> None:
        if self.dies:
            raise Killed
        super()._write(path, team, order, outcome)


class Side:
    """Our side: for each account the writer of its stream and its resends, one reconciler, and an application that
    trades on the first account. They can be killed and started again."""

    def __init__(self, data: Path, *servers: ChaosServer, broker: str = "alpaca") -> None:
        self.data = data
        self._servers = servers
        self.broker: ChaosBroker = BROKERS[broker]
        self._name = broker
        self._budget = Patient(10**9)
        self.skew_seconds = 0
        """How far our clock is behind the broker's."""
        self.take_credentials()
        self.timeout_seconds = TIMEOUT_SECONDS
        self.resend_seconds = RESEND_SECONDS
        self.start()

    def take_credentials(self) -> None:
        """Somebody gives us the keys that are valid now; they are used from the next start on."""
        self._credentials = [self.broker.find_credentials(one, self._name) for one in self._servers]

    def start(self) -> None:
        """Start as after a crash: nothing is remembered but what is on disk."""
        timeout, budget, clock = self.timeout_seconds, self._budget, self._read_clock
        self._index, accounts = OrderIndex(self.data, TEAMS), []
        self.writers: list[StreamWriter] = []
        self.all_gaps: list[Gaps] = []
        for number, credentials in enumerate(self._credentials):
            name = f"paper-{number}"
            broker = self._open(credentials)
            self.writers.append(StreamWriter(self.data, broker.translate, index=self._index))
            self.all_gaps.append(Gaps(self.data, name, broker, self.writers[-1], clock=clock))
            accounts.append(AskedAccount(name, broker))
        self.writer, self.gaps = self.writers[0], self.all_gaps[0]
        self.reconciler = Reconciler(
            self.data, accounts, quiet_seconds=QUIET_SECONDS, clock=clock, sleep=lambda _: None, index=self._index
        )
        self.trader = MortalTrader(
            self.data, self._credentials[0], budget=budget, timeout_seconds=timeout, sleep=lambda _: None
        )

    def _open(self, credentials: Credentials) -> BrokerPort:
        timeout, budget = self.timeout_seconds, self._budget
        broker = open_broker(credentials, budget=budget, timeout_seconds=timeout, tries=2, sleep=lambda _: None)
        if isinstance(broker, AlpacaAccount):
            broker.event_streams = EventStreams(
                credentials, budget=budget, timeout_seconds=timeout, seconds_max=self.resend_seconds
            )
        return broker

    def _read_clock(self) -> float:
        return self._servers[0].clock() - self.skew_seconds

    def restart(self) -> None:
        """Be killed, and start again."""
        self.close()
        self.start()

    def close(self) -> None:
        """Give back what a process that has ended does not have open any more."""
        for writer in self.writers:
            writer.close()
        self.reconciler.close()
        self.trader.close()
        self._index.close()

    def reconcile(self, *, forget_missing: bool = False) -> Reconciled | None:
        """Reconcile; None where the broker could not be asked."""
        started = self._read_clock()
        try:
            done = self.reconciler.run(forget_missing=forget_missing)
        except (BrokerError, BadCredentials):
            return None
        if done.errors:
            return None
        if not done.waiting and not done.failed:
            for gaps in self.all_gaps:
                gaps.note_known(started)
        return done

    def holds(self, team: str, order_id: str) -> bool:
        """Whether a team's log names an order."""
        log = self.data / "team" / team / "events.jsonl"
        return log.exists() and order_id.encode() in log.read_bytes()

    def tear(self, rng: random.Random) -> None:
        """Leave a torn line at the end of a log, as a writer does that is killed."""
        logs = sorted(self.data.glob("team/*/events.jsonl"))
        if logs:
            with rng.choice(logs).open("ab") as log:
                log.write(b'{"event":"fill","order_id":"'[: rng.randint(1, 28)])

    def bytes_of_logs(self) -> dict[str, int]:
        return {str(path): path.stat().st_size for path in sorted(self.data.glob("team/*/events.jsonl"))}
