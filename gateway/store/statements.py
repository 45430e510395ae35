"""What is asked of the database in one call: the parts of a find over several collections, the steps of a transaction.

Knows: their shape. Must not know: the driver, which makes of them what it takes (`mongo.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.problem import Problem
from gateway.store.driver_errors import Unmatched

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """What to find in one collection; each document found says `of` what it is. `fields`: as in a projection."""

    collection: str
    where: Document
    of: str
    fields: Mapping[str, Any] | None = None

    def stages(self) -> list[Document]:
        """The part as stages of a pipeline."""
        projection: list[Document] = [{"$project": self.fields}] if self.fields else []
        return [{"$match": self.where}, *projection, {"$set": {"of": {"$literal": self.of}}}]


@dataclass(frozen=True, slots=True)
class Step:
    """Writes to one collection, done in one call. Each of `updates` and `replacements` is to find its one document.

    `deletes`: filters of what is to be gone; `otherwise`: the Problem to raise where the store cannot do it, in place of its
    own; `contended`: where others are at the same documents for too long.
    """

    collection: str
    inserts: Sequence[Document] = ()
    updates: Sequence[tuple[Document, Document]] = ()
    replacements: Sequence[tuple[Document, Document]] = ()
    deletes: Sequence[Document] = ()
    otherwise: Callable[[], Problem] | None = None
    contended: Callable[[], Problem] | None = None

    @property
    def is_mixed(self) -> bool:
        """Whether it takes several commands: one that fails ends the transaction, and nothing may be tried behind it."""
        return bool(self.inserts) and bool(self.updates or self.replacements)

    def require_all(self, matched: int) -> None:
        """Raise Unmatched where a document was not found."""
        if matched < len(self.updates) + len(self.replacements):
            raise Unmatched(self.collection)
