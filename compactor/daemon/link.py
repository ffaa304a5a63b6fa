"""The link to one account: its stream, written as it comes, and the replay that closes the gaps of it.

How each of them works is for `broker.stream`, `jobs.streaming` and `jobs.gaps`; what reconciles is `healing`. The rule
that surprises: whatever goes wrong while frames are written is said and costs a reconcile, and never the stream.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from compactor.broker.credentials import BadCredentials
from compactor.broker.rest import BrokerError
from compactor.broker.stream import Frame, Stream
from compactor.daemon.health import Health
from compactor.daemon.notices import Log
from compactor.sync.gaps import Gaps
from compactor.sync.stream_writer import StreamWriter, Written

RESTART_SECONDS = 5.0
REMIND_SECONDS = 60.0


class Link:
    """The link to one account, in a thread of its own.

    `on_gap` is told when something may be missing, which a reconcile then has to find; `on_end` of keys that the broker
    refuses, after which nothing more is done here.
    """

    def __init__(
        self,
        name: str,
        stream: Callable[[Link], Stream],
        writer: StreamWriter,
        gaps: Gaps,
        health: Health,
        log: Log,
        *,
        on_gap: Callable[[], None],
        on_end: Callable[[BadCredentials], None],
    ) -> None:
        self.name = name
        self.connection = 0
        """Counts connections: what a reconcile means depends on which one it ran on."""
        self._stream = stream(self)
        self._writer = writer
        self._gaps = gaps
        self._health = health
        self._log = log.bind(account=name)
        self._on_gap = on_gap
        self._on_end = on_end
        self._told_at: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._hear, name=f"stream-{name}", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Begin to end; returns at once."""
        self._stopping.set()
        self._stream.stop()

    def join(self, deadline: float) -> bool:
        """Wait for the end until the monotonic `deadline`; whether it has come."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            return False
        self._writer.close()
        return True

    def reconnect(self, why: str) -> None:
        """Let the stream connect anew."""
        self._stream.reconnect(why)

    def retry(self) -> None:
        """Try again to write what could not be written."""
        if self._writer.is_behind:
            self._note_written(self._writer.retry())

    def note_known(self, at: float) -> None:
        """All is known up to an instant, in Unix seconds: the next replay begins there."""
        self._gaps.note_known(at)

    # Called in the stream's threads.

    def connected(self) -> None:
        """Signed in and subscribed; what was told before that has to be caught up with."""
        self.connection += 1
        self._health.update_account(self.name, connected=True, stream_since=time.time(), stream_reason=None)
        row = self._health.add_to_account(self.name, connections=1)
        self._log.info("stream_connected", connections=row.connections)
        self._on_gap()

    def disconnected(self, reason: str, pause_seconds: float) -> None:
        """Not connected; the stream tries again by itself."""
        row = self._health.accounts[self.name]
        since = time.time() if row.connected or not row.connections else row.stream_since
        self._health.update_account(self.name, connected=False, stream_since=since, stream_reason=reason)
        self._log.warning("stream_disconnected", reason=reason, again_in_seconds=round(pause_seconds, 1))

    def received(self, frames: Sequence[Frame]) -> None:
        """Write what the stream tells; an error here costs a reconcile, and never the stream."""
        try:
            started = time.perf_counter()
            done = self._writer.store(frames)
            self._note_written(done)
            self._health.add_to_account(
                self.name, messages=len(frames), events=done.events, unreadable=done.unread
            )  # fmt: skip
            self._health.update_account(self.name, last_message_at=time.time())
            self._log.debug(
                "frames_written", frames=len(frames), events=done.events,
                elapsed_ms=round((time.perf_counter() - started) * 1000, 2),
            )  # fmt: skip
            if done.unread:
                self._log.warning("frames_unreadable", frames=done.unread)
        except Exception as error:
            self._log.exception("frames_unwritten", frames=len(frames), reason=str(error))
            self._health.update_account(self.name, stream_reason=str(error))
            self._on_gap()

    def _note_written(self, done: Written) -> None:
        now = time.monotonic()
        for team, reason in done.failed.items():
            # It is tried every second, and told every minute.
            if now - self._told_at.get(team, -REMIND_SECONDS) >= REMIND_SECONDS:
                self._told_at[team] = now
                lost = done.lost + done.refused
                self._log.error("append_failed", team_id=team, reason=reason, waiting=done.waiting, lost=lost)
        if done.lost:
            self._on_gap()
        if done.failed:
            self._health.update_account(
                self.name, waiting_lines=done.waiting, stream_reason="; ".join(done.failed.values())[:500]
            )
        elif self._health.accounts[self.name].waiting_lines:
            self._health.update_account(self.name, waiting_lines=0, stream_reason=None)
            self._log.info("append_recovered")
            self._told_at.clear()

    def _hear(self) -> None:
        while not self._stopping.is_set():
            try:
                self._stream.run()
            except BadCredentials as error:
                self._end(error)
            except Exception as error:
                # A bug; the reconcile goes on, and the stream is begun again.
                self._log.exception("stream_failed", reason=str(error))
                self.disconnected(f"unexpected {type(error).__name__}", RESTART_SECONDS)
                self._stopping.wait(RESTART_SECONDS)

    def _end(self, error: BadCredentials) -> None:
        self._health.update_account(self.name, connected=False, stream_reason=str(error))
        self._log.error("credentials_refused", reason=str(error))
        self.stop()
        self._on_end(error)

    # Called by what reconciles.

    def close_gap(self) -> None:
        """Have the broker tell again what it told while nobody listened, where it can."""
        try:
            done = self._gaps.close()
        except BrokerError as error:
            self._log.warning("gap_not_replayed", reason=str(error))
            return
        self._health.update_account(self.name, replay=done.kind)
        if done.kind is not None:
            self._log.info(
                "gap_replayed", kind=done.kind, messages=done.messages, complete=done.complete,
                **({"reason": done.reason} if done.reason else {}),
            )  # fmt: skip
