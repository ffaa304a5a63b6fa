"""The short way of the one path that everybody polls: `GET …/orders/open`, answered without the framework.

It answers what is right and plain; whatever is refused, unusual or another path goes the usual way, to the same body
(`TeamView.open_orders`). Note: it exists because the framework takes longer for a request than the answer does.
"""

from __future__ import annotations

import re

from compactor.web.api_keys import ApiKey
from compactor.web.connections import EXTENSION, BoundedConnection
from compactor.web.gate import ALWAYS, GatedRequest
from compactor.web.replies import names_etag
from compactor.web.site import Site

_PATH = re.compile(r"/api/v1/team/([A-Za-z0-9][A-Za-z0-9._-]{0,63})/orders/open")
_NUMBERS = {b"": "text", b"numbers=text": "text", b"numbers=json": "json"}
_FIXED = b"".join(b"%b: %b\r\n" % pair for pair in [*ALWAYS, (b"content-type", b"application/json")])


class ShortWay:
    """Answers polls that have passed the gate."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def answer(self, request: GatedRequest) -> int:
        """Answer a poll at once. Returns its status, or 0 for a request that has to go the usual way."""
        match = _PATH.fullmatch(request.path) if request.method == "GET" else None
        numbers = _NUMBERS.get(request.query) if match is not None else None
        if match is None or numbers is None or not self._may(request.access, match[1]):
            return 0
        connection: BoundedConnection = request.scope["extensions"][EXTENSION]
        body = self._site.view(match[1]).open_orders("json", numbers)
        if request.if_none_match is not None and names_etag(request.if_none_match, body.etag):
            status, line, length, data = 304, b"HTTP/1.1 304 Not Modified\r\n", b"", b""
        else:
            data = body.data
            status, line, length = 200, b"HTTP/1.1 200 OK\r\n", b"content-length: %d\r\n" % len(data)
        limits = request.allowance.encode_headers() if request.allowance is not None else b""
        head = b"".join((line, connection.write_default_headers(), body.head, _FIXED, length, limits, b"\r\n"))
        return status if connection.answer_at_once(request.scope, head, data) else 0

    def _may(self, access: ApiKey | None, team: str) -> bool:
        if access is None:
            return False
        return self._site.tracker.rows(team) is not None if access.is_admin else access.team_id == team
