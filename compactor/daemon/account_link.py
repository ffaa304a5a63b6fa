"""The link to one account: write its stream as it arrives, and close gaps by a resend.

The broker's stream connects, `sync.stream_writer` writes, `sync.gaps` requests resends; `reconcile_loop` reconciles.

Note: an error while messages are written is logged and triggers a reconcile; it never ends the stream.

`Refusals` decides when keys that the broker refuses count as revoked; until then they are retried, visibly. The stream
and the reconciles of an account report there. Refusals are counted over minutes, not tries, because keys in use were
seen to be refused for a while and to work again. An acceptance by either of them ends a refusal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from structlog.typing import FilteringBoundLogger as Logger

from compactor.broker.credentials import BadCredentials
from compactor.broker.port import BrokerError, BrokerStream, Message
from compactor.daemon.health import Health
from compactor.sync.gaps import Gaps
from compactor.sync.stream_writer import StreamWriter, Written

START_SECONDS = 120.0
"""How long keys that have not worked yet are retried."""
WORKED_SECONDS = 900.0
"""How long keys that have worked are retried."""
REMIND_SECONDS = 60.0
RESTART_SECONDS = 5.0
"""How long to wait before a stream that has failed by a bug of ours is started again."""


class Refusals:
    """The refusals of one account's keys. Safe for several threads.

    `on_revoked` is called at every refusal beyond the limit, `on_accepted` once the keys work again.
    """

    def __init__(
        self,
        account: str,
        health: Health,
        log: Logger,
        *,
        on_revoked: Callable[[str, BadCredentials], None],
        on_accepted: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._account = account
        self._health = health
        self._log = log.bind(account=account)
        self._on_revoked = on_revoked
        self._on_accepted = on_accepted
        self._clock = clock
        self._since: float | None = None
        self._has_worked = False
        self._logged_at = 0.0
        self._lock = threading.Lock()

    def refuse(self, error: BadCredentials) -> None:
        """The broker refused the keys."""
        with self._lock:
            now = self._clock()
            is_first = self._since is None
            since = self._since = now if self._since is None else self._since
            left = (WORKED_SECONDS if self._has_worked else START_SECONDS) - (now - since)
            is_logged = is_first or left <= 0 or now - self._logged_at >= REMIND_SECONDS
            self._logged_at = now if is_logged else self._logged_at
        row = self._health.add_to_account(self._account, key_refusals=1)
        changes = {"keys_refused_since": time.time()} if row.keys_refused_since is None else {}
        self._health.update_account(self._account, keys_reason=str(error), **changes)
        if is_logged:
            again = max(0, round(left))
            self._log.error("credentials_refused", reason=str(error), retried_for_seconds=again)
        if left <= 0:
            self._on_revoked(self._account, error)

    def accept(self) -> None:
        """The broker accepted the keys."""
        with self._lock:
            since, self._since, self._has_worked = self._since, None, True
        if since is None:
            return
        self._health.update_account(self._account, keys_refused_since=None, keys_reason=None)
        self._log.info("credentials_accepted", refused_seconds=round(self._clock() - since, 1))
        self._on_accepted(self._account)


class AccountLink:
    """The link to one account, in its own thread.

    `on_gap` is called if something may be missing that a reconcile has to find; `refusals` decides about keys that the
    broker refuses.
    """

    def __init__(
        self,
        name: str,
        stream: Callable[[AccountLink], BrokerStream],
        writer: StreamWriter,
        gaps: Gaps,
        health: Health,
        log: Logger,
        *,
        refusals: Refusals,
        on_gap: Callable[[], None],
    ) -> None:
        self.name = name
        self.connection = 0
        """The number of connections so far; a reconcile compares it to detect a mute stream."""
        self._stream = stream(self)
        self._writer = writer
        self._gaps = gaps
        self._health = health
        self._log = log.bind(account=name)
        self._on_gap = on_gap
        self._refusals = refusals
        self._logged_at: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"stream-{name}", daemon=True)

    def start(self) -> None:
        """Start to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Request the stop; returns at once."""
        self._stopping.set()
        self._stream.stop()

    def join(self, deadline: float) -> bool:
        """Wait for the end until the monotonic `deadline`; returns whether the thread has ended."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            return False
        self._writer.close()
        return True

    def reconnect(self, why: str) -> None:
        """Reconnect the stream."""
        self._stream.reconnect(why)

    def retry(self) -> None:
        """Retry the lines that could not be written."""
        if self._writer.is_behind:
            self._note_written(self._writer.retry())

    def note_known(self, at: float) -> None:
        """Record that everything is known up to an instant, in Unix seconds: the next resend starts there."""
        self._gaps.note_known(at)

    # Called in the stream's threads.

    def connected(self) -> None:
        """The stream is connected; what was sent before has to be requested."""
        self._refusals.accept()
        self.connection += 1
        self._health.update_account(self.name, connected=True, stream_since=time.time(), stream_reason=None)
        row = self._health.add_to_account(self.name, connections=1)
        self._log.info("stream_connected", connections=row.connections)
        self._on_gap()

    def disconnected(self, reason: str, pause_seconds: float) -> None:
        """The stream is not connected; it retries by itself."""
        row = self._health.accounts[self.name]
        since = time.time() if row.connected or not row.connections else row.stream_since
        self._health.update_account(self.name, connected=False, stream_since=since, stream_reason=reason)
        self._log.warning("stream_disconnected", reason=reason, again_in_seconds=round(pause_seconds, 1))

    def refused(self, error: BadCredentials) -> None:
        """The broker refused the keys; the stream retries."""
        self._refusals.refuse(error)

    def received(self, messages: Sequence[Message]) -> None:
        """Write the messages of the stream. An error triggers a reconcile and never ends the stream."""
        try:
            started = time.perf_counter()
            done = self._writer.store(messages)
            self._note_written(done)
            self._health.add_to_account(
                self.name, messages=len(messages), events=done.events, unreadable=done.unread
            )  # fmt: skip
            self._health.update_account(self.name, last_message_at=time.time())
            self._log.debug(
                "messages_written", messages=len(messages), events=done.events,
                elapsed_ms=round((time.perf_counter() - started) * 1000, 2),
            )  # fmt: skip
            if done.unread:
                self._log.warning("messages_unreadable", messages=done.unread)
        except Exception as error:
            self._log.exception("messages_unwritten", messages=len(messages), reason=str(error))
            self._health.update_account(self.name, stream_reason=str(error))
            self._on_gap()

    def _note_written(self, done: Written) -> None:
        now = time.monotonic()
        for team, reason in done.failed.items():
            # It is retried every second and logged once a minute.
            if now - self._logged_at.get(team, -REMIND_SECONDS) >= REMIND_SECONDS:
                self._logged_at[team] = now
                lost = done.lost + done.refused
                self._log.error("append_failed", team_id=team, reason=reason, waiting=done.waiting, lost=lost)
        for order_id, detail in done.contested.items():
            if now - self._logged_at.get(order_id, -REMIND_SECONDS) >= REMIND_SECONDS:
                self._logged_at[order_id] = now
                self._log.warning("order_contested", order_id=order_id, reason=detail)
        if done.lost or done.kin_left:
            self._on_gap()
        if done.failed:
            self._health.update_account(
                self.name, waiting_lines=done.waiting, stream_reason="; ".join(done.failed.values())[:500]
            )
        elif self._health.accounts[self.name].waiting_lines:
            self._health.update_account(self.name, waiting_lines=0, stream_reason=None)
            self._log.info("append_recovered")
            self._logged_at.clear()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._stream.run()
            except Exception as error:
                # A bug: reconciles continue, and the stream is started again.
                self._log.exception("stream_failed", reason=str(error))
                self.disconnected(f"unexpected {type(error).__name__}", RESTART_SECONDS)
                self._stopping.wait(RESTART_SECONDS)

    # Called by the reconcile loop.

    def close_gap(self) -> None:
        """Request a resend of what was missed while the stream was down, if the account has that."""
        try:
            done = self._gaps.close()
        except (BrokerError, BadCredentials) as error:
            self._log.warning("gap_not_resent", reason=str(error))
            return
        self._health.update_account(self.name, resend=done.kind)
        if done.kind is not None:
            self._log.info(
                "gap_resent", kind=done.kind, messages=done.messages, complete=done.complete,
                **({"reason": done.reason} if done.reason else {}),
            )  # fmt: skip
