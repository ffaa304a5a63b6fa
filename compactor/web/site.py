"""What the routes share: the tracker, the views of the teams, who may see what, and what can be canceled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from litestar.connection import ASGIConnection, Request
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from structlog.typing import FilteringBoundLogger as Logger

from compactor.settings.configuration import Settings
from compactor.tracker.live_orders import LiveOrders
from compactor.web.api_keys import ApiKey, KeyStore
from compactor.web.canceling import Canceler
from compactor.web.event_streams import StreamEnd, TeamStreams
from compactor.web.health_link import HealthSource
from compactor.web.team_view import TeamView
from compactor.web.traffic import Traffic

AnyRequest = Request[Any, Any, Any]
READS_AT_ONCE = 2
"""Reads of logs and files for requests that memory cannot answer; others wait."""


class Site:
    """The state of the application. To be used in the thread of the event loop."""

    def __init__(
        self, data: Path, tracker: LiveOrders, settings: Settings, canceler: Canceler, keys: KeyStore | None,
        traffic: Traffic, log: Logger, health: HealthSource | None,
    ) -> None:  # fmt: skip
        self.data = data
        self.tracker = tracker
        self.settings = settings
        self.canceler = canceler
        self.keys = keys
        self.traffic = traffic
        self.log = log
        self.health = health
        self.reading = asyncio.Semaphore(READS_AT_ONCE)
        self._views: dict[str, TeamView] = {}
        self._streams: dict[str, TeamStreams] = {}
        self._streams_by_key: dict[str, int] = {}

    def view(self, team: str) -> TeamView:
        """The view of a team that the request may see."""
        found = self._views.get(team)
        if found is None:
            found = self._views[team] = TeamView(self.tracker, team)
        return found

    def streams(self, team: str) -> TeamStreams:
        """The event streams of a team."""
        found = self._streams.get(team)
        if found is None:
            found = self._streams[team] = TeamStreams(self.tracker, self.view(team), self.canceler.trading, self.keys)
        return found

    def end_streams(self) -> None:
        """End every event stream, because the server ends."""
        for streams in self._streams.values():
            streams.end(StreamEnd("the server ends; come back in a moment"))

    def reserve_stream(self, access: ApiKey) -> None:
        """Count an event stream of a key in. Raises HTTPException if it has too many."""
        limit = self.settings.http_streams_per_key
        number = self._streams_by_key.get(access.key_id, 0)
        if number >= limit:
            raise HTTPException(
                status_code=429,
                detail=f"this key has {limit} event streams open; close one",
                headers={"Retry-After": "5"},
            )
        self._streams_by_key[access.key_id] = number + 1

    def release_stream(self, access: ApiKey) -> None:
        """Count an event stream of a key out."""
        number = self._streams_by_key.pop(access.key_id, 1) - 1
        if number:
            self._streams_by_key[access.key_id] = number


def find_site(connection: ASGIConnection[Any, Any, Any, Any]) -> Site:
    """The site of the application that serves a request."""
    site: Site = connection.app.state.site
    return site


def find_access(connection: ASGIConnection[Any, Any, Any, Any]) -> ApiKey:
    """What the key of a request opens; the gate has let no request of the API through without one."""
    access: ApiKey | None = connection.scope["state"].get("access")
    if access is None:
        raise HTTPException(status_code=401, detail="found no key")
    return access


def require_team(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Let a request pass if its key opens the team of its path.

    A team's key cannot tell a team of others from one that does not exist: both are refused alike, before anything is
    looked up.
    """
    access, team = find_access(connection), connection.path_params.get("team")
    if access.is_admin:
        if team not in find_site(connection).tracker.teams():
            raise HTTPException(status_code=404, detail="there is no ledger of this team")
    elif access.team_id != team:
        raise HTTPException(status_code=403, detail="this key does not open this team")


def require_admin(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Let a request pass if its key is an administrator's."""
    if not find_access(connection).is_admin:
        raise HTTPException(
            status_code=403, detail="expected the key of an administrator: compactor key create --admin"
        )


def require_monitor(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Let a request for health pass that comes from this machine itself, or has an administrator's key."""
    state = connection.scope["state"]
    access: ApiKey | None = state.get("access")
    is_near = not state.get("is_forwarded") and state.get("address", "").startswith(("127.", "::1"))
    if not (is_near or (access is not None and access.is_admin)):
        raise HTTPException(
            status_code=403, detail="expected a request of this machine itself, or the key of an administrator"
        )
