"""`POST /sandbox/reset`: the village as it was first, ids and tokens the same.

Knows: who may ask for it. The sandbox listens on loopback only, but a page of anybody, open in a browser of this machine, could
send a form to it; browsers say where one comes from (https://fetch.spec.whatwg.org/#origin-header), and by which name they
reached this server. Must not know: how it is brought back.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from gateway.sandbox.stage import Stage
from gateway.settings import Settings


def reset_page(settings: Settings, stage: Stage) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint: back to the start page for who asks from it, a line of text for others."""

    async def reset(request: Request) -> Response:
        if not _is_own(settings, request):
            return PlainTextResponse("This is asked for from the sandbox's own page, or without a browser.\n", 403)
        seconds = await stage.reset()
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(f"/?reset={seconds:.1f}", 303, {"Cache-Control": "no-store"})
        return PlainTextResponse(f"The village is as it was first ({seconds:.1f} s).\n", headers={"Cache-Control": "no-store"})

    return reset


def _is_own(settings: Settings, request: Request) -> bool:
    """Whether no other page asks: none of another origin, and none that calls this machine by a name of its own."""
    site = urlsplit(settings.site)
    names = {site.netloc, f"localhost:{site.port}"}
    origin = request.headers.get("origin")
    return (
        request.headers.get("host", "") in names
        and (origin is None or urlsplit(origin).netloc in names)
        and request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    )
