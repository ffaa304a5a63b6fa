"""The accounts at the broker: their tables in `compactor.toml`, and the keys that the environment holds for them.

Without any in the file there is one, called `default`, from the environment. Note: no value of this part of the file is
ever shown, because a misplaced value may be a key.

The constraints of a setting stand in the annotations of its struct as `msgspec.Meta`. Its `description` is what an
error message says was expected, and `extra={"parse": function}` prepares a value that has another form, such as text
of the environment.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from compactor.broker.adapters import UnknownBroker, find_adapter, find_credentials
from compactor.broker.credentials import DEFAULT_BROKER, LIVE_WORD, Credentials, Environment
from compactor.ledger.paths import TEAM_EXPECTED, TEAM_PATTERN


def convert_field(struct: type[msgspec.Struct], name: str, found: object) -> Any:
    """Convert a value to the type of a field. Raises ValueError, whose text says what was expected."""
    annotation = _read_annotations(struct)[name]
    meta = _find_meta(annotation)
    parse = (meta.extra or {}).get("parse")
    try:
        return msgspec.convert(parse(found) if parse is not None else found, annotation)
    except ValueError:
        raise ValueError(meta.description) from None


def describe_unknown(name: str, key: str, known: Iterable[str]) -> str:
    """The message for a setting that does not exist, with the nearest name or all names."""
    names = list(known)
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
    return f"unknown setting {name}; {hint}"


@cache
def _read_annotations(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(struct, include_extras=True)


def _find_meta(annotation: Any) -> Meta:
    """The Meta with the description: of the annotation itself, or of the first member of a union that has one."""
    if get_origin(annotation) is Annotated:
        for one in annotation.__metadata__:
            if isinstance(one, Meta) and one.description:
                return one
    for member in get_args(annotation):
        if get_origin(member) is Annotated:
            return _find_meta(member)
    raise AssertionError(f"{annotation} has no Meta with a description")


DEFAULT_ACCOUNT = "default"


def _parse_live(found: object) -> object:
    return None if found is False else found


def _parse_patterns(found: object) -> object:
    patterns = [found] if isinstance(found, str) else found
    try:
        if isinstance(patterns, list) and all("team" in re.compile(one).groupindex for one in patterns):
            return patterns
    except (re.error, TypeError):
        pass
    raise ValueError("not a list of regular expressions")


# No key has an underscore, so a key in the place of a variable's name is detected, and never shown.
Variable = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Z][A-Z0-9]*_[A-Z0-9_]*\Z",
        description="the name of the environment variable that holds it, in capitals, as DESK_KEY; never the key",
    ),
]
Live = Annotated[
    Literal["yes-real-money"] | None,
    Meta(
        description=f'"{LIVE_WORD}" for real money, or nothing for paper trading',
        extra={"parse": _parse_live},
    ),
]
Team = Annotated[str, Meta(pattern=rf"\A{TEAM_PATTERN.pattern}\Z", description=f"a team id: {TEAM_EXPECTED}")]
Patterns = Annotated[
    tuple[str, ...],
    Meta(description="regular expressions with a group (?P<team>...)", extra={"parse": _parse_patterns}),
]
Url = Annotated[str, Meta(pattern=r"\Ahttps?://[^@\s]+\Z", description="an address such as http://127.0.0.1:8123")]


def _parse_broker(found: object) -> object:
    try:
        find_adapter(str(found))
    except UnknownBroker as error:
        raise ValueError(str(error)) from None
    return found


Broker = Annotated[str, Meta(description="the name of a broker's adapter", extra={"parse": _parse_broker})]


class AccountSettings(msgspec.Struct, frozen=True):
    """The settings of one account. Of its keys they contain only the names of the variables."""

    name: str = DEFAULT_ACCOUNT
    key_variable: Variable | None = None
    secret_variable: Variable | None = None
    live: Live = None
    """LIVE_WORD for real money."""
    team: Team | None = None
    """The team for otherwise unclaimed orders."""
    patterns: Patterns = ()
    """Regular expressions whose group `team` names the team in a `client_order_id`."""
    url: Url | None = None
    """An address other than the broker's own, for example a local server for tests."""
    broker: Broker = DEFAULT_BROKER
    """The name of the broker's adapter."""


class Account(NamedTuple):
    """An account at the broker: its name here, its keys, and the team for otherwise unclaimed orders."""

    name: str
    credentials: Credentials
    team: str | None = None
    patterns: Sequence[re.Pattern[str]] = ()


_FIELDS = tuple(name for name in AccountSettings.__struct_fields__ if name != "name")


def find_accounts(settings: Sequence[AccountSettings], environ: Mapping[str, str]) -> list[Account]:
    """Find the keys of the accounts. Raises BadCredentials if the environment lacks those of one."""
    environ = Environment(environ)
    return [_find_account(one, environ) for one in settings or (AccountSettings(),)]


def _find_account(one: AccountSettings, environ: Mapping[str, str]) -> Account:
    names = (one.key_variable, one.secret_variable) if one.key_variable and one.secret_variable else None
    keys = find_credentials(environ, broker=one.broker, names=names, live=one.live is not None, url=one.url)
    return Account(one.name, keys, one.team, tuple(re.compile(pattern) for pattern in one.patterns))


def read_accounts(found: object, where: str, problems: list[str]) -> tuple[AccountSettings, ...]:
    """Read the accounts of a file, `[accounts.NAME]` each or `[[accounts]]` with a name; appends to `problems`."""
    if isinstance(found, dict):
        tables = [(str(name), table) for name, table in found.items()]
    elif isinstance(found, list):
        tables = [(str(one.get("name", "")) if isinstance(one, dict) else "", one) for one in found]
    else:
        problems.append(f"{where}: accounts: expected tables such as [accounts.main]")
        return ()
    accounts = [_read_account(name, table, where, problems) for name, table in tables]
    names = [one.name for one in accounts]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"{where}: accounts: found two accounts called {name}, expected a name for each")
    return tuple(accounts)


def _read_account(name: str, table: object, where: str, problems: list[str]) -> AccountSettings:
    if not TEAM_PATTERN.fullmatch(name):
        problems.append(f"{where}: accounts: an account needs a name: {TEAM_EXPECTED}")
        return AccountSettings()
    where = f"{where}: accounts.{name}"
    if not isinstance(table, dict):
        problems.append(f"{where}: expected a table, as [accounts.{name}]")
        return AccountSettings(name)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "name":
            continue
        if key not in _FIELDS:
            problems.append(f"{where}: {describe_unknown(key, key, _FIELDS)}")
            continue
        try:
            values[key] = convert_field(AccountSettings, key, value)
        except ValueError as error:
            problems.append(f"{where}: {key}: expected {error}")
    if ("key_variable" in values) != ("secret_variable" in values):
        problems.append(f"{where}: expected both key_variable and secret_variable, or neither; found one of them")
    return AccountSettings(name, **values)
