"""Carrying out chained parameters: first what they lead to is found, then what refers to that.

Knows: only what the caller may find counts; each type is asked once; how many may be meant. Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable

from gateway.access.access import Access
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import Pairs
from gateway.fhir.chain import Chain, is_chain, leads_to, read_chain
from gateway.fhir.clause import NOTHING, Clause, every, some
from gateway.fhir.registry import ResourceType
from gateway.fhir.search import Reading
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.mongo import Session


def split_chains(gateway: Gateway, kind: ResourceType, criteria: Pairs, reading: Reading) -> tuple[Pairs, list[Chain]]:
    """The criteria that are no chains, and those that are. Raises Problem naming a chain that is wrong."""
    chained = [pair for pair in criteria if is_chain(kind, pair[0])]
    if not chained:
        return criteria, []
    limits = gateway.limits
    if len(chained) > limits.chains:
        raise Problem("too-costly", f"a search has at most {limits.chains} chains here", chained[-1][0], status=400)
    read = [read_chain(gateway.registry, kind, *pair, reading, limits.chain_types) for pair in chained]
    return tuple(pair for pair in criteria if pair not in chained), read


async def resolve_chains(gateway: Gateway, access: Access, chains: Iterable[Chain], session: Session = None) -> Clause:
    """The clause of these chains: references to what the caller may find there. Raises Problem 403 without any scope for it."""
    return every(*[await _resolve(gateway, access, chain, session) for chain in chains])


async def _resolve(gateway: Gateway, access: Access, chain: Chain, session: Session) -> Clause:
    inside = chain.inside()
    open_to = [(kind, clause) for kind, clause in chain.asked if access.is_in_scope(kind, "search-type")]
    if not open_to and not inside:
        access.require(chain.asked[0][0], "search-type")
    meant: list[Clause] = []
    most = gateway.limits.chain_targets
    for kind, clause in open_to:
        seconds = gateway.limits.search_seconds
        limit = most - len(meant) + 1
        ids = await store.find_ids(access, gateway.mongo, kind, clause, limit=limit, seconds=seconds, session=session)
        meant += [leads_to(chain.parameter, kind, identifier) for identifier in ids]
        if len(meant) > most:
            text = f"'{chain.name}' leads to more than {most} resources: narrow it"
            raise Problem("too-costly", text, chain.name, status=400)
    return some(*meant, *inside) if meant or inside else NOTHING
