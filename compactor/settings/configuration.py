"""The settings of the daemon and of sealing: defaults, `compactor.toml`, the environment, the command line.

A later source overrides an earlier one. Note: nothing is guessed or ignored. An unknown key or a value of the wrong
kind is an error that names its source, and all errors are reported at once.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from compactor.core import CompactorError
from compactor.ledger.paths import TEAM_EXPECTED, TEAM_PATTERN
from compactor.settings.accounts import AccountSettings, convert_field, describe_unknown, read_accounts

FILE = "compactor.toml"
PREFIX = "COMPACTOR_"
NOT_SETTINGS = frozenset(
    {"COMPACTOR_DATA", "COMPACTOR_DEBUG", "COMPACTOR_CONFIG", "COMPACTOR_LIVE", "COMPACTOR_PURE_PYTHON"}
)
DEFAULT_ORIGIN = "default"
COMMAND_LINE = "command line"
DAYS_MAX = 36_500
"""A hundred years: a longer time is a typo, and no two instants could be that far apart."""
POLL_SECONDS_MAX = 10
"""A loop that turns less often could not be distinguished from one that hangs, by `/livez` (30 s) or systemd (60 s)."""
SEGMENT_BYTES_MIN = 4096

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"([0-9]{1,15})\s*([A-Za-z]*)")
_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


# A value in a file has its own type; a value in the environment is text, which these functions parse.


def _parse_whole(found: object) -> object:
    return int(found) if isinstance(found, str) and re.fullmatch("[0-9]{1,15}", found) else found


def _parse_days(found: object) -> object:
    return None if found == "forever" else _parse_whole(found)


def _parse_size(found: object) -> object:
    match = _SIZE.fullmatch(found.strip()) if isinstance(found, str) else None
    unit = _UNITS.get(match[2].upper()) if match else None
    return int(match[1]) * unit if match and unit else found


def _parse_switch(found: object) -> object:
    return _SWITCH.get(found.lower(), found) if isinstance(found, str) else found


def _parse_address(found: object) -> object:
    if isinstance(found, str):
        split_address(found)
    return found


def _split_commas(found: object) -> object:
    return [one.strip() for one in found.split(",") if one.strip()] if isinstance(found, str) else found


def _parse_networks(found: object) -> object:
    networks = _split_commas(found)
    for one in networks if isinstance(networks, list) else ():
        if isinstance(one, str):
            ipaddress.ip_network(one, strict=False)
    return networks


def split_address(text: str) -> tuple[str, int]:
    """Split HOST:PORT or [IPV6]:PORT. Raises ValueError, whose text says what was expected."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(_ADDRESS_EXPECTED)
    return host, int(port)


_ADDRESS_EXPECTED = 'HOST:PORT, as "127.0.0.1:9464"'
Days = Annotated[
    Annotated[int, Meta(ge=0, le=DAYS_MAX)] | None,
    Meta(
        description=f'a whole number of days from 0 to {DAYS_MAX}, or "forever"',
        extra={"parse": _parse_days},
    ),
]
Size = Annotated[
    int,
    Meta(
        ge=SEGMENT_BYTES_MIN,
        description=f'a size of at least {SEGMENT_BYTES_MIN} bytes, as a number of bytes or a text like "64 MiB"',
        extra={"parse": _parse_size},
    ),
]
Switch = Annotated[bool, Meta(description="true or false", extra={"parse": _parse_switch})]
Hours = Annotated[
    int,
    Meta(
        ge=1,
        le=DAYS_MAX * 24,
        description=f"a whole number from 1 to {DAYS_MAX * 24}",
        extra={"parse": _parse_whole},
    ),
]
PollSeconds = Annotated[
    int,
    Meta(
        ge=1,
        le=POLL_SECONDS_MAX,
        description=f"a whole number from 1 to {POLL_SECONDS_MAX}",
        extra={"parse": _parse_whole},
    ),
]
ReconcileSeconds = Annotated[
    int, Meta(ge=10, le=86_400, description="a whole number from 10 to 86400", extra={"parse": _parse_whole})
]
RequestsPerMinute = Annotated[
    int, Meta(ge=1, le=10_000, description="a whole number from 1 to 10000", extra={"parse": _parse_whole})
]
Percent = Annotated[int, Meta(ge=0, le=90, description="a whole number from 0 to 90", extra={"parse": _parse_whole})]
Reclaim = Annotated[Literal["punch", "never"], Meta(description='"punch" or "never"')]
HttpRequests = Annotated[
    int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000", extra={"parse": _parse_whole})
]
HttpLog = Annotated[Literal["all", "notable", "none"], Meta(description='"all" or "notable" or "none"')]
HostNames = Annotated[
    tuple[Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})\Z")], ...],
    Meta(
        description='a list of host names, as ["desk.example.org"], or a text with commas between them',
        extra={"parse": _split_commas},
    ),
]
Networks = Annotated[
    tuple[str, ...],
    Meta(
        description='a list of addresses or networks, as ["127.0.0.1", "10.0.0.0/8"], or a text with commas',
        extra={"parse": _parse_networks},
    ),
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], Meta(description='"debug" or "info" or "warning" or "error"')
]
Address = Annotated[str, Meta(description=_ADDRESS_EXPECTED, extra={"parse": _parse_address})]
TeamId = Annotated[str, Meta(pattern=rf"\A{TEAM_PATTERN.pattern}\Z")]
Teams = Annotated[
    tuple[TeamId, ...],
    Meta(
        description=f"a list of team ids, or a text with commas between them ({TEAM_EXPECTED})",
        extra={"parse": _split_commas},
    ),
]
FileName = Annotated[
    str,
    Meta(pattern=r"\A(?!PRIVATE\+KEY\+)[^\0]+\Z", description="the path of a file, as a text; never a key itself"),
]


class Settings(msgspec.Struct, frozen=True):
    """The settings in force."""

    retention_days: Days = 7
    """Days that an ended order stays in the state; None for ever. No byte of a derived file depends on it."""
    seal: Switch = True
    """Whether the daemon seals."""
    segment_bytes: Size = 64 << 20
    """A log is sealed when it has grown by so many bytes."""
    segment_age_hours: Hours = 24
    """A log is sealed when its oldest unsealed event is this old."""
    reclaim: Reclaim = "punch"
    """Whether the disk space of sealed bytes is released."""
    poll_seconds: PollSeconds = 2
    """The interval at which every log is checked, independent of hints."""
    http: Address | None = None
    """HOST:PORT at which the API, the page, `/livez`, `/readyz` and `/metrics` are served."""
    http_hosts: HostNames = ()
    """The names by which the server may be called, beside its addresses and `localhost`."""
    http_proxies: Networks = ()
    """The reverse proxies whose `X-Forwarded-For` is believed."""
    http_requests_per_minute: HttpRequests = 600
    """The requests that one key may send; one address may send five times as many."""
    http_connections: HttpRequests = 2500
    """The connections that may be open, event streams among them."""
    http_streams_per_key: HttpRequests = 200
    """The event streams that one key may have open."""
    http_log: HttpLog = "notable"
    """Which requests are logged: `notable` are those that were refused or change something."""
    reconcile_seconds: ReconcileSeconds = 300
    """The interval at which the ledgers are compared with the broker."""
    requests_per_minute: RequestsPerMinute = 150
    """The requests that may be sent per account, of those that the broker allows (200 at Alpaca)."""
    requests_left_percent: Percent = 20
    """The share of these requests that reconciles and resends leave to orders."""
    teams: Teams = ()
    """The teams that a `client_order_id` may name before they have a ledger."""
    log_level: LogLevel = "info"
    """The lowest level that the daemon logs."""
    accounts: tuple[AccountSettings, ...] = ()
    """The accounts at the broker; without any, one from the environment. Only a file can name them."""
    signing_key: FileName | None = None
    """The file of the key that signs the head of every seal; relative to the data directory."""
    witness: FileName | None = None
    """The file, best on another disk, to which the heads are appended; relative to the data directory."""


_FIELDS = tuple(name for name in Settings.__struct_fields__ if name != "accounts")


class Configuration(NamedTuple):
    """The settings, and the origin of each: `default`, a file, a variable, or the command line."""

    settings: Settings
    origins: dict[str, str]
    file: Path | None


class BadConfiguration(CompactorError):
    """Invalid settings; the message has a line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(
    data: Path, *, config: Path | None = None, environ: Mapping[str, str] = {}, given: Mapping[str, object] = {}
) -> Configuration:
    """Load the configuration of a data directory. `given` are values of the command line, None if not given.

    The file is `config`, else COMPACTOR_CONFIG, else `compactor.toml` in the data directory if it exists. Raises
    BadConfiguration.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.__struct_fields__, DEFAULT_ORIGIN)

    def set_value(key: str, found: object, where: str) -> None:
        try:
            values[key] = convert_field(Settings, key, found)
            origins[key] = where
        except ValueError as error:
            problems.append(f"{where}: {key}: expected {error}, found {found!r}")

    path = _find_file(data, config, environ)
    for key, found in (_read_toml(path, problems) if path is not None else {}).items():
        if key == "accounts":
            values[key], origins[key] = read_accounts(found, str(path), problems), str(path)
        elif key in _FIELDS:
            set_value(key, found, str(path))
        else:
            problems.append(f"{path}: {describe_unknown(key, key, _FIELDS)}")
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in NOT_SETTINGS):
        key = name.removeprefix(PREFIX).lower()
        if key in _FIELDS:
            set_value(key, environ[name], name)
        else:
            problems.append(f"environment: {describe_unknown(name, key, _FIELDS)}")
    for key, value in given.items():
        if value is not None:
            set_value(key, value, COMMAND_LINE)
    if problems:
        raise BadConfiguration(problems)
    return Configuration(Settings(**values), origins, path)


def _find_file(data: Path, config: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config is not None:
        return config
    if environ.get("COMPACTOR_CONFIG"):
        return Path(environ["COMPACTOR_CONFIG"])
    path = data / FILE
    return path if path.exists() else None


def _read_toml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        problems.append(f"{path}: {error.strerror}; expected a readable TOML file of settings")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not TOML: {error}")
    return {}
