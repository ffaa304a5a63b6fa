"""The short way of the one path that everybody polls: `GET …/orders/open`, answered without the framework.

It answers what is right and plain; whatever is refused, unusual or another path goes the usual way, to the same body
(`TeamView.open_orders`). Note: it exists because the framework takes longer for a request than the answer does.
"""

from __future__ import annotations

import re

from compactor.web.api_keys import ApiKey
from compactor.web.gate import Application, Receive, Scope, Send
from compactor.web.replies import names_etag
from compactor.web.site import Site

_PATH = re.compile(r"/api/v1/team/([A-Za-z0-9][A-Za-z0-9._-]{0,63})/orders/open")
_NUMBERS = {b"": "text", b"numbers=text": "text", b"numbers=json": "json"}


class ShortWay:
    """An ASGI application in front of another one."""

    def __init__(self, inner: Application, site: Site) -> None:
        self._inner = inner
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a poll, or pass the request on."""
        match = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        numbers = _NUMBERS.get(scope["query_string"]) if match is not None else None
        if match is None or numbers is None or not self._may(scope["state"]["access"], match[1]):
            await self._inner(scope, receive, send)
            return
        body = self._site.view(match[1]).open_orders("json", numbers)
        known = next((value for name, value in scope["headers"] if name == b"if-none-match"), None)
        if known is not None and names_etag(known.decode("latin-1"), body.etag):
            await send({"type": "http.response.start", "status": 304, "headers": body.headers})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [
            *body.headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body.data)),
        ]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body.data})

    def _may(self, access: ApiKey | None, team: str) -> bool:
        if access is None:
            return False
        return self._site.tracker.rows(team) is not None if access.is_admin else access.team_id == team
