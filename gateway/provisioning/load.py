"""Loading rows into the gateway: in transactions of many, each row as if an operator had sent it alone.

Knows: how rows are grouped, how one that is refused is taken out of its group, which rows are worth trying again.
Must not know: files, terminals, MongoDB; what makes a resource valid (that is for the way of every write to say).

Nothing is remembered in the database of how far an import came: what it brought is known by its identifiers, so that the
same files loaded again, after an interruption or years later, come to the same.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import msgspec

from gateway.access.access import Access, Caller
from gateway.exchange.audit import refused
from gateway.exchange.call import Answer, Call, Origin
from gateway.exchange.gateway import Gateway
from gateway.exchange.rules import rule_issues
from gateway.exchange.write import write
from gateway.fhir.balp import Event
from gateway.fhir.identity import digest_of, identifier_key, references_of
from gateway.fhir.registry import ResourceType
from gateway.problem import Problem
from gateway.provisioning.rows import Row
from gateway.provisioning.scratch import Scratch
from gateway.store.ids import bucket_of

_GROUP = 200  # rows; measured: twice as many are not faster, and hold the heads of their types for longer
_SOURCE = "import"  # of all imports, whoever runs them: what belongs to a patient is known by its source too
_ENTRY = re.compile(r"Bundle\.entry\[(\d+)\]\.resource")
_REFERENCE = re.compile(rb'"reference"\s*:\s*"([^"\\]+)"')

Refuse = Callable[[Row, Problem], None]


@dataclass(slots=True)
class Counts:
    """What became of the rows so far."""

    created: int = 0
    updated: int = 0
    known: int = 0
    refused: int = 0

    @property
    def taken(self) -> int:
        """The rows that are in the gateway now."""
        return self.created + self.updated + self.known

    @property
    def rows(self) -> int:
        """All rows of which it is decided what became of them."""
        return self.taken + self.refused


class _Head(msgspec.Struct):
    resourceType: str = ""  # noqa: N815 (FHIR's own name)
    id: str | None = None


@dataclass(slots=True)
class _Item:
    """A row that may be written.

    `links`: what others call it; `calm`: as of a Call; `is_sound`: whether it was decoded and found valid already.
    """

    row: Row
    kind: ResourceType
    links: tuple[str, ...]
    calm: bool
    is_sound: bool = False

    def references(self) -> set[str]:
        """What it refers to, as it says it."""
        return {text.decode("utf-8", "replace") for text in _REFERENCE.findall(self.row.body)}

    def call(self, origin: Origin, n: int) -> Call:
        """Its write, as entry `n` of a transaction."""
        place = f"Bundle.entry[{n}].resource"
        return Call("create", self.kind.name, origin, body=self.row.body, calm=self.calm, renews=True, place=place)


class Load:
    """One import. `operator`: the name under which the audit knows who runs it; `refuse`: is told of each row refused."""

    def __init__(self, gateway: Gateway, operator: str, scratch: Scratch, refuse: Refuse) -> None:
        self.counts = Counts()
        self._gateway = gateway
        self._caller = _operator(gateway, operator)
        self._origin = Origin(f"import-{gateway.ids.unique()}", None)
        self._scratch = scratch
        self._refuse = refuse
        self._refusals: list[Event] = []  # still to be recorded
        self._waits = True  # whether rows whose references lead nowhere yet are put off

    async def load(self, rows: Iterable[Row]) -> None:
        """Write these rows. Raises Problem where the store does not allow it: what went before is written."""
        for group in _groups(rows):
            await self._write([item for row in group if (item := self._read(row)) is not None])
            await self._record_refusals()

    async def load_later(self) -> None:
        """Write what referred to rows further down, as long as that gets anywhere; refuse the rest."""
        while self._waits:
            before = self.counts.taken
            await self._again()
            self._waits = self.counts.taken > before
        await self._again()

    async def _again(self) -> None:
        for group in _groups(self._scratch.take_later()):
            await self._write([self._item(row) for row in group])
            await self._record_refusals()

    def _read(self, row: Row) -> _Item | None:
        """The row as something to be written; None where it is refused, or stood in the files before."""
        try:
            item = self._item(row)
            key = self._key(item)
        except Problem as problem:
            self._refuse_row(row, "Bundle", problem)
            return None
        place, digest = f"line {row.line} of {row.file}", digest_of(row.body)
        first = self._scratch.meet(key, digest, place)
        if first is None:
            return item
        if first[0] == digest:
            self.counts.known += 1
            return None
        text = f"another resource with this identifier stands in {first[1]}"
        self._refuse_row(row, item.kind.name, Problem("duplicate", text, f"{item.kind.name}.identifier"))
        return None

    def _item(self, row: Row) -> _Item:
        if row.problem is not None:
            raise row.problem
        name = self._gateway.codec.peek_type(row.body)
        kind = self._gateway.registry.find(name)
        if kind is None:
            raise Problem("not-supported", "this resource type is not served here", "Resource")
        head = msgspec.json.decode(row.body, type=_Head, strict=False)
        links = (f"{name}/{head.id}",) if head.id else ()
        calm = self._gateway.codec.check_body(row.body)
        return _Item(row, kind, (*((row.url,) if row.url else ()), *links), calm)

    def _key(self, item: _Item) -> bytes:
        """What the row is known by in its files. Raises Problem where there is nothing, or it is not valid."""
        identity = self._gateway.identities.read(item.kind, item.row.body)
        if identity is None:
            self._check(item)
            raise Problem("structure", "not valid", item.kind.name)
        owner = references_of(identity)[0] if item.kind.patient and references_of(identity) else ""
        key = identifier_key(item.kind, identity, owner)
        if key is None:
            text = "an import needs an identifier with a system: by that it knows what is there already"
            raise Problem("required", text, f"{item.kind.name}.identifier")
        return key

    def _check(self, item: _Item) -> None:
        """What can be said of a row without the database. Raises Problem with every issue."""
        if item.is_sound:
            return
        resource = self._gateway.codec.decode(item.kind.name, item.row.body, calm=item.calm)
        issues = [*rule_issues(self._gateway, item.kind.name, resource)]
        if issues:
            raise Problem.of(issues, status=422)
        item.is_sound = True

    async def _write(self, items: list[_Item]) -> None:
        """Write these in one transaction, without those that cannot be."""
        items, known = self._ready(items)
        while items:
            access = self._access()
            calls = [(item.call(self._origin, n), item.links[0] if item.links else None) for n, item in enumerate(items)]
            try:
                answers, events = await write(self._gateway, access, calls, urls=known)
            except Problem as problem:
                if problem.status >= 500:
                    raise
                items = await self._without(items, problem)
                continue
            await self._gateway.audit.record(events, access.now)
            self._count(items, answers)
            return

    def _ready(self, items: list[_Item]) -> tuple[list[_Item], Mapping[str, str]]:
        """Those whose references lead somewhere, as far as the files tell, and to where they do; the others are put off."""
        asked = {id(item): item.references() for item in items}
        known = self._scratch.find_links(set[str]().union(*asked.values()))
        if not self._waits:
            return items, known
        while True:
            there = known.keys() | {link for item in items for link in item.links}
            early = [item for item in items if not all(r in there or not _is_of_files(r) for r in asked[id(item)])]
            if not early:
                return items, known
            for item in early:
                self._scratch.put_off(item.row)
            gone = set(map(id, early))
            items = [item for item in items if id(item) not in gone]

    async def _without(self, items: list[_Item], problem: Problem) -> list[_Item]:
        """The others, once the row that the problem is about is dealt with, and all that are not valid by themselves."""
        named = _ENTRY.match(problem.issues[0].expression or "")
        if named is None and len(items) > 1:
            middle = len(items) // 2
            await self._write(items[:middle])
            return items[middle:]
        culprit = items[int(named[1]) if named is not None else 0]
        rest: list[_Item] = []
        for item in items:
            try:
                self._check(item)
            except Problem as unsound:
                self._refuse_row(item.row, item.kind.name, unsound)
                continue
            if item is not culprit:
                rest.append(item)
            elif self._waits and (problem.code, problem.status) == ("not-found", 422):
                self._scratch.put_off(item.row)
            else:
                self._refuse_row(item.row, item.kind.name, _outside(problem, item.kind.name))
        return rest

    def _refuse_row(self, row: Row, type_name: str, problem: Problem) -> None:
        self.counts.refused += 1
        self._refusals += refused(self._access(), Call("create", type_name, self._origin), problem)
        self._refuse(row, problem)

    async def _record_refusals(self) -> None:
        events, self._refusals = self._refusals, []
        await self._gateway.audit.record(events, self._gateway.clock())

    def _count(self, items: list[_Item], answers: list[Answer]) -> None:
        for item, answer in zip(items, answers, strict=True):
            self._scratch.add_links((link, f"{item.kind.name}/{answer.id}") for link in item.links)
            match answer.receipt:
                case "created":
                    self.counts.created += 1
                case "corrected":
                    self.counts.updated += 1
                case _:
                    self.counts.known += 1

    def _access(self) -> Access:
        return Access(self._caller, self._gateway.registry, self._gateway.policy, self._gateway.clock())


def _is_of_files(reference: str) -> bool:
    """Whether a reference can lead only to another row: it has the form of a link, and of none to what is here already."""
    type_name, _, identifier = reference.partition("/")
    return reference.startswith("urn:") or (type_name.isalpha() and bool(identifier) and bucket_of(identifier) is None)


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while group := list(islice(remaining, _GROUP)):
        yield group


def _outside(problem: Problem, type_name: str) -> Problem:
    """The problem with its elements named from the row itself."""
    issues = [replace(i, expression=_ENTRY.sub(type_name, i.expression or type_name)) for i in problem.issues]
    return Problem.of(issues, status=problem.status).about(problem.records)


def _operator(gateway: Gateway, name: str) -> Caller:
    """Who imports: an operator at the machine itself, without a token."""
    return Caller.operator(name, _SOURCE, gateway.scopes("system/*.cru"), "gateway-import")
