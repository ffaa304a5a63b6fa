"""Make the responses of the routes: bodies that are encoded already, their freshness, and 304 for what is unchanged."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec
from litestar.response import Response

from compactor.ledger.records import Instant, PendingOrder
from compactor.tracker import EndedOrder
from compactor.tracker.asked_orders import Origin
from compactor.web.site import AnyRequest
from compactor.web.team_view import make_list_headers

JSON = "application/json"
JSON_LINES = "application/jsonl"
CSV = "text/csv"


def _write_instant(value: Any) -> str:
    if isinstance(value, Instant):
        return value.text
    raise NotImplementedError


_ENCODERS = {
    "text": msgspec.json.Encoder(enc_hook=_write_instant),
    "json": msgspec.json.Encoder(enc_hook=_write_instant, decimal_format="number"),
}


def is_unchanged(request: AnyRequest, etag: str) -> bool:
    """Whether the client has the answer with this ETag already."""
    return names_etag(request.headers.get("if-none-match"), etag)


def names_etag(known: str | None, etag: str) -> bool:
    """Whether an If-None-Match names an ETag."""
    if known is None:
        return False
    return known.strip() == "*" or etag in (one.strip().removeprefix("W/") for one in known.split(","))


def reply(
    request: AnyRequest,
    known: dict[str, str],
    data: bytes,
    etag: str | None = None,
    *,
    media_type: str = JSON,
    status: int = 200,
) -> Response[Any]:
    """A body that is encoded already, with how fresh it is (`known`); 304 where the client has it.

    Invariant: `known` and `etag` are no newer than what the body was made of, or a client that goes on from there
    would miss something. So they are made before anything is waited for.
    """
    headers = dict(known)
    if etag is not None:
        headers |= make_list_headers(etag)
        if is_unchanged(request, etag):
            return Response(content=b"", status_code=304, headers=headers, media_type=media_type)
    return Response(content=data, status_code=status, headers=headers, media_type=media_type)


def answer_unchanged(request: AnyRequest, data: bytes, media_type: str) -> Response[Any]:
    """A body that is of no one team, with an ETag of its bytes; 304 where the client has it."""
    etag = f'"{blake2b(data, digest_size=12).hexdigest()}"'
    headers = make_list_headers(etag)
    if is_unchanged(request, etag):
        return Response(content=b"", status_code=304, headers=headers, media_type=media_type)
    return Response(content=data, headers=headers, media_type=media_type)


def encode_order(order: PendingOrder | EndedOrder, origin: Origin | None, numbers: str) -> bytes:
    """An order with `origin` and `open`, and without what is absent."""
    known = {**msgspec.structs.asdict(order), "origin": origin}
    found = {name: value for name, value in known.items() if value is not None}
    found["open"] = not isinstance(order, EndedOrder)
    return _ENCODERS[numbers].encode(found)
