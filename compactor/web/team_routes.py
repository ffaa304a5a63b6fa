"""The routes of a team's status and events, of the key of a request, and of all teams."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter
from litestar.response import Response

from compactor.web.api_answers import KeyAnswer, TeamList, TeamRow, TeamStatus, encode, refusals
from compactor.web.event_answer import EventAnswer
from compactor.web.event_streams import StreamStart
from compactor.web.replies import CSV, JSON, JSON_LINES, answer_unchanged, reply
from compactor.web.row_formats import write_csv, write_json_lines
from compactor.web.site import AnyRequest, find_access, find_site, require_admin

_EVENTS = ResponseSpec(
    None,
    description=(
        "An endless stream of events `order`, `trade` and `finding`, whose data is the row and whose id is the log "
        "offset, with the mark of the log there as `mark`; `status` when something changes that is no event; `reset` "
        "when everything is to be read again, because the log is another one; and `end` with a reason."
    ),
    media_type="text/event-stream",
    generate_examples=False,
)
LastEventId = Annotated[
    str | None,
    Parameter(
        header="Last-Event-ID",
        description="Go on after this event, `ID` or `ID-MARK`; wins over `after`. Empty: none.",
        pattern=r"^([0-9]{1,40}(-[0-9a-f]{8})?)?$",
    ),
]
After = Annotated[int | None, Parameter(description="Begin after this log offset; default: now.", ge=0)]


@get("/status", summary="How current a team's data is", responses=refusals(404))
async def get_status(request: AnyRequest, team: str) -> Response[TeamStatus]:
    """The offset of the log, the last event, the last reconcile, the stream, and every reason why the data may be
    old."""
    site = find_site(request)
    view = site.view(team)
    return reply(request, view.make_headers(), encode(view.describe(site.canceler.trading)))


@get(
    "/events",
    summary="What changes, as it changes",
    responses={200: _EVENTS, **refusals(404)},
    media_type="text/event-stream",
)
async def get_events(
    request: AnyRequest, team: str, after: After = None, last_event_id: LastEventId = None
) -> Response[str]:
    """Server-sent events without a gap and without a repeat, across reconnects and restarts: begin at the
    `X-Log-Offset` of any other answer with `after`, and go on with `Last-Event-ID`, as browsers do by themselves."""
    site, access = find_site(request), find_access(request)
    offset = site.view(team).offset
    start = None
    if last_event_id:
        at, _, mark = last_event_id.partition("-")
        start = StreamStart(int(at), mark)
    elif after is not None:
        if after > offset:
            raise HTTPException(
                status_code=400, detail=f"after: expected an offset up to {offset}, the end of this log"
            )
        start = StreamStart(after)
    site.reserve_stream(access)
    return EventAnswer(  # type: ignore[return-value]
        site.streams(team), start, access, site.traffic, lambda: site.release_stream(access)
    )


@get("/api/v1/teams", summary="All teams", responses=refusals(), guards=[require_admin])
async def list_teams(request: AnyRequest) -> Response[TeamList]:
    """For the key of an administrator."""
    return answer_unchanged(request, encode(TeamList(_list_rows(request))), JSON)


@get("/api/v1/teams.csv", summary="All teams as CSV", responses=refusals(), guards=[require_admin], media_type=CSV)
async def list_teams_csv(request: AnyRequest) -> Response[str]:
    """For the key of an administrator."""
    rows = [encode(row) for row in _list_rows(request)]
    return answer_unchanged(request, write_csv(rows, TeamRow.__struct_fields__), CSV)


@get(
    "/api/v1/teams.jsonl", summary="All teams as JSON lines", responses=refusals(), guards=[require_admin],
    media_type=JSON_LINES,
)  # fmt: skip
async def list_teams_jsonl(request: AnyRequest) -> Response[str]:
    """For the key of an administrator; one team a line."""
    rows = [encode(row) for row in _list_rows(request)]
    return answer_unchanged(request, write_json_lines(rows, bytes.rstrip), JSON_LINES)


def _list_rows(request: AnyRequest) -> list[TeamRow]:
    site = find_site(request)
    return [site.view(team).describe_in_row() for team in site.tracker.teams()]


@get("/api/v1/key", summary="What this key opens", responses=refusals())
async def get_key(request: AnyRequest) -> Response[KeyAnswer]:
    """The team, whether it is an administrator's, and whether it may only read."""
    access = find_access(request)
    answer = KeyAnswer(access.key_id, access.team_id, access.is_admin, access.read_only)
    return Response(content=encode(answer), media_type="application/json")  # type: ignore[arg-type]
