"""$lastn: the newest observations of each code.

Knows: https://hl7.org/fhir/R4/observation-operation-lastn.html. Each code that is asked for is a group, and is read from the
index of a patient's codes by time: what it costs does not grow with the record. Must not know: HTTP, MongoDB.
"""

import asyncio

from gateway.access.access import Access
from gateway.exchange.audit import searched
from gateway.exchange.call import Answer, Call
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import Pairs, read_number
from gateway.exchange.read import Result
from gateway.exchange.search import read_clause
from gateway.fhir.bundle import Piece, build_searchset
from gateway.fhir.clause import Clause
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Document, Session
from gateway.store.order import Key, Order

_MOST_CODES = 20  # each costs a call
_NEWEST = Order((Key("date", descending=True),))


async def lastn(gateway: Gateway, access: Access, call: Call, session: Session = None) -> Result:
    """A searchset of what is newest of each code, newest first within one. Raises Problem naming a parameter."""
    kind, given = gateway.registry[call.type], dict(call.parameters)
    codes = list(dict.fromkeys(code for code in given.pop("code", "").split(",") if code))
    if not codes:
        raise Problem("required", "say of which codes: several are separated by commas", "code", status=400)
    most = _read_max(gateway, given.pop("max", "1"), len(codes))
    shared = of_somebody(access, tuple(given.items()))
    clauses: list[Clause] = []
    about: list[str] = []
    for code in codes:
        access, clause, about = await read_clause(gateway, access, kind, (*shared, ("code", code)))
        clauses.append(clause)

    async def newest(clause: Clause) -> list[Document]:
        seconds = gateway.limits.search_seconds
        return await store.find(
            access, gateway.mongo, kind, clause, _NEWEST, after=None, limit=most, seconds=seconds, session=session
        )

    groups = await asyncio.gather(*map(newest, clauses)) if session is None else [await newest(one) for one in clauses]
    # What bears two of the codes is of the first group that it is in.
    found = {document["_id"]: document for group in groups for document in group}
    pieces: list[Piece] = [(kind.name, identifier, document["body"]) for identifier, document in found.items()]
    link = ("self", f"{gateway.settings.base_url}/{kind.name}/$lastn")
    body = build_searchset(gateway.settings.base_url, pieces, [link], total=len(pieces))
    owners = [document["patient"] for document in found.values() if document.get("patient")]
    return Answer(200, body), searched(access, call, [kind], about, owners)


def of_somebody(access: Access, pairs: Pairs) -> Pairs:
    """The parameters with the patient they are about: who is in the token's context need not be named."""
    if any(name in ("patient", "subject") for name, _ in pairs):
        return pairs
    if access.caller.patient is None:
        raise Problem("required", "say whose observations: patient is needed", "patient", status=400)
    return (*pairs, ("patient", access.caller.patient))


def _read_max(gateway: Gateway, text: str, codes: int) -> int:
    most = read_number(text, 5)
    if not most:
        raise Problem("invalid", "'max' is a number from 1", "max")
    if codes > _MOST_CODES:
        raise Problem("too-costly", f"at most {_MOST_CODES} codes are asked for at once", "code", status=400)
    if codes * most > 5 * gateway.limits.page_most:
        raise Problem("too-costly", f"at most {5 * gateway.limits.page_most} observations come at once", "max", status=400)
    return most
