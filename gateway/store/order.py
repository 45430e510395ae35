"""In which order a search gives what it finds: its keys, the place behind which a page begins, the index that has it so.

Knows: how MongoDB sorts, missing values too. Must not know: what is searched, who asks.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.clause import Clause, Test, parts_of
from gateway.fhir.registry import ResourceType
from gateway.store.mongo import Document
from gateway.store.schema import index_name, sort_field


class Key(NamedTuple):
    """One parameter that a search is sorted by."""

    parameter: str
    descending: bool

    @property
    def field(self) -> str:
        """Where its values are stored."""
        return sort_field(self.parameter)

    @property
    def direction(self) -> int:
        """The direction as MongoDB writes it."""
        return -1 if self.descending else 1


@dataclass(frozen=True, slots=True)
class Order:
    """How a search is sorted: by the first of these keys, then by the next. Ties are broken by id."""

    keys: tuple[Key, ...]

    @property
    def parameters(self) -> list[str]:
        """What it is sorted by before the id."""
        return [key.parameter for key in self.keys if key.parameter != "_id"]

    def complete(self) -> list[Key]:
        """The keys with the id as the last of them: against the direction of the first, as the indexes have it."""
        if self.keys[-1].parameter == "_id":
            return [*self.keys]
        return [*self.keys, Key("_id", not self.keys[0].descending)]


BY_ID = Order((Key("_id", descending=False),))


@dataclass(frozen=True, slots=True)
class Place:
    """The last resource of a page: its sort keys (None where it has none) and id. The next page begins behind it."""

    keys: tuple[Any, ...]
    id: str


def merge_pages(pages: list[list[Document]], order: Order) -> list[Document]:
    """Pages sorted alike as one. What has no key sorts before everything, as in MongoDB."""

    def value(document: Document, field: str) -> tuple[bool, Any]:
        found = value_at(document, field)
        return (found is not None, found or 0)

    found = [document for page in pages for document in page]
    for key in reversed(order.complete()):
        found.sort(key=partial(value, field=key.field), reverse=key.descending)
    return found


def value_at(document: Document, field: str) -> Any:
    """What stands in a stored document at `a.b.c`, None where nothing does."""
    found: Any = document
    for name in field.split("."):
        found = found.get(name) if found else None
    return found


def choose_index(kind: ResourceType, clause: Clause, order: Order) -> str | None:
    """The declared index that serves a search, None to leave it to the server.

    What hardly two resources (of a record, where it says whose) share wins; then the longest run of keys that the search
    fixes, if the sort key follows it; else the longest run alone.
    """
    fixed = set(fixed_parameters(clause))
    if "_id" in fixed:
        return None
    best: tuple[int, int, int] = (0, 0, 0)
    chosen: str | None = None
    for index in kind.indexes:
        run = next((n for n, key in enumerate(index) if key not in fixed), len(index))
        sorts = run < len(index) and index[run].lstrip("-") == order.keys[0].parameter
        is_own = index[0] == "patient" or "patient" not in fixed
        alone = is_own and any(key in kind.unique for key in index[:run])
        score = (int(alone), int(run > 0 and sorts), run)
        if run > 0 and score > best:
            best, chosen = score, index_name(index)
    return chosen


def fixed_parameters(clause: Clause) -> list[str]:
    """The parameters that a clause fixes to one value or a few."""
    found: list[str] = []
    for part in parts_of(clause):
        if isinstance(part, Test) and part.op == "is":
            found.append(part.parameter)
        elif isinstance(part, AnyOf) and part.of:
            names = {t.parameter if isinstance(t, Test) and t.op == "is" else "" for t in part.of}
            if len(names) == 1:
                found.append(names.pop())
    return found


def behind_place(order: Order, place: Place) -> Document:
    """What comes after a place in this order: reached by the first key, and not passed already.

    MongoDB sorts what has no key before everything else.
    """
    keys = order.complete()
    at = (*place.keys, place.id)
    if len(keys) == 1:
        return {"_id": {"$lt" if keys[0].descending else "$gt": place.id}}
    passed: list[Document] = []
    for n, key in enumerate(keys[1:], start=1):
        same = {before.field: value for before, value in zip(keys[:n], at, strict=False)}
        if key.parameter == "_id":
            passed.append(same | {"_id": {"$gte" if key.descending else "$lte": place.id}})
        elif key.descending:
            passed.append(same | {key.field: {"$ne": None} if at[n] is None else {"$gt": at[n]}})
        elif at[n] is not None:
            passed.append(same | {key.field: {"$not": {"$gte": at[n]}}})
    first, value = keys[0], at[0]
    if value is None:
        return {"$nor": passed} | ({first.field: None} if first.descending else {})
    return {first.field: {"$not": {"$gt": value}} if first.descending else {"$gte": value}, "$nor": passed}
