"""Ask the broker to cancel an order, for whoever calls the API.

The request is made in a thread, by the same function as `compactor cancel`. Note: an order is open until the broker
says that it is canceled; what it says right after the request is in the log when this returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from compactor.broker.placing import Trader
from compactor.broker.port import NotFound, Refused
from compactor.core import CompactorError
from compactor.settings.accounts import Account

AT_ONCE_MAX = 4
TIMEOUT_SECONDS = (3.0, 5.0)


class CannotCancel(CompactorError):
    """An order that cannot be canceled; `status` is that of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Canceler:
    """Cancels orders in the accounts that this server has keys of."""

    def __init__(self, data: Path, accounts: Sequence[Account]) -> None:
        self._data = data
        self._accounts = accounts
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)

    @property
    def trading(self) -> str | None:
        """`paper`, `real money`, both, or None without any account."""
        kinds = sorted({"paper" if one.credentials.paper else "real money" for one in self._accounts})
        return " and ".join(kinds) or None

    async def cancel(self, order_id: str) -> None:
        """Ask for an open order to be canceled. Raises CannotCancel."""
        if not self._accounts:
            raise CannotCancel(
                503, "this server has no keys of the broker; start it with those that compactor run has, or use that"
            )
        async with self._turns:
            await asyncio.to_thread(self._cancel, order_id)

    def _cancel(self, order_id: str) -> None:
        missing: NotFound | None = None
        for account in self._accounts:
            try:
                with Trader(self._data, account.credentials, timeout_seconds=TIMEOUT_SECONDS) as trader:
                    trader.cancel(order_id)
                return
            except NotFound as error:
                missing = error
            except Refused as error:
                raise CannotCancel(409, str(error)) from None
            except CompactorError as error:
                raise CannotCancel(503, str(error)) from None
        raise CannotCancel(404, f"the broker has no such order: {missing}")
