"""The keys of the API: made, listed and revoked by commands, and looked up by the server at every request.

A key is `ck_ID_SECRET`. `DATA/.compactor/api_keys.json` holds its id, what it opens, and a keyed hash (HMAC-SHA-256
under `DATA/.compactor/api_hash_key`); both files can be read by their owner only. Note: a key is shown once, when it is
made, and is nowhere afterwards.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import msgspec

from compactor.core import CompactorError
from compactor.ledger.files import Files, replace
from compactor.ledger.paths import PRIVATE, check_team

FILE = "api_keys.json"
HASH_KEY = "api_hash_key"
_LOCK = "api_keys.lock"
_PREFIX = "ck"
_ID_BYTES = 6
_SECRET_BYTES = 32
_PAUSE_SECONDS = 0.01
KEY_LENGTH_MAX = 128
"""Anything longer is no key, and is not hashed."""


class ApiKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a key. `team_id` is None for an administrator's, which opens every team."""

    key_id: str
    hash: str
    created_at: str
    team_id: str | None = None
    read_only: bool = False

    @property
    def is_admin(self) -> bool:
        """Whether it opens every team."""
        return self.team_id is None


class NewKey(msgspec.Struct, frozen=True):
    """A key that was just made: the only time that `key` is shown."""

    team_id: str | None
    key: str
    key_id: str
    admin: bool
    read_only: bool
    created_at: str


class NoSuchKey(CompactorError):
    """No key has this id."""


_decode = msgspec.json.Decoder(list[ApiKey]).decode
_NOBODY = ApiKey("", "0" * 64, "")
"""What an unknown key is compared with, so that it costs the same time as a known one."""


class KeyStore:
    """The keys of a data directory. Changes of other processes count from the next call on."""

    def __init__(self, data: Path) -> None:
        self._directory = data / PRIVATE
        self._path = self._directory / FILE
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}
        self._hash_key = b""
        self._right: dict[bytes, ApiKey] = {}
        """The keys that were right before, by a digest that is quicker than theirs; no more than there are keys."""
        self._quick_key = secrets.token_bytes(_SECRET_BYTES)

    def find(self, key: str) -> ApiKey | None:
        """What a key opens; None for one that is unknown, revoked or no key. Takes the same time for all of these."""
        self._refresh()
        quick = blake2b(key[:KEY_LENGTH_MAX].encode(errors="replace"), digest_size=32, key=self._quick_key).digest()
        if (found := self._right.get(quick)) is not None and len(key) <= KEY_LENGTH_MAX:
            return found
        parts = key.split("_", 2) if len(key) <= KEY_LENGTH_MAX else []
        known = self._keys.get(parts[1], _NOBODY) if len(parts) == 3 and parts[0] == _PREFIX else _NOBODY
        is_right = hmac.compare_digest(known.hash, self._digest(key[:KEY_LENGTH_MAX]))
        if not is_right or known is _NOBODY:
            return None
        self._right[quick] = known
        return known

    def holds(self, key: ApiKey) -> bool:
        """Whether a key that was found before is still valid."""
        self._refresh()
        return self._keys.get(key.key_id) == key

    def version(self) -> object:
        """Another value once keys were made or revoked."""
        self._refresh()
        return self._seen

    def create(self, team_id: str | None, *, read_only: bool = False) -> NewKey:
        """Make a key for a team, or with None for an administrator; durable when this returns. Raises BadTeam."""
        if team_id is not None:
            check_team(team_id, self._directory.parent)
        with self._changing() as files:
            key_id = secrets.token_hex(_ID_BYTES)
            secret = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
            key = f"{_PREFIX}_{key_id}_{secret}"
            created_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            self._keys[key_id] = ApiKey(key_id, self._digest(key), created_at, team_id, read_only)
            self._write(files)
        return NewKey(team_id, key, key_id, team_id is None, read_only, created_at)

    def list(self) -> list[ApiKey]:
        """All keys, oldest first."""
        self._refresh()
        return sorted(self._keys.values(), key=lambda one: (one.created_at, one.key_id))

    def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key by its id, or by the whole key. Raises NoSuchKey."""
        parts = key_id.split("_", 2)
        key_id = parts[1] if len(parts) == 3 and parts[0] == _PREFIX else key_id
        with self._changing() as files:
            found = self._keys.pop(key_id, None)
            if found is None:
                known = ", ".join(sorted(self._keys)) or "none"
                raise NoSuchKey(
                    f"{self._path}: no key has the id {key_id[:40]!r}, expected one of {known}; compactor key list"
                )
            self._write(files)
        return found

    # The files.

    def _refresh(self) -> None:
        try:
            found = os.stat(self._path)
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            # Without the file there are no keys, and a file that cannot be read opens nothing.
            self._seen, self._keys = None, {}
            self._right.clear()
            return
        if seen != self._seen:
            self._read()
            self._seen = seen

    def _read(self) -> None:
        self._right.clear()
        files = Files()
        try:
            self._hash_key = files.read(self._directory / HASH_KEY) or b""
            keys = _decode(files.read(self._path) or b"[]")
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            keys = []
        self._keys = {one.key_id: one for one in keys} if self._hash_key else {}

    @contextmanager
    def _changing(self) -> Iterator[Files]:
        """Hold the lock of the keys, with the keys as they are."""
        files = Files()
        files.make_directory(self._directory)
        while (descriptor := files.acquire(self._directory / _LOCK)) is None:
            time.sleep(_PAUSE_SECONDS)  # Another command changes them, which takes milliseconds.
        try:
            self._hash_key = files.read(self._directory / HASH_KEY) or b""
            if not self._hash_key:
                self._hash_key = secrets.token_bytes(_SECRET_BYTES)
                replace(files, self._directory / HASH_KEY, [self._hash_key])
            data = files.read(self._path)
            try:
                self._keys = {one.key_id: one for one in _decode(data or b"[]")}
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise CompactorError(
                    f"{self._path}: expected the keys of the API, found another text ({error}). Put it back from a "
                    "backup, or remove it and make new keys; nothing was changed"
                ) from None
            yield files
        finally:
            files.release(descriptor)
            self._seen = None

    def _write(self, files: Files) -> None:
        replace(files, self._path, [msgspec.json.format(msgspec.json.encode(list(self._keys.values())), indent=1)])

    def _digest(self, key: str) -> str:
        return hmac.digest(self._hash_key, key.encode(errors="replace"), "sha256").hex()
