"""How a request for authorization gets here: with the person's browser, or pushed by its client beforehand (RFC 9126).

Knows: that a pushed request is good once, for a minute, for the client that pushed it, and that nothing else that comes with
the browser then counts. Must not know: HTTP, pages, what makes a request sound.
"""

import secrets
from collections.abc import Sequence
from datetime import timedelta

from gateway.exchange.authorization import check_request
from gateway.exchange.catalogue import Entry
from gateway.exchange.gateway import Gateway
from gateway.problem import Problem
from gateway.store.approvals import put_authorization, take_pushed
from gateway.store.mongo import Document

TO_DECIDE = timedelta(minutes=15)
LASTS = timedelta(seconds=60)
_URN = "urn:ietf:params:oauth:request_uri:"  # https://www.rfc-editor.org/rfc/rfc9126#section-2.2
_LONGEST = 128


async def push(gateway: Gateway, entry: Entry, pairs: Sequence[tuple[str, str]]) -> str:
    """Check a request and keep it until the person comes; returns its `request_uri`. Raises Refusal, or Problem."""
    asked = [("client_id", entry.client.client), *((name, value) for name, value in pairs if name != "client_id")]
    fields = await check_request(gateway, asked, pushed=True)
    secret = secrets.token_urlsafe(32)
    await put_authorization(gateway.mongo, _name(secret), {**fields, "expires": gateway.clock() + LASTS})
    return _URN + secret


async def begin_authorization(gateway: Gateway, pairs: Sequence[tuple[str, str]]) -> str:
    """Keep the request that a browser brings or names; returns its handle.

    Raises Refusal, or Problem where there is nowhere to send it.
    """
    uris = [value for name, value in pairs if name == "request_uri"]
    if uris and uris[0].startswith(_URN):
        fields = await _take(gateway, uris, [value for name, value in pairs if name == "client_id"])
    else:
        fields = await check_request(gateway, pairs, pushed=False)
    handle = secrets.token_urlsafe(32)
    await put_authorization(gateway.mongo, handle, {**fields, "expires": gateway.clock() + TO_DECIDE})
    return handle


async def _take(gateway: Gateway, uris: Sequence[str], clients: Sequence[str]) -> Document:
    """What was pushed under this name by this client, once."""
    if len(uris) == len(clients) == 1 and len(uris[0]) <= _LONGEST:
        found = await take_pushed(gateway.mongo, _name(uris[0].removeprefix(_URN)), clients[0], gateway.clock())
        if found is not None:
            return {name: value for name, value in found.items() if name != "_id"}
    # Whose address it would be sent to, nobody knows.
    raise Problem("invalid", "the request_uri is not one of this client's, or was used, or is over", status=400)


def _name(secret: str) -> str:
    """What a pushed request is stored by: never what one that is being decided on is."""
    return f"pushed {secret}"
