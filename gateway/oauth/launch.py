"""POST /oauth/launch: software in which somebody works starts an app about the patient they look at (SMART, EHR launch).

The context stays here; the app gets an opaque `launch` and asks for authorization with it, on which the same person decides.
"""

import re
import secrets
from datetime import timedelta
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.access.access import Access
from gateway.exchange.call import Call, Origin
from gateway.exchange.catalogue import find_entry
from gateway.exchange.perform import perform
from gateway.exchange.standing import authenticate, extend
from gateway.oauth.respond import OAuthError, respond_json
from gateway.oauth.visit import Server
from gateway.problem import Problem
from gateway.store.approvals import put_launch
from gateway.store.standing import About

LASTS = timedelta(minutes=5)
_MOST_BYTES, _MOST_RESOURCES = 8_192, 10
_TYPE = re.compile(r"[A-Z][A-Za-z]{2,63}")
_REFERENCE = re.compile(rf"({_TYPE.pattern})/([A-Za-z0-9.-]{{1,64}})")


Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class _Identifier(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    value: Text
    system: Text | None = None


class _Context(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Something else in view: a resource that is here or, by `type` and `identifier`, one that is kept elsewhere."""

    reference: Text | None = None
    type: Text | None = None
    identifier: _Identifier | None = None
    role: Text | None = None

    def named(self) -> tuple[str, str | None]:
        """Its type and, of a resource that is here, its id. Raises OAuthError."""
        found = _REFERENCE.fullmatch(self.reference or "")
        kind = found[1] if found is not None else self.type or ""
        is_one = (self.reference is None) != (self.identifier is None)
        if not is_one or not _TYPE.fullmatch(kind) or self.type not in (None, kind) or (self.reference and not found):
            text = "fhirContext names each resource by reference (Type/id), or by type and identifier"
            raise OAuthError("invalid_request", text)
        # https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html: those in view have parameters of their own
        if kind in ("Patient", "Encounter") and (self.role in (None, "launch") or (kind == "Patient" and found is None)):
            raise OAuthError("invalid_request", "fhirContext names a Patient (by reference) or an Encounter with another role")
        return kind, found[2] if found is not None else None


class _Launch(msgspec.Struct, forbid_unknown_fields=True):
    """What is launched: about whom, for which client (None: any), with which other resources in view."""

    patient: str
    client: str | None = None
    fhirContext: list[_Context] = []  # noqa: N815 (SMART's name)


async def launch(request: Request, server: Server) -> Response:
    """A launch for who may see the patient and all of the context; the answer for what they may not is that of a read."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    gateway, asked = server.gateway, await _read(request)
    bearer, certificate = token.strip() if scheme.lower() == "bearer" else None, request.scope["state"].get("certificate")
    access = await authenticate(gateway, bearer, About(patient=asked.patient), certificate)
    if access.caller.user is None:
        raise Problem("forbidden", "only somebody who has logged in launches an app")
    origin = Origin(request.state.request_id, request.client.host if request.client else None)
    await _require_seen(server, access, origin, "Patient", asked.patient)
    for resource in asked.fhirContext:
        type_name, identifier = resource.named()
        if identifier is not None:
            await _require_seen(server, access, origin, type_name, identifier)
    entry = await find_entry(gateway, asked.client) if asked.client is not None else None
    if asked.client is not None and (entry is None or not entry.is_referenced):
        raise OAuthError("invalid_request", "there is no such client, or it is not referenced")
    handle = secrets.token_urlsafe(32)
    context = [msgspec.to_builtins(resource) for resource in asked.fhirContext]
    fields: dict[str, Any] = {
        "user": access.caller.user,
        "patient": asked.patient,
        "context": context or None,
        "for": asked.client,
        "expires": gateway.clock() + LASTS,
    }
    await put_launch(gateway.mongo, handle, fields)
    return respond_json({"launch": handle, "iss": gateway.settings.base_url, "expires_in": int(LASTS.total_seconds())})


async def _read(request: Request) -> _Launch:
    body = await request.body()
    if len(body) > _MOST_BYTES:
        raise OAuthError("invalid_request", f"a launch has at most {_MOST_BYTES} bytes here", status=413)
    try:
        asked = msgspec.json.decode(body, type=_Launch)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise OAuthError("invalid_request", "a launch is JSON with patient, client and fhirContext") from None
    if len(asked.fhirContext) > _MOST_RESOURCES:
        raise OAuthError("invalid_request", f"a launch names at most {_MOST_RESOURCES} resources")
    return asked


async def _require_seen(server: Server, access: Access, origin: Origin, type_name: str, identifier: str) -> None:
    """Read it as this person, which leaves an event in the patient's log; whatever cannot be read ends the launch."""
    access = await extend(server.gateway, access, About(resource=(type_name, identifier)))
    await perform(server.gateway, access, Call("read", type_name, origin, id=identifier))
