"""What is asked of the database in one call: the parts of a find over several collections, the steps of a transaction.

Knows: their shape. Must not know: the driver, which makes of them what it takes (`mongo.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.problem import Problem
from gateway.store.driver_errors import Unmatched

Document = dict[str, Any]

_SMALL = 4_000_000  # bytes; the driver makes commands of at most 16 million


@dataclass(frozen=True, slots=True)
class Part:
    """What to find in one collection; each document found says `of` what it is. `fields`: as in a projection.

    `hint`: the index to take. (Without it the server tries out each that begins alike, for each branch of an `$or`.)
    """

    collection: str
    where: Document
    of: str
    fields: Mapping[str, Any] | None = None
    hint: str | None = None

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

    def command(self) -> Document | None:
        """The step as one command of the server; None where it takes several, or is for the driver to split by size.

        (Measured: for a few documents the driver's bulk writes take a quarter more of processor time.)
        """
        is_small = sum([len(one.get("body") or one.get("data") or b"") for one in self.inserts]) < _SMALL
        if self.replacements or self.deletes or bool(self.inserts) is bool(self.updates) or not is_small:
            return None
        if self.inserts:
            return {"insert": self.collection, "documents": self.inserts, "ordered": False}
        return {"update": self.collection, "updates": [{"q": q, "u": u} for q, u in self.updates], "ordered": False}

    @property
    def is_mixed(self) -> bool:
        """Whether it takes several commands: one that fails ends the transaction, and nothing may be tried behind it."""
        return bool(self.inserts) and bool(self.updates or self.replacements)

    def require_all(self, matched: int) -> None:
        """Raise Unmatched where a document was not found."""
        if matched < len(self.updates) + len(self.replacements):
            raise Unmatched(self.collection)
