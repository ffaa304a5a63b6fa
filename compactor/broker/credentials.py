"""The keys of an account at a broker, hidden wherever they could be shown.

Which variables of the environment hold them is left to the broker's adapter. Note: real money requires an explicit word
(`LIVE_WORD`). Neither the keys alone nor an old URL in a profile ever reach the live account.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from compactor.core import CompactorError

DEFAULT_BROKER = "alpaca"
"""The broker of an account whose settings name none."""
LIVE = "COMPACTOR_LIVE"
LIVE_WORD = "yes-real-money"


class BadCredentials(CompactorError):
    """No usable keys were found, or the broker refused them. The message never contains a key.

    `status` and `code` are those of the broker's answer, None where there was none.
    """

    what_to_do = "set the variables that the message names to valid keys, and start again"

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Hidden(str):
    """A text whose `repr` hides it, so that a traceback with local variables does not show it."""

    def __repr__(self) -> str:
        return "'…'"


class Environment(Mapping[str, str]):
    """The environment variables of a process; neither its `repr` nor those of its values show a value."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._get = variables.get
        self._names = tuple(variables)

    def __getitem__(self, name: str) -> str:
        value = self._get(name)
        if value is None:
            raise KeyError(name)
        return Hidden(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<{len(self)} variables>"


@dataclass(frozen=True)
class Credentials:
    """The keys of one account; its `repr` shows neither the key nor the secret.

    `names` are the variables they came from. `url` is None for the broker's own address, paper or live. `broker` names
    the adapter.
    """

    key: str = field(repr=False)
    secret: str = field(repr=False)
    names: tuple[str, str]
    paper: bool = True
    url: str | None = None
    broker: str = DEFAULT_BROKER

    def hide(self, text: str) -> str:
        """Replace the keys in a text."""
        for hidden in sorted((self.key, self.secret), key=len, reverse=True):
            text = text.replace(hidden, "…")
        return text

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are never written down, so they cannot be pickled")
