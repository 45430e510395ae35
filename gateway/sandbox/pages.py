"""What makes the pages of the sandbox worth opening: an app that asks for access, and its own page.

Knows: the password of all accounts; how the app asks (RFC 6749 §4.1, RFC 7636).
Must not know: MongoDB; what the pages of the gateway look like.
"""

import base64
import json
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.exchange.catalogue import Entry, find_entry
from gateway.exchange.gateway import Gateway
from gateway.exchange.redemption import InvalidGrant, redeem_code
from gateway.oauth.core import Asked
from gateway.oauth.visit import Server
from gateway.settings import Settings

PASSWORD = "sandbox-sandbox"  # noqa: S105 (no secret: everybody may know the sandbox)
APP = "glucoapp"
CALLBACK = "/sandbox/glucoapp"
_VERIFIER = "the-app-of-the-sandbox-keeps-no-secret-from-anybody"
_SCOPE = "launch/patient openid fhirUser offline_access patient/Patient.r patient/Observation.crs patient/Device.crs"


def app_link(settings: Settings) -> str:
    """Where the app sends people to decide about it."""
    challenge = base64.urlsafe_b64encode(sha256(_VERIFIER.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": APP,
        "redirect_uri": settings.site + CALLBACK,
        "scope": _SCOPE,
        "state": "sandbox",
        "aud": settings.base_url,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return f"{settings.site}/oauth/authorize?{urlencode(asked)}"


async def app_page(request: Request) -> Response:
    """The page of the app to which people come back: what it was told, the tokens it gets, and what can be done with them."""
    gateway: Gateway = request.app.state.gateway
    told = dict(request.query_params)
    lines = [f"GlucoApp was told: {json.dumps(told)}", ""]
    entry = await find_entry(gateway, APP)
    if entry is not None and "code" in told:
        try:
            issued = await redeem_code(gateway, entry, told["code"], partial(_is_answer, request, entry))
        except InvalidGrant:
            lines.append("The code is good for nothing any more: a code is good once, and for a minute.")
        else:
            lines += [
                f"It was granted: {issued.scope}",
                "",
                f"curl '{gateway.settings.base_url}/Observation?patient={issued.approval['patient']}&_sort=-date&_count=2' \\",
                f"  -H 'Authorization: Bearer {issued.access_token}'",
                "",
            ]
            if issued.refresh_token is not None:
                asked = f"-d grant_type=refresh_token -d client_id={APP} -d 'refresh_token={issued.refresh_token}'"
                site = gateway.settings.site
                lines += [
                    "The next token (examined by the conformance kit, ask at its port):",
                    "",
                    f"curl '{site}/oauth/token' {asked}",
                    "",
                ]
            lines.append(f"Taking it back: {gateway.settings.site}/me")
    return PlainTextResponse("\n".join(lines) + "\n")


def _is_answer(request: Request, entry: Entry, code: Mapping[str, Any]) -> bool:
    """Whether this is the app that the code was given to: it brings what it began with."""
    gateway: Gateway = request.app.state.gateway
    form = {
        "grant_type": "authorization_code",
        "code": request.query_params["code"],
        "redirect_uri": gateway.settings.site + CALLBACK,
        "code_verifier": _VERIFIER,
    }
    asked = Asked(form, entry, entry.client.authentication, "", gateway.clock(), code=code)
    server: Server = request.app.state.oauth
    return server.core.is_answer(asked)
