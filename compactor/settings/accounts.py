"""The accounts at the broker: what `compactor.toml` says of each, and the keys that the environment holds for it.

Without any in the file there is one, called `default`, from the environment. The rule that surprises: no value of this
part of the file is ever shown, because what stands in the wrong place there may be a key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from compactor.broker.credentials import LIVE_WORD, Credentials, Environment, find_credentials
from compactor.ledger.paths import TEAM_EXPECTED, TEAM_PATTERN

DEFAULT = "default"
# No key has an underscore: so a key that stands in the place of a variable's name is told from one, and never shown.
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*_[A-Z0-9_]*")


class AccountSettings(msgspec.Struct, frozen=True):
    """What the file says of one account; of its keys it knows only which variables hold them."""

    name: str = DEFAULT
    key_variable: str | None = None
    secret_variable: str | None = None
    live: str | None = None
    """LIVE_WORD for real money."""
    team: str | None = None
    """Whose the orders are that no ledger knows and no name claims."""
    patterns: tuple[str, ...] = ()
    """Regular expressions whose group `team` names the team in a `client_order_id`."""
    url: str | None = None
    """Another address than Alpaca's, such as a local one to try things out."""


class Account(NamedTuple):
    """An account at the broker: what it is called here, its keys, and whose its orders are where nothing else tells."""

    name: str
    credentials: Credentials
    team: str | None = None
    patterns: Sequence[re.Pattern[str]] = ()


def find_accounts(settings: Sequence[AccountSettings], environ: Mapping[str, str]) -> list[Account]:
    """The accounts with their keys. Raises BadCredentials where the environment lacks those of one."""
    environ = Environment(environ)
    return [_with_keys(one, environ) for one in settings or (AccountSettings(),)]


def _with_keys(one: AccountSettings, environ: Mapping[str, str]) -> Account:
    names = (one.key_variable, one.secret_variable) if one.key_variable and one.secret_variable else None
    keys = find_credentials(environ, names=names, live=one.live is not None, url=one.url)
    return Account(one.name, keys, one.team, tuple(re.compile(pattern) for pattern in one.patterns))


def read_accounts(found: object, where: str, problems: list[str]) -> tuple[AccountSettings, ...]:
    """The accounts of a file, `[accounts.NAME]` each or `[[accounts]]` with a name; what is wrong joins `problems`."""
    if isinstance(found, dict):
        tables = [(str(name), table) for name, table in found.items()]
    elif isinstance(found, list):
        tables = [(str(one.get("name", "")) if isinstance(one, dict) else "", one) for one in found]
    else:
        problems.append(f"{where}: accounts: expected tables such as [accounts.main]")
        return ()
    accounts = [_read(name, table, where, problems) for name, table in tables]
    names = [one.name for one in accounts]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"{where}: accounts: found two accounts called {name}, expected a name for each")
    return tuple(accounts)


def _read(name: str, table: object, where: str, problems: list[str]) -> AccountSettings:
    place = f"{where}: accounts.{name}" if TEAM_PATTERN.fullmatch(name) else f"{where}: accounts"
    if not TEAM_PATTERN.fullmatch(name):
        problems.append(f"{place}: an account needs a name: {TEAM_EXPECTED}")
        return AccountSettings()
    if not isinstance(table, dict):
        problems.append(f"{place}: expected a table, as [accounts.{name}]")
        return AccountSettings(name)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "name":
            continue
        if key not in _READERS:
            near = difflib.get_close_matches(key, _READERS, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(_READERS)}"
            problems.append(f"{place}: unknown setting {key}; {hint}")
            continue
        try:
            values[key] = _READERS[key](value)
        except ValueError as error:
            problems.append(f"{place}: {key}: expected {error}")
    if ("key_variable" in values) != ("secret_variable" in values):
        problems.append(f"{place}: expected both key_variable and secret_variable, or neither; found one of them")
    return AccountSettings(name, **values)


def _variable(found: object) -> str:
    if not isinstance(found, str) or not _VARIABLE.fullmatch(found):
        raise ValueError("the name of the environment variable that holds it, in capitals, as DESK_KEY; never the key")
    return found


def _live(found: object) -> str | None:
    if found is False:
        return None
    if found != LIVE_WORD:
        raise ValueError(f'"{LIVE_WORD}" for real money, or nothing for paper trading')
    return LIVE_WORD


def _team(found: object) -> str:
    if not isinstance(found, str) or not TEAM_PATTERN.fullmatch(found):
        raise ValueError(f"a team id: {TEAM_EXPECTED}")
    return found


def _patterns(found: object) -> tuple[str, ...]:
    patterns = [found] if isinstance(found, str) else found
    try:
        if isinstance(patterns, list) and all("team" in re.compile(one).groupindex for one in patterns):
            return tuple(patterns)
    except (re.error, TypeError):
        pass
    raise ValueError("regular expressions with a group (?P<team>...)")


def _text(found: object) -> str:
    if not isinstance(found, str) or not re.fullmatch(r"https?://[^@\s]+", found):
        raise ValueError("an address such as http://127.0.0.1:8123")
    return found


_READERS: dict[str, Callable[[object], Any]] = {
    "key_variable": _variable,
    "secret_variable": _variable,
    "live": _live,
    "team": _team,
    "patterns": _patterns,
    "url": _text,
}
