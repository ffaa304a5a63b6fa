"""The files of the page, read once when the server starts, compressed once, and served with an ETag.

Note: what can be asked for is what the directory held then; no path of a request is ever opened.
"""

from __future__ import annotations

import gzip
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable

from litestar import get
from litestar.exceptions import NotFoundException
from litestar.response import Response
from msgspec import Struct

from compactor.web.replies import is_unchanged
from compactor.web.site import AnyRequest

_TYPES = {
    "html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain",
}  # fmt: skip
"""Those of texts get their `charset=utf-8` from the framework."""
INDEX = "index.html"
REFERENCE = "reference.html"


class PageFile(Struct, frozen=True):
    """One file, as it is and compressed."""

    data: bytes
    packed: bytes
    etag: str
    media_type: str


def read_page_files(*, has_keys: bool = True) -> dict[str, PageFile]:
    """The files by their paths below `page/`."""
    found = dict(_read_below(files("compactor.web") / "page", ""))
    if not has_keys:
        found[INDEX] = _pack(found[INDEX].data.replace(b"<html", b'<html data-open="true"', 1), found[INDEX].media_type)
    return found


def _pack(data: bytes, media_type: str) -> PageFile:
    etag = f'"{blake2b(data, digest_size=12).hexdigest()}"'
    return PageFile(data, gzip.compress(data, 9, mtime=0), etag, media_type)


def _read_below(directory: Traversable, prefix: str) -> list[tuple[str, PageFile]]:
    found: list[tuple[str, PageFile]] = []
    for one in directory.iterdir():
        if one.is_dir():
            found += _read_below(one, f"{prefix}{one.name}/")
        elif (media_type := _TYPES.get(one.name.rpartition(".")[2])) is not None:
            found.append((prefix + one.name, _pack(one.read_bytes(), media_type)))
    return found


@get("/", include_in_schema=False)
async def get_index(request: AnyRequest) -> Response[bytes]:
    """The page. Where nobody needs a key it says so, and does not ask for one."""
    return _send(request, INDEX)


@get("/api", include_in_schema=False)
async def get_reference(request: AnyRequest) -> Response[bytes]:
    """The reference of the API for people, made in the browser from its OpenAPI document."""
    return _send(request, REFERENCE)


@get("/page/{path:path}", include_in_schema=False)
async def get_page_file(request: AnyRequest, path: str) -> Response[bytes]:
    """A file of the page."""
    return _send(request, path.removeprefix("/"))


def _send(request: AnyRequest, name: str) -> Response[bytes]:
    known: dict[str, PageFile] = request.app.state.page_files
    file = known.get(name)
    if file is None:
        raise NotFoundException(detail="there is no such file")
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if is_unchanged(request, file.etag):
        return Response(content=b"", status_code=304, headers=headers, media_type=file.media_type)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(
            content=file.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=file.media_type
        )
    return Response(content=file.data, headers=headers, media_type=file.media_type)
