"""What every FHIR endpoint does first: find the wired system, check what the request says about itself, see who calls.

Knows: the order of these checks. Must not know: single interactions.
"""

from typing import Any

from starlette.requests import Request

from gateway.access.access import Access
from gateway.api.negotiate import (
    bearer_token,
    origin_of,
    query_pairs,
    read_headers,
    read_preferences,
    require_answer_format,
    require_no_query,
)
from gateway.exchange.call import Call, Format, PatchLanguage
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import PRESENTATION, Pairs
from gateway.exchange.search import record_named
from gateway.exchange.standing import authenticate
from gateway.store.ids import bucket_of
from gateway.store.standing import About


def gateway_of(request: Request) -> Gateway:
    """The wired system that `create_app` put into the application's state."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def about_resource(request: Request) -> About:
    """What a request with type and id in its path is about; nothing, where no such thing can be stored here."""
    type_name, identifier = request.path_params["type"], request.path_params["id"]
    served = gateway_of(request).registry.find(type_name) is not None
    return About(resource=(type_name, identifier)) if served and bucket_of(identifier) else About()


def target_of(request: Request) -> tuple[About, Pairs | None]:
    """What a write to an address is about, and the criteria in its query where the address is that of a type."""
    if "id" in request.path_params:
        require_no_query(request)
        return about_resource(request), None
    criteria = tuple(pair for pair in query_pairs(request) if pair[0] not in PRESENTATION)
    return About(patient=record_named(criteria)), criteria


async def visitor(request: Request, about: About, parameters: Pairs | None = None) -> Access:
    """The access of whoever sent this request. Raises Problem 406, 401 or 429.

    `parameters`: those of the request, where they are not all in its URL.
    """
    require_answer_format(request, parameters)
    gateway = gateway_of(request)
    access = await authenticate(gateway, bearer_token(request), about, request.scope["state"].get("certificate"))
    gateway.throttle.admit(access.caller, access.now)
    return access


def call_of(
    request: Request,
    interaction: str,
    *,
    body: bytes | None = None,
    sent: Format = "json",
    patch: PatchLanguage | None = None,
    criteria: Pairs | None = None,
    parameters: Pairs = (),
    raw: str | None = None,
    calm: bool | None = None,
    identity: Any = None,
) -> Call:
    """The call that this request makes. Raises Problem for JSON that is nested too deeply.

    `calm`, `identity`: what was said of this body, and read of it, already.
    """
    headers, path = read_headers(request), request.path_params
    prefer, is_lenient = read_preferences(request) if "prefer" in headers else (None, False)
    if calm is None:
        calm = body is not None and sent == "json" and gateway_of(request).codec.check_body(body)
    return Call(
        interaction=interaction,
        type=path.get("type", ""),
        origin=origin_of(request),
        id=path.get("id"),
        version=path.get("version"),
        criteria=criteria,
        parameters=parameters,
        body=body,
        sent=sent,
        calm=calm,
        patch=patch,
        if_match=headers.get("if-match"),
        if_none_match=headers.get("if-none-match"),
        if_modified_since=headers.get("if-modified-since"),
        if_none_exist=headers.get("if-none-exist"),
        prefer=prefer,
        lenient=is_lenient,
        raw=raw,
        identity=identity,
    )
