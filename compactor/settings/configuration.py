"""What the daemon and sealing are told to do: defaults, `compactor.toml`, the environment, the command line.

Later ones win. The rule that surprises: nothing is guessed or ignored. A key that nobody knows, or a value of another
kind than expected, is an error that names the place, and all of them are told at once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from compactor.settings.accounts import AccountSettings, read_accounts

FILE = "compactor.toml"
PREFIX = "COMPACTOR_"
NOT_SETTINGS = frozenset({"COMPACTOR_DATA", "COMPACTOR_DEBUG", "COMPACTOR_CONFIG", "COMPACTOR_LIVE"})
DEFAULT = "default"
COMMAND_LINE = "command line"
DAYS_MAX = 36_500
"""A hundred years: anything longer is a slip, and no instant could be that far from another."""
POLL_SECONDS_MAX = 10
"""A loop that turns more seldom could not be told from one that hangs, by `/livez` (30 s) or systemd (60 s)."""

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"([0-9]{1,15})\s*([A-Za-z]*)")


class Settings(msgspec.Struct, frozen=True):
    """What is in force."""

    retention_days: int | None = 7
    """Days that an ended order stays in the state; None for ever. No byte of any derived file depends on it."""
    seal: bool = True
    """Whether the daemon seals."""
    segment_bytes: int = 64 << 20
    """A log that has grown by so much is sealed."""
    segment_age_hours: int = 24
    """A log whose oldest event that is not sealed is as old as this is sealed."""
    reclaim: Literal["punch", "never"] = "punch"
    """Whether the space of what is sealed is given back."""
    poll_seconds: int = 2
    """How often every log is looked at, whatever was hinted."""
    http: str | None = None
    """Where `/livez`, `/readyz` and `/metrics` are served: HOST:PORT."""
    reconcile_seconds: int = 300
    """How often the ledgers are compared with the broker."""
    requests_per_minute: int = 150
    """How many requests an account may be asked, of the 200 that Alpaca allows."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that the daemon says."""
    accounts: tuple[AccountSettings, ...] = ()
    """The accounts at the broker; without any, one from the environment. Only a file can name them."""
    signing_key: str | None = None
    """The file of the key that signs the head of every seal; seen from the data directory."""
    witness: str | None = None
    """The file, best on another disk, to which the heads are appended; seen from the data directory."""


class Configuration(NamedTuple):
    """Settings, and where each came from: `default`, a file, a variable, or the command line."""

    settings: Settings
    origins: dict[str, str]
    file: Path | None


class BadConfiguration(Exception):
    """Settings that cannot be; the message has a line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(
    data: Path, *, config: Path | None = None, environ: Mapping[str, str] = {}, given: Mapping[str, object] = {}
) -> Configuration:
    """The configuration of a data directory. `given` are values of the command line, None where not given.

    The file is `config`, else COMPACTOR_CONFIG, else `compactor.toml` in the data directory if it is there. Raises
    BadConfiguration.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.__struct_fields__, DEFAULT)

    def take(key: str, found: object, where: str) -> None:
        try:
            values[key] = _READERS[key](found)
            origins[key] = where
        except ValueError as error:
            problems.append(f"{where}: {key}: expected {error}, found {found!r}")

    path = _file(data, config, environ)
    for key, found in (_toml(path, problems) if path is not None else {}).items():
        if key == "accounts":
            values[key], origins[key] = read_accounts(found, str(path), problems), str(path)
        elif key in _READERS:
            take(key, found, str(path))
        else:
            problems.append(f"{path}: {_unknown(key, key)}")
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in NOT_SETTINGS):
        key = name.removeprefix(PREFIX).lower()
        if key in _READERS:
            take(key, environ[name], name)
        else:
            problems.append(f"environment: {_unknown(name, key)}")
    for key, value in given.items():
        if value is not None:
            take(key, value, COMMAND_LINE)
    if problems:
        raise BadConfiguration(problems)
    return Configuration(Settings(**values), origins, path)


def _file(data: Path, config: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config is not None:
        return config
    if environ.get("COMPACTOR_CONFIG"):
        return Path(environ["COMPACTOR_CONFIG"])
    path = data / FILE
    return path if path.exists() else None


def _toml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        problems.append(f"{path}: {error.strerror}; expected a readable TOML file of settings")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not TOML: {error}")
    return {}


def _unknown(name: str, key: str) -> str:
    near = difflib.get_close_matches(key, _READERS, 1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(_READERS)}"
    return f"unknown setting {name}; {hint}"


# Readers: what stands in a file has its own type, what stands in the environment is text.


def _whole(least: int, most: int) -> Callable[[object], int]:
    def read(found: object) -> int:
        value = int(found) if isinstance(found, str) and re.fullmatch("[0-9]{1,15}", found) else found
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return read


def _days(found: object) -> int | None:
    if found == "forever":
        return None
    try:
        return _whole(0, DAYS_MAX)(found)
    except ValueError:
        raise ValueError(f'a whole number of days from 0 to {DAYS_MAX}, or "forever"') from None


def _size(found: object) -> int:
    match = _SIZE.fullmatch(found.strip()) if isinstance(found, str) else None
    unit = _UNITS.get(match[2].upper()) if match else None
    value = int(match[1]) * unit if match and unit else found
    if not isinstance(value, int) or isinstance(value, bool) or value < 4096:
        raise ValueError('a size of at least 4096 bytes, as a number of bytes or a text like "64 MiB"')
    return value


def _switch(found: object) -> bool:
    value = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(str(found).lower())
    if value is None or (isinstance(found, int) and not isinstance(found, bool)):
        raise ValueError("true or false")
    return value


def _one_of(*choices: str) -> Callable[[object], str]:
    def read(found: object) -> str:
        if found not in choices:
            raise ValueError(" or ".join(f'"{choice}"' for choice in choices))
        return str(found)

    return read


def _address(found: object) -> str:
    if not isinstance(found, str):
        raise ValueError('HOST:PORT, as "127.0.0.1:9464"')
    split_address(found)
    return found


def split_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [IPV6]:PORT. Raises ValueError, which says what was expected."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError('HOST:PORT, as "127.0.0.1:9464"')
    return host, int(port)


def _file_name(found: object) -> str:
    if not isinstance(found, str) or not found or "\0" in found:
        raise ValueError("the path of a file, as a text")
    return found


_READERS: dict[str, Callable[[object], Any]] = {
    "retention_days": _days,
    "seal": _switch,
    "segment_bytes": _size,
    "segment_age_hours": _whole(1, DAYS_MAX * 24),
    "reclaim": _one_of("punch", "never"),
    "poll_seconds": _whole(1, POLL_SECONDS_MAX),
    "http": _address,
    "reconcile_seconds": _whole(10, 86_400),
    "requests_per_minute": _whole(1, 10_000),
    "log_level": _one_of("debug", "info", "warning", "error"),
    "signing_key": _file_name,
    "witness": _file_name,
}
