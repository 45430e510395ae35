"""Content by itself, as bytes: how it is sent, and how it is given out (https://hl7.org/fhir/R4/binary.html#rest).

Knows: content negotiation, `Range` (https://www.rfc-editor.org/rfc/rfc9110#section-14), and headers that keep browsers from
running what they are given. Must not know: who may read it, how it is kept.
"""

import re
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Scope

from gateway.api.formats import JSON, XML, read_media_ranges, read_media_type, read_quality
from gateway.api.long_binary import LongBinary
from gateway.api.negotiate import choose_format, query_pairs, require_no_query
from gateway.api.once import KEY_HEADER
from gateway.api.respond import MEDIA_TYPE, respond
from gateway.api.visit import about_resource, call_of, gateway_of, visitor
from gateway.exchange.call import Answer
from gateway.exchange.contents import CHUNK, Content
from gateway.exchange.parameters import PRESENTATION
from gateway.exchange.perform import perform
from gateway.exchange.read import embedded_in, whole_of, with_data
from gateway.fhir.cda import Embedded
from gateway.fhir.media import plain_type
from gateway.fhir.registry import Registry
from gateway.problem import Problem
from gateway.store.standing import About

Form = Literal["raw", "json", "xml"]

# What names FHIR and nothing else: a document can be of the type application/xml itself.
_FHIR: Mapping[str, Form] = {
    **dict.fromkeys((JSON, "application/json", "text/json", "json"), "json"),
    **dict.fromkeys((XML, "xml"), "xml"),
}
_SHORT = 2 * CHUNK  # bytes; what is no longer goes out in one piece
_BEFORE, _BEHIND = b',"data":"', b'"}'
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_OWNER = re.compile(r"Patient/([A-Za-z0-9.-]{1,64})")


def is_fhir(content_type: str) -> bool:
    """Whether a body of this type is a resource, and not content itself."""
    return read_media_type(content_type)[0] in _FHIR


def is_transfer(registry: Registry, body_bytes: int, scope: Scope) -> bool:
    """Whether a request sends content as such, or asks for it or for a series: that may take long, and be long."""
    operation = registry.operations.get(scope["path"].rpartition("/$")[2])
    if operation is not None and operation.gives:
        return scope["method"] in ("GET", "HEAD")
    kind = (
        registry.find(scope["path"].removeprefix("/fhir/").partition("/")[0]) if scope["path"].startswith("/fhir/B") else None
    )
    if kind is None or not kind.is_raw:
        return False
    headers = dict(scope["headers"])
    sent = headers.get(b"content-type", b"").decode("latin-1")
    is_post = scope["method"] == "POST"
    return scope["method"] in ("GET", "HEAD") or (is_post and (not is_fhir(sent) or is_long(sent, headers, body_bytes)))


def is_long(content_type: str, headers: Mapping[bytes, bytes], body_bytes: int) -> bool:
    """Whether a body is a Binary in JSON that is longer than what is taken into memory."""
    length = headers.get(b"content-length", b"")
    return _FHIR.get(read_media_type(content_type)[0]) == "json" and length.isdigit() and int(length[:18]) > body_bytes


async def deposit(request: Request) -> Response:
    """Take the bytes of a body as content. `X-Security-Context`: whose; without it the patient of the token is meant."""
    gateway = gateway_of(request)
    require_no_query(request)
    media = request.headers.get("content-type", "")
    if gateway.media_types.find(media) is None:
        raise Problem("not-supported", gateway.media_types.not_taken, "Content-Type", status=415)
    patient = _owner_of(request, request.headers.get("x-security-context"), "X-Security-Context")
    return await _deposit(request, patient, media=media, upload=request.stream())


async def deposit_long(request: Request) -> Response:
    """Take a Binary in JSON whose data is too long to be held. Its type, and whose it is, stand before its data."""
    gateway = gateway_of(request)
    require_no_query(request)
    binary = LongBinary(aiter(request.stream()))
    said = await binary.begin()
    media, context = said.get("contentType"), said.get("securityContext")
    if not isinstance(media, str) or gateway.media_types.find(media) is None:
        text = gateway.media_types.not_taken if media else "it is to stand before data of this length"
        raise Problem("value" if media else "required", text, "Binary.contentType")
    reference = context.get("reference") if isinstance(context, dict) else context
    expression = "Binary.securityContext.reference"
    patient = _owner_of(request, str(reference), expression) if context is not None else None

    def described() -> bytes:
        whole = binary.said()
        if whole.get("securityContext") != context:
            raise Problem("value", "it is to stand before data of this length", "Binary.securityContext")
        body = msgspec.json.encode(whole)
        gateway.codec.check_body(body)
        return body

    return await _deposit(request, patient, media=media, upload=binary.data(), described=described)


def _owner_of(request: Request, named: str | None, expression: str) -> str | None:
    base_url = gateway_of(request).settings.base_url
    owner = None if named is None else _OWNER.fullmatch(named.removeprefix(f"{base_url}/"))
    if named is not None and owner is None:
        raise Problem("value", "it is 'Patient/id' here", expression)
    return owner[1] if owner else None


async def _deposit(request: Request, patient: str | None, **sent: Any) -> Response:
    gateway = gateway_of(request)
    for header in (KEY_HEADER, "If-None-Exist"):
        if header in request.headers:
            text = "content is known by its bytes: it can be sent again as it is"
            raise Problem("not-supported", text, header, status=400)
    access = await visitor(request, About(patient=patient))
    call = msgspec.structs.replace(call_of(request, "create"), owner=patient, **sent)
    answer = await perform(gateway, access, call)
    return respond(gateway.settings.base_url, answer, call.prefer)


async def fetch(request: Request, interaction: str) -> Response:
    """Content as it was deposited or, where that is asked for, as a resource."""
    gateway = gateway_of(request)
    parameters = query_pairs(request)
    if any(name not in PRESENTATION for name, _ in parameters):
        # A part of the resource: then it is the resource that is wanted.
        access = await visitor(request, about_resource(request))
        answer = await perform(gateway, access, call_of(request, interaction, parameters=parameters))
        return respond(gateway.settings.base_url, answer)
    # (Whether there is a form that is wanted depends on what it is; refusals are in one of ours.)
    access = await visitor(request, about_resource(request), (("_format", choose_format(request) or "json"),))
    call = msgspec.structs.replace(call_of(request, interaction), streams=True)
    answer = await perform(gateway, access, call)
    if answer.content is None:
        return respond(gateway.settings.base_url, answer)
    return await _respond_content(request, answer, answer.content)


async def _respond_content(request: Request, answer: Answer, content: Content) -> Response:
    form, others = _choose(request, content.media)
    kind = gateway_of(request).media_types.find(content.media)
    if others and kind is not None and kind.is_xml:
        found = await embedded_in(gateway_of(request), content, others)
        if found is not None:
            return _respond_embedded(request, answer, found)
    if form is None:
        raise Problem("not-supported", f"this is {plain_type(content.media)}, or {JSON} or {XML}", status=406)
    base = respond("", msgspec.structs.replace(answer, body=None, status=200)).headers
    headers = {name: base[name] for name in ("etag", "last-modified") if name in base}
    headers |= {"vary": "Accept", "content-security-policy": "sandbox"}
    if form == "xml":
        request.state.format = "xml"
        body = with_data(answer.body or b"", await whole_of(gateway_of(request), content))
        return Response(body, 200, headers, MEDIA_TYPE)
    if form == "json":
        before = (answer.body or b"")[:-1] + _BEFORE
        size = len(before) + 4 * ((content.size + 2) // 3) + len(_BEHIND)
        headers |= {"content-type": MEDIA_TYPE, "content-length": str(size)}
        return await _stream(request, 200, headers, _as_json(before, content.read()))
    name = f"{answer.id}.{kind.ending}" if kind is not None else str(answer.id)
    headers |= {
        "etag": (answer.etag or "").removeprefix("W/"),  # of these bytes, and of no other form
        "content-type": content.media,
        "content-disposition": f'attachment; filename="{name}"',
        "accept-ranges": "bytes",
    }
    first, end, status = _range(request, headers, content.size)
    if status == 206:
        headers["content-range"] = f"bytes {first}-{end - 1}/{content.size}"
    return await _stream(request, status, headers | {"content-length": str(end - first)}, content.read(first, end))


def _respond_embedded(request: Request, answer: Answer, found: Embedded) -> Response:
    """The file that is wrapped in a document. (What it is was looked at, like what is deposited as such.)"""
    kind = gateway_of(request).media_types.require(found.media, found.plain, "Accept")
    headers = {
        "content-type": kind.name,
        "content-length": str(len(found.plain)),
        "content-disposition": f'attachment; filename="{answer.id}.{kind.ending}"',
        "content-security-policy": "sandbox",
        "vary": "Accept",
    }
    return Response(found.plain if request.method != "HEAD" else None, 200, headers)


async def _stream(request: Request, status: int, headers: Mapping[str, str], pieces: AsyncIterator[bytes]) -> Response:
    """The answer, begun only when its first piece has been found sound; of one piece, it needs no stream."""
    if request.method == "HEAD":
        return Response(status_code=status, headers=dict(headers))
    if int(headers["content-length"]) <= _SHORT:
        return Response(b"".join([piece async for piece in pieces]), status, dict(headers))
    first = await anext(pieces, b"")

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(all_pieces(), status, dict(headers))


def _range(request: Request, headers: Mapping[str, str], size: int) -> tuple[int, int, int]:
    """From where to before where is asked for, and the status of that. Several ranges, and unknown units, are ignored."""
    asked = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    condition = request.headers.get("if-range")
    if asked is None or asked[0].endswith("=-") or (condition is not None and condition not in _validators(headers)):
        return 0, size, 200
    first, last = asked[1], asked[2]
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < begin:
            return 0, size, 200  # no range at all
    if begin >= size or begin >= end:
        headers_of_it = {"Content-Range": f"bytes */{size}"}
        raise Problem("value", "the content is shorter than that", "Range", status=416, headers=headers_of_it)
    return begin, end, 206


def _validators(headers: Mapping[str, str]) -> Iterator[str]:
    yield from (headers[name] for name in ("etag", "last-modified") if name in headers)


def _choose(request: Request, media: str) -> tuple[Form | None, list[str]]:
    """In which form content of this type is wanted, as such rather than as a resource; None where in none that there is.

    And the other media types that are named and not wanted less than that.
    """
    own = plain_type(media)
    asked = [value.replace(" ", "+") for name, value in query_pairs(request) if name == "_format"]
    ranges = read_media_ranges(",".join(asked or request.headers.getlist("accept")))
    if not ranges:
        return "raw", []
    closeness = {own: 3, f"{own.partition('/')[0]}/*": 2, "*/*": 1}
    wanted: dict[Form, tuple[int, float]] = {}
    others: dict[str, float] = {}
    for name, parameters in ranges:
        quality = read_quality(parameters)
        form: Form = "raw" if name in closeness else _FHIR.get(name, "raw")
        close = closeness.get(name, 0 if form == "raw" else 3)
        if close == 0 and "*" not in name:
            others[name] = quality
        if close > wanted.get(form, (0, 0.0))[0]:
            wanted[form] = (close, quality)
    best = max((quality for _, quality in wanted.values()), default=0.0)
    forms: tuple[Form, ...] = ("raw", "json", "xml")
    chosen = next((form for form in forms if best > 0 and wanted.get(form, (0, 0.0))[1] == best), None)
    return chosen, sorted((name for name, q in others.items() if q >= max(best, 0.001)), key=lambda name: -others[name])


async def _as_json(before: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield before
    async for piece in pieces:
        yield b64encode(piece)
    yield _BEHIND
