"""Finding what comes with the matches of a search: what they refer to, and what refers to them.

Knows: each is read through the door of its own type, once, a constant number of calls for each type; what may not be seen is
not there. Must not know: HTTP, MongoDB.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.access.access import Access
from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import Pairs
from gateway.fhir.clause import FIELDS, Clause, Test, some
from gateway.fhir.include import Include, read_includes
from gateway.fhir.registry import ResourceType, SearchParameter
from gateway.problem import Problem
from gateway.store import resources as store
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document, Session

Found = tuple[ResourceType, Document]


def read_asked(gateway: Gateway, kinds: Iterable[ResourceType], pairs: Pairs) -> tuple[Include, ...]:
    """The includes that a search of these types asks for. Raises Problem naming one that is wrong."""
    includes = read_includes(gateway.registry, kinds, pairs, gateway.limits.includes)
    if includes and ("_summary", "text") in pairs:  # https://hl7.org/fhir/R4/search.html#summary
        raise Problem("invalid", "nothing is included in a summary of texts", "_summary")
    return includes


def needed_values(includes: Iterable[Include], kind: ResourceType) -> tuple[str, ...]:
    """The parameters of a type whose values say where its resources lead."""
    leading = (p for one in includes if not one.reverse and one.source is kind for p in one.parameters)
    return tuple(dict.fromkeys(p.field or p.name for p in leading))


@dataclass(slots=True)
class _Search:
    """What came so far. `there`: every `Type/id` that is on the page or was asked for already."""

    gateway: Gateway
    access: Access
    includes: tuple[Include, ...]
    session: Session
    there: set[str]
    found: list[Found] = field(default_factory=list)

    @property
    def room(self) -> int:
        return self.gateway.limits.included - len(self.found)


async def find_included(
    gateway: Gateway, access: Access, includes: tuple[Include, ...], matches: list[Found], session: Session = None
) -> list[Found]:
    """What comes with these matches, none of them itself, each once. Raises Problem where it is too much."""
    search = _Search(gateway, access, includes, session, {_reference(one) for one in matches})
    met, asked = matches, includes
    for _ in range(gateway.limits.include_rounds):
        if not met or not asked:
            break
        known = len(search.found)
        await _follow(search, asked, met)
        await _follow_back(search, asked, met)
        met, asked = search.found[known:], tuple(one for one in asked if one.iterate)
    return search.found


async def _follow(search: _Search, asked: Iterable[Include], met: list[Found]) -> None:
    """What these refer to: one call for each type that is referred to."""
    wanted: dict[str, dict[str, None]] = {}
    for one in asked:
        for kind, document in met if not one.reverse else ():
            if kind is one.source:
                for reference in _references(one, document):
                    type_name, _, identifier = reference.partition("/")
                    if type_name in one.targets and reference not in search.there and bucket_of(identifier):
                        wanted.setdefault(type_name, {})[identifier] = None
    _refuse_many(search, sum(map(len, wanted.values())))
    for type_name, ids in wanted.items():
        kind = search.gateway.registry[type_name]
        search.there |= {f"{type_name}/{identifier}" for identifier in ids}
        values = needed_values(search.includes, kind)
        mongo, session = search.gateway.mongo, search.session
        documents = await store.find_referred(search.access, mongo, kind, list(ids), values=values, session=session)
        search.found += [(kind, document) for document in documents]


async def _follow_back(search: _Search, asked: Iterable[Include], met: list[Found]) -> None:
    """What refers to these: one call for each type that refers."""
    ways: dict[str, list[Clause]] = {}
    for one in asked:
        if one.reverse:
            targets = [_reference(found) for found in met if found[0].name in one.targets]
            ways.setdefault(one.source.name, []).extend(_pointing(p, target) for p in one.parameters for target in targets)
    for type_name, clauses in ways.items():
        kind = search.gateway.registry[type_name]
        documents = await store.find_referring(
            search.access,
            search.gateway.mongo,
            kind,
            some(*clauses),
            values=needed_values(search.includes, kind),
            limit=search.room + len(search.there) + 1,
            seconds=search.gateway.limits.search_seconds,
            session=search.session,
        )
        new = [(kind, document) for document in documents if _reference((kind, document)) not in search.there]
        _refuse_many(search, len(new))
        search.there |= {_reference(found) for found in new}
        search.found += new


def _pointing(parameter: SearchParameter, reference: str) -> Clause:
    type_name, _, identifier = reference.partition("/")
    if parameter.field != "patient":
        return Test(parameter.name, "is", reference)
    return Test("patient", "is", identifier) if type_name == "Patient" else some()


def _references(include: Include, document: Document) -> list[str]:
    """Where the document leads by the parameters of an include: `Type/id`, and addresses elsewhere."""
    found: list[str] = []
    for parameter in include.parameters:
        if parameter.field is None:
            found += document.get("search", {}).get(parameter.name, ())
        elif document.get(FIELDS[parameter.field]):
            found.append(f"Patient/{document[FIELDS[parameter.field]]}")
    return found


def _reference(found: Found) -> str:
    return f"{found[0].name}/{found[1]['_id']}"


def _refuse_many(search: _Search, more: int) -> None:
    if more > search.room:
        most = search.gateway.limits.included
        text = f"more than {most} resources would be included: ask for fewer on a page (_count), or search for them"
        raise Problem("too-costly", text, "_revinclude" if search.includes[0].reverse else "_include", status=400)
