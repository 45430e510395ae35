"""What one transaction writes of resources, before it is written.

Knows: versions, history, tombstones and business keys as they are stored; the door of writing.
Must not know: transactions, how a plan was made, HTTP.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gateway.access.access import Access, unknown_reference
from gateway.fhir.clause import Values, matches
from gateway.fhir.dates import write_instant
from gateway.fhir.registry import ResourceType
from gateway.store.conditions import Condition, Sole
from gateway.store.mongo import Document, Step
from gateway.store.schema import CONTENTS, WITHDRAWN, history_of

Encode = Callable[[Any], bytes]


@dataclass(slots=True)
class Change:
    """One resource to be written.

    `resource` is the typed resource with its new id and meta, None for a deletion; `values` its index values as stored
    (`search`, `labels`); `former` the document it replaces; `head` the record it belongs to (its type, for directories);
    `touched`: whether somebody else than who deposited it has written a version; `place`: where it stands in a Bundle;
    `content`: of content, what is stored with it, or the id alone of what waits to be named; `depositor`: the professional who
    deposited it; `kept`: what the head of the record keeps of it, by field, None for what it keeps no longer; `sealed`: of what
    is withdrawn, its versions as they are kept: then nothing else of it remains but that it was there; `follows`: whether it
    is no wish of the caller's but what follows from one, so that nobody has to be allowed it.
    """

    kind: ResourceType
    interaction: str
    id: str
    head: str
    patient: str | None
    source: str
    resource: Any
    values: Document
    key: bytes | None = None
    digest: int | None = None
    former: Document | None = None
    touched: bool = False
    place: str | None = None
    content: Document | None = None
    depositor: str | None = None
    kept: Document = field(default_factory=dict)
    sealed: Sequence[Document] = ()
    follows: bool = False

    @property
    def is_withdrawn(self) -> bool:
        """Whether nothing remains of it but that it was there."""
        return bool(self.sealed) and self.resource is None

    @property
    def version(self) -> int:
        """The version this change makes."""
        return 1 if self.former is None else int(self.former["version"]) + 1

    @property
    def makes_head(self) -> bool:
        """Whether the head it belongs to begins with it: a new patient's, or that of a type that belongs to nobody."""
        return (self.kind.is_patient and self.former is None) or self.patient is None

    @property
    def is_wide(self) -> bool:
        """Whether one of its dates covers more than a common span."""
        return any(isinstance(value, dict) and "wide" in value for value in self.values["search"].values())

    def new_values(self) -> Document | None:
        """The index values of the new version, None for a deletion."""
        if self.resource is None:
            return None
        values = {**self.values, "_id": self.id, "source": self.source, "patient": self.patient}
        return values if self.depositor is None else {**values, "depositor": self.depositor}

    def document(self, commit: int, updated: datetime, encode: Encode) -> Document:
        """The resource as it will be stored."""
        document: Document = {
            "_id": self.id,
            "bucket": self.id[:3],
            "version": self.version,
            "updated": updated,
            "source": self.source,
            "commit": commit,
        }
        if self.patient is not None and not self.is_withdrawn:
            document["patient"] = self.patient
        if self.is_withdrawn:  # of no patient: so it is in nobody's view
            document["withdrawn"] = True
        if self.key is not None:
            document["key"] = self.key
        if self.digest is not None:
            document["digest"] = self.digest
        if self.depositor is not None and not self.is_withdrawn:
            document["depositor"] = self.depositor
        if self.touched:
            document["touched"] = True
        document.update(self.values)
        if self.resource is None:
            document["deleted"] = True
        else:
            self.resource.meta.lastUpdated = write_instant(updated)
            document["body"] = encode(self.resource)
        return document


@dataclass(slots=True)
class Plan:
    """Everything one transaction does."""

    changes: list[Change] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    soles: list[Sole] = field(default_factory=list)

    @property
    def guards(self) -> set[str]:
        """The heads of types that guard its conditions."""
        return {condition.head for condition in self.conditions if condition.head is not None}

    @property
    def heads(self) -> set[str]:
        """The records it writes to, and what guards its conditions."""
        return {change.head for change in self.changes} | self.guards


def require(access: Access, change: Change) -> None:
    """The door of writing: both the old and the new version must be the caller's to write. Raises Problem at its place.

    What is withdrawn must have been deposited by the caller, whatever the patient permits by now. What follows is not theirs.
    """
    if change.follows:
        return
    if change.sealed:
        if not matches(access.withdrawable(change.kind), change.former or {}):
            raise unknown_reference(change.kind.name)
        return
    for values in (change.former, change.new_values()):
        if values is not None:
            require_write(access, change.kind, change.interaction, values, change.place)


def require_write(access: Access, kind: ResourceType, interaction: str, values: Values, place: str | None) -> None:
    """Refuse a write of a resource with these index values that the caller may not make."""
    if not access.admits(kind, interaction, values):
        problem = access.refusal(kind, interaction, values, f"{kind.name}.{kind.patient_path or 'id'}")
        raise problem.within(place) if place else problem


def steps_of(changes: list[Change], documents: list[Document]) -> list[Step]:
    """The writes of these changes, by collection."""
    inserts: dict[str, list[Document]] = {}
    replacements: dict[str, list[tuple[Document, Document]]] = {}
    kept, forgotten = list[Document](), dict[str, list[Document]]()
    for change, document in zip(changes, documents, strict=True):
        name = change.kind.name
        if change.former is not None and change.sealed:
            kept += change.sealed
            forgotten.setdefault(history_of(name), []).append({"bucket": change.id[:3], "id": change.id})
            where = {"_id": change.id, "bucket": change.id[:3], "version": change.former["version"]}
            replacements.setdefault(name, []).append((where, document))
            continue
        if change.former is None:
            inserts.setdefault(name, []).append(document)
            continue
        former = {**change.former, "id": change.id, "_id": f"{change.id}/{change.former['version']}"}
        former.pop("key", None)
        former.pop("digest", None)
        inserts.setdefault(history_of(name), []).append(former)
        where = {"_id": change.id, "bucket": change.id[:3], "version": change.former["version"]}
        replacements.setdefault(name, []).append((where, document))
    names = dict.fromkeys([*inserts, *replacements])
    steps = [Step(name, inserts.get(name, ()), replacements=replacements.get(name, ())) for name in names]
    steps += [Step(name, deletes=found) for name, found in forgotten.items()]
    return [*_contents(changes), *steps, *([Step(WITHDRAWN, kept)] if kept else [])]


def _contents(changes: list[Change]) -> list[Step]:
    """What is written of contents: first, so that nothing is named that was swept meanwhile."""
    found = [change.content for change in changes if change.content is not None]
    new = [content for content in found if "data" in content]
    waiting = {content["_id"]: content for content in found if "data" not in content}
    named: list[tuple[Document, Document]] = [
        ({"_id": one, "bucket": one[:3], "address": {"$exists": True}}, {"$unset": {"pending": 1}}) for one in waiting
    ]
    return [Step(CONTENTS, new, named)] if found else []
