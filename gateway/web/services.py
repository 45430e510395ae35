"""The page that lists the apps and services of the catalogue: for everybody, without logging in.

Knows: what stands on it. Must not know: how an entry comes to be referenced.
"""

from starlette.responses import Response

from gateway.exchange.catalogue import REFERENCED, list_entries
from gateway.exchange.client import Client
from gateway.web.visit import Visit


async def services(visit: Visit) -> Response:
    """GET /services: who may ask people, for what, and what they may ever see or add."""
    entries = await list_entries(visit.gateway, REFERENCED)
    clients = sorted(
        (entry.client for entry in entries if entry.is_referenced and is_listed(entry.client)),
        key=lambda client: client.name.casefold(),
    )
    return visit.page("services.html", clients=[(client, client.purpose_in(visit.language)) for client in clients])


def is_listed(client: Client) -> bool:
    """Whether it is one that asks people. Professionals and establishments have their own rules, and feeds no patients."""
    return bool(client.grants) and client.kind in ("app", "service", "portal")
