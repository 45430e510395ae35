"""Bundles: the rules of an incoming batch or transaction, and the building of every Bundle we answer with.

Knows: https://hl7.org/fhir/R4/bundle.html. Must not know: how an entry is carried out.
Answers are joined from resources that are already JSON: nothing stored is decoded to be sent.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from gateway.fhir.codec import Codec
from gateway.problem import Problem

_encode = msgspec.json.Encoder().encode

Piece = tuple[str, str, bytes]  # type, id and JSON of a resource


def read_bundle(codec: Codec, body: bytes, *, calm: bool, most_entries: int) -> Any:
    """A batch or transaction Bundle whose envelope keeps bdl-1…8; its resources stay undecoded bytes.

    Raises Problem naming the entry.
    """
    try:
        bundle = codec.decode("Bundle", body, calm=calm)
    except Problem:
        if codec.peek_type(body) != "Bundle":
            raise Problem("invalid", "a Bundle is expected here", "Bundle") from None
        raise
    if bundle.type not in ("batch", "transaction"):
        raise Problem("value", "the gateway accepts Bundles of type batch or transaction here", "Bundle.type")
    require_few(bundle, most_entries)
    for problem in envelope_problems(bundle):
        raise problem
    return bundle


def require_few(bundle: Any, most_entries: int) -> None:
    """Refuse a Bundle that is too long to be looked at."""
    if len(bundle.entry or ()) > most_entries:
        raise Problem("too-costly", f"a Bundle holds at most {most_entries} entries here", "Bundle.entry", status=413)


def envelope_problems(bundle: Any) -> Iterator[Problem]:
    """Where a batch or transaction does not keep bdl-1…8, in its order: one problem at most for each entry."""
    if bundle.total is not None:
        yield Problem("invariant", "bdl-1: total belongs to searches and histories", "Bundle.total")
    seen: set[str] = set()
    for n, entry in enumerate(bundle.entry or ()):
        problem = _entry_problem(entry, f"Bundle.entry[{n}]")
        if problem is None and entry.fullUrl is not None:
            if entry.fullUrl in seen:
                problem = Problem("invariant", "bdl-7: a fullUrl stands only once in a Bundle", f"Bundle.entry[{n}].fullUrl")
            seen.add(entry.fullUrl)
        if problem is not None:
            yield problem


def _entry_problem(entry: Any, place: str) -> Problem | None:
    if entry.search is not None:
        return Problem("invariant", "bdl-2: entry.search belongs to searches", f"{place}.search")
    if entry.request is None:
        return Problem("invariant", "bdl-3: every entry of a batch or transaction has a request", f"{place}.request")
    if entry.response is not None:
        return Problem("invariant", "bdl-4: entry.response belongs to answers", f"{place}.response")
    for name in ("method", "url"):
        if getattr(entry.request, name) is None:
            return Problem("required", "this element is required", f"{place}.request.{name}")
    if entry.fullUrl is not None and "/_history/" in entry.fullUrl:
        return Problem("invariant", "bdl-8: a fullUrl names no version", f"{place}.fullUrl")
    return None


class _Typed(msgspec.Struct):
    type: str | None = None


def read_type(body: bytes | msgspec.Raw) -> str | None:
    """The type that a Bundle says it is of, None where it says none."""
    try:
        return msgspec.json.decode(body, type=_Typed).type
    except msgspec.MsgspecError:
        return None


def require_document(codec: Codec, bundle: Any) -> None:
    """Refuse a Bundle of type document that is none: bdl-9 to bdl-11 (https://hl7.org/fhir/R4/bundle.html#invs)."""
    identifier = bundle.identifier
    if identifier is None or not identifier.system or not identifier.value:
        raise Problem("invariant", "bdl-9: a document has an identifier with a system and a value", "Bundle.identifier")
    if bundle.timestamp is None:
        raise Problem("invariant", "bdl-10: a document has a timestamp", "Bundle.timestamp")
    first = bundle.entry[0].resource if bundle.entry else None
    if first is None or codec.peek_type(first) != "Composition":
        raise Problem("invariant", "bdl-11: a document begins with its Composition", "Bundle.entry")


def build_searchset(
    base: str,
    matches: Iterable[Piece],
    links: Iterable[tuple[str, str]],
    *,
    total: int | None,
    included: Iterable[Piece] = (),
    updated: str | None = None,
    outcome: Mapping[str, Any] | None = None,
) -> bytes:
    """A searchset. `base`: URL of the service; `links`: relation and URL; `total`: of the matches; `updated`: up to when it
    tells everything; `outcome`: what is to be told beside it.
    """
    parts = [b'{"resourceType":"Bundle"']
    if updated is not None:
        parts.append(b',"meta":{"lastUpdated":"%b"}' % updated.encode())
    parts.append(b',"type":"searchset"')
    if total is not None:
        parts.append(b',"total":%d' % total)
    parts.append(b',"link":' + _encode([{"relation": relation, "url": url} for relation, url in links]))
    start = b'{"fullUrl":' + _encode(base + "/")[:-1]  # types and ids need no escaping: they go on inside the quotes
    found = [b'%b%b/%b","resource":%b,"search":{"mode":"match"}}' % (start, *_written(piece)) for piece in matches]
    found += [b'%b%b/%b","resource":%b,"search":{"mode":"include"}}' % (start, *_written(piece)) for piece in included]
    if outcome is not None:
        found.append(b'{"resource":%b,"search":{"mode":"outcome"}}' % _encode(outcome))
    if found:
        parts += [b',"entry":[', b",".join(found), b"]"]
    parts.append(b"}")
    return b"".join(parts)


def _written(piece: Piece) -> tuple[bytes, bytes, bytes]:
    return piece[0].encode(), piece[1].encode(), piece[2]


def build_bundle(kind: str, entries: list[dict[str, Any]], **elements: Any) -> bytes:
    """A Bundle of another kind (history, batch-response, transaction-response); resources are given as `msgspec.Raw`."""
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": kind, **elements}
    if entries:
        bundle["entry"] = entries
    return _encode(bundle)
