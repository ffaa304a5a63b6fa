"""The routes for machines that watch this one: `/livez`, `/readyz` and `/metrics`."""

from __future__ import annotations

from litestar import get
from litestar.response import Response

from compactor.daemon.readiness import Check, HealthAnswer
from compactor.web.api_answers import encode
from compactor.web.health_link import Question
from compactor.web.site import AnyRequest, Site, find_site, require_monitor


@get("/livez", include_in_schema=False)
async def get_livez(request: AnyRequest) -> Response[bytes]:
    """200 while the daemon's loop turns; without a daemon, while this answers."""
    status, body = await _ask(find_site(request), Question("livez"))
    return Response(content=body, status_code=status, media_type="application/json")


@get("/readyz", include_in_schema=False, guards=[require_monitor])
async def get_readyz(request: AnyRequest) -> Response[bytes]:
    """200 when everything is current, else 503 with each check and its reason."""
    status, body = await _ask(find_site(request), Question("readyz"))
    return Response(content=body, status_code=status, media_type="application/json")


@get("/metrics", include_in_schema=False, guards=[require_monitor])
async def get_metrics(request: AnyRequest) -> Response[bytes]:
    """The metrics of the daemon and of this server; `name[]` chooses some of the daemon's."""
    site, names = find_site(request), request.query_params.getall("name[]", [])
    body = b"" if names else site.traffic.render()
    if site.health is not None:
        status, text = await site.health.ask(Question("metrics", names))
        body = text + body if status == 200 else body
    return Response(content=body, media_type="text/plain; version=0.0.4")


async def _ask(site: Site, question: Question) -> tuple[int, bytes]:
    if site.health is not None:
        return await site.health.ask(question)
    checks = [Check("loop", True)]
    if question.about == "readyz":
        problems = {team: site.view(team).status.problem for team in site.tracker.teams()}
        checks += [Check(f"ledger {team}", reason is None, reason) for team, reason in problems.items()]
    is_ok = all(check.ok for check in checks)
    return (200 if is_ok else 503), encode(HealthAnswer(is_ok, checks)) + b"\n"
