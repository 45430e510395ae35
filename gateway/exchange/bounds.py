"""Refusing a search of several parts for what one of them would cost, before any of them is carried out.

Knows: the shape of what each part will ask of the store, whatever the parts before it find. (A search of one part is weighed by
the store, as each of these is again.) Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.access.access import Access
from gateway.fhir.chain import Chain, leads_to
from gateway.fhir.clause import Clause, Test, every, some
from gateway.fhir.include import Include
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.store.cost import require_bounded

_ANY = "*"  # the id of whatever may be found


class Part(NamedTuple):
    """What a search says of one type: by itself, and by what its references lead to."""

    kind: ResourceType
    clause: Clause
    chains: list[Chain]


def require_bounded_parts(
    access: Access, parts: Iterable[Part], includes: Iterable[Include], sorted_by: tuple[str, ...]
) -> None:
    """Refuse what no index leads to: what is searched of a type, what a chain leads to, what refers to what is found."""
    for kind, clause, chains in parts:
        for chain in chains:
            _require_chain(access, chain)
        shape = every(clause, *map(_referring, chains))
        require_bounded(kind, shape, every(shape, access.clause(kind, "search-type")), sorted_by)
    for include in includes:
        if include.reverse:
            _require_include(access, include)


def _require_chain(access: Access, chain: Chain) -> None:
    for kind, clause in chain.asked:
        if access.is_in_scope(kind, "search-type"):
            try:
                require_bounded(kind, clause, every(clause, access.clause(kind, "search-type")))
            except Problem as problem:
                raise problem.moved(chain.name) from None


def _referring(chain: Chain) -> Clause:
    return some(*(leads_to(chain.parameter, kind, _ANY) for kind, _ in chain.asked), *chain.inside())


def _require_include(access: Access, include: Include) -> None:
    kind = include.source
    shape = some(*(Test(parameter.field or parameter.name, "is", _ANY) for parameter in include.parameters))
    try:
        require_bounded(kind, shape, every(shape, access.clause(kind, "search-type"), access.clause(kind, "read")))
    except Problem as problem:
        raise problem.moved("_revinclude") from None
