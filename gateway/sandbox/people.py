"""Bringing the village into a gateway, by the ways everybody else uses; tokens that are ready.

Knows: in which order people, what they agreed to and their data come. Must not know: MongoDB, HTTP, what stands in the tables.
"""

import asyncio
import json
from collections.abc import Coroutine, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gateway.access.access import Access, Caller
from gateway.exchange.accounts import add_account
from gateway.exchange.bundle import process_bundle
from gateway.exchange.call import Call, Origin
from gateway.exchange.catalogue import REFERENCED, add_client, find_entry, set_state
from gateway.exchange.client import Client
from gateway.exchange.gateway import Gateway
from gateway.exchange.perform import perform
from gateway.exchange.standing import authenticate
from gateway.exchange.tokens import Grant, issue_token
from gateway.problem import Problem
from gateway.sandbox import resources
from gateway.sandbox.examples import OWNER, example, name_of, read_examples
from gateway.sandbox.glucose import Sensor, VirtualPatient
from gateway.sandbox.pages import PASSWORD
from gateway.sandbox.resources import consent
from gateway.sandbox.rows import Document, Patient, Stream, Token, Village, fill, read_village
from gateway.sandbox.series import day_of_readings
from gateway.sandbox.uploads import Wearer, batches
from gateway.store.ids import Ids
from gateway.store.standing import About

SECRET = "the sandbox holds no secrets of anybody"  # noqa: S105 (no secret: everybody may know the sandbox)
DAYS = 14
_ORIGIN = Origin("sandbox", None)
_LIFETIME = timedelta(days=365)
_HEAD_START = timedelta(days=7)
_TREATMENT = "http://terminology.hl7.org/CodeSystem/v3-ActReason|TREAT"
_SCOPES = {"patient": "patient/*.cruds", "proxy": "patient/*.cruds", "professional": "user/*.crs"}

__all__ = ["DAYS", "SECRET", "NamedIds", "People", "bring_people", "consent", "issue_tokens", "open_pages", "operator_caller"]


class NamedIds(Ids):
    """Ids whose last part can be chosen, so that the sandbox's people have names."""

    def __init__(self, secret: str) -> None:
        super().__init__(secret)
        # What is brought at the same time is named apart.
        self._names: ContextVar[tuple[str, ...]] = ContextVar("names", default=())

    def name(self, *names: str) -> None:
        """The ids that are made next have these names."""
        self._names.set(names)

    def unique(self) -> str:
        """The chosen name, once; otherwise as ever."""
        names = self._names.get()
        if not names:
            return super().unique()
        self._names.set(names[1:])
        return names[0]


@dataclass(frozen=True, slots=True)
class People:
    """The ids of the sandbox's resources, by name, and its tokens, by who bears them. `paired`: what its app was told."""

    ids: Mapping[str, str]
    tokens: Mapping[str, str]
    paired: Mapping[str, str] = field(default_factory=dict)


async def bring_people(gateway: Gateway, ids: NamedIds, village: Village | None = None, speed: float = 1) -> People:
    """Create the people of the village, their consents, documents, readings and tokens in an empty gateway.

    `speed`: how fast time is to pass there; what sensors have shown so far ends where it begins.
    """
    return await _Bringing(gateway, ids, village or read_village(), speed).bring()


def history_end(now: datetime, speed: float) -> datetime:
    """Where the readings of streams end that the village begins with: last midnight, or days before to have a way to go."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if speed <= 1 else midnight - _HEAD_START


class _Bringing:
    """One village on its way into one gateway. `known`: the ids there are so far, by name."""

    def __init__(self, gateway: Gateway, ids: NamedIds, village: Village, speed: float) -> None:
        self._gateway, self._ids, self._village, self._speed = gateway, ids, village, speed
        self._operator = Access(operator_caller(gateway), gateway.registry, gateway.policy, gateway.clock())
        self._now = gateway.clock()
        self._tokens: dict[str, str] = {}
        self.known: dict[str, str] = {}

    async def bring(self) -> People:
        """Everything, what is needed by others first; what belongs to different people at the same time."""
        village, known, now = self._village, self.known, self._now
        await self._set_up((row.name, resources.organization(row)) for row in village.organization)
        await self._set_up((row.name, resources.recipient(row)) for row in village.recipient)
        await self._set_up((row.name, resources.practitioner(row)) for row in village.practitioner)
        await self._set_up((row.name, resources.software(row)) for row in village.software)
        await self._set_up((f"{row.name}-role", resources.role(row, known)) for row in village.practitioner if row.at)
        await self._set_up((row.name, resources.patient(row, known, now)) for row in village.patient)
        await self._set_up((row.name, resources.related_person(row, known)) for row in village.proxy)
        await open_pages(self._gateway, known, village)
        self._tokens = await issue_tokens(self._gateway, known, village)
        await _together(self._fill_record(row.name) for row in village.patient)
        for row in village.patient:
            if row.replaces is not None:
                await self._merge(row)
        if OWNER in known:
            await self._bring_examples()
        return People(known, self._tokens)

    async def _set_up(self, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
        await _together(self._create(self._operator, name, resource) for name, resource in rows)

    async def _fill_record(self, patient: str) -> None:
        """What belongs to one patient, one after the other: a record orders its commits."""
        village, known, now = self._village, self.known, self._now
        for care in village.care:
            if care.patient == patient:
                member = fill(care.member, known)
                await self._write(care.by, care.name, resources.care_team(care, known, member, now))
        for document in village.document:
            if document.patient == patient:
                await self._deposit(document)
        for row in village.consent:
            if row.patient == patient:
                about, by = (fill(one, known) if one else None for one in (row.instance, row.performer))
                given = resources.consent_of(row, known, fill(row.to, known), about, by, now)
                await self._write(row.by, row.name, given)
        for reading in village.reading:
            if reading.patient == patient:
                await self._write(reading.by, reading.name, resources.reading(reading, known, now))
        for stream in village.stream:
            if stream.patient == patient:
                await self._push_history(stream)
        if patient == "camille":
            await self._push_readings()

    async def _push_readings(self) -> None:
        """Fourteen whole days of Camille up to last midnight."""
        known = self.known
        await self._write("app", "sensor", resources.sensor(known["camille"]))
        midnight = self._now.replace(hour=0, minute=0, second=0, microsecond=0)
        for day in range(DAYS, 0, -1):
            start: datetime = midnight - timedelta(days=day)
            bundle = day_of_readings(f"Patient/{known['camille']}", f"Device/{known['sensor']}", start)
            await self._send("app", bundle)

    async def _push_history(self, stream: Stream) -> None:
        """What a sensor has shown so far."""
        wearer = wearer_of(stream, self._village, self.known)
        await self._write(stream.token, stream.name, wearer.device())
        device = f"Device/{self.known[stream.name]}"
        end = history_end(self._now, self._speed)
        for batch in batches(list(wearer.sensor.readings(end - timedelta(days=stream.days), end))):
            await self._send(stream.token, _transaction(wearer.observation(one, device) for one in batch.readings))

    async def _bring_examples(self) -> None:
        """One resource of every type, in one record."""
        for type_name, text in read_examples().items():
            kind, name = self._gateway.registry.find(type_name), name_of(type_name)
            if kind is None or name in self.known or "create" not in kind.interactions:
                continue
            resource = example(text, self.known)
            if kind.group in ("identity", "directory"):
                await self._create(self._operator, name, resource)
            else:
                await self._write(OWNER, name, resource)

    async def _deposit(self, row: Document) -> None:
        described, content = resources.document(row, self.known, self._now)
        bundle = _transaction([described, content], {1: resources.CONTENT_URL})
        self._ids.name(row.name, f"{row.name}-content")
        answer = await self._send(row.by, bundle)
        for name, entry in zip((row.name, f"{row.name}-content"), answer["entry"], strict=True):
            self.known[name] = entry["response"]["location"].split("/")[-3]

    async def _merge(self, row: Patient) -> None:
        rows = {one.name: one for one in self._village.patient}
        names = (row.name, row.replaces or "")
        kept, replaced = (resources.patient(rows[name], self.known, self._now) for name in names)
        pair = resources.merged(kept, replaced, *(self.known[name] for name in names))
        entries = [{"resource": one, "request": {"method": "PUT", "url": f"Patient/{one['id']}"}} for one in pair]
        await _process(self._gateway, self._operator, {"resourceType": "Bundle", "type": "transaction", "entry": entries})

    async def _write(self, token: str, name: str, resource: dict[str, Any]) -> None:
        await self._create(await authenticate(self._gateway, self._tokens[token], About()), name, resource)

    async def _send(self, token: str, bundle: dict[str, Any]) -> dict[str, Any]:
        access = await authenticate(self._gateway, self._tokens[token], About())
        return await _process(self._gateway, access, bundle)

    async def _create(self, access: Access, name: str, resource: dict[str, Any]) -> None:
        self._ids.name(name)
        body = json.dumps(resource, ensure_ascii=False).encode()
        answer = await perform(self._gateway, access, Call("create", resource["resourceType"], _ORIGIN, body=body))
        self.known[name] = answer.id or ""


def wearer_of(stream: Stream, village: Village, ids: Mapping[str, str]) -> Wearer:
    """Who wears the sensor of a stream: of different streams, different people."""
    number = [row.name for row in village.stream].index(stream.name)
    return Wearer(ids[stream.patient], Sensor(VirtualPatient(1_000, number), stream.minutes))


async def open_pages(gateway: Gateway, known: Mapping[str, str], village: Village | None = None) -> None:
    """Everything that is needed before a browser: the catalogue, with apps that ask for access, and accounts."""
    village = village or read_village()
    for service in village.service:
        if await find_entry(gateway, service.client["client"]) is None:
            described = msgspec.convert({**service.client, "actor": fill(service.client["actor"], known)}, Client)
            await add_client(gateway, described, "sandbox")
            for state in service.states:
                await set_state(gateway, described.client, state, operator="sandbox")
    await _together(
        _open_account(gateway, row.login, row.title, [fill(one, known) for one in row.references]) for row in village.account
    )


async def _open_account(gateway: Gateway, login: str, title: str, references: list[str]) -> None:
    try:
        await add_account(gateway, login, PASSWORD, title, tuple(references))
    except Problem as problem:
        if problem.code != "duplicate":
            raise


async def issue_tokens(gateway: Gateway, known: Mapping[str, str], village: Village | None = None) -> dict[str, str]:
    """Tokens of everybody, valid from now; their texts are the same every time.

    A client that is not referenced has none: they are taken away when it is suspended.
    """
    village = village or read_village()
    closed = {row.client["client"] for row in village.service if [*row.states, ""][-2:][0] != REFERENCED}
    texts = {row.name: f"demo-{row.name}" for row in village.token}
    good = [row for row in village.token if row.client not in closed]
    await _together(issue_token(gateway, _grant(row, known), texts[row.name]) for row in good)
    return texts


def _grant(row: Token, known: Mapping[str, str]) -> Grant:
    patient = known[row.patient] if row.patient else None
    actor = fill(row.actor, known) if row.actor else None
    if row.kind == "patient":
        actor = f"Patient/{patient}"
    is_person = row.kind in ("patient", "proxy", "professional")
    return Grant(
        row.client,
        row.kind,
        row.scope or _SCOPES[row.kind],
        (actor,) if actor else (),
        software=(f"Device/{known[row.client]}",) if row.kind == "professional" else (),
        user=actor if is_person else None,
        patient=patient,
        purpose=_TREATMENT if row.kind == "professional" else None,
        lifetime=_LIFETIME,
    )


def operator_caller(gateway: Gateway) -> Caller:
    """Who sets up a sandbox: an operator without a token."""
    return Caller.operator("sandbox", "sandbox", gateway.scopes("system/*.cruds"), "sandbox")


async def _process(gateway: Gateway, access: Access, bundle: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps(bundle, ensure_ascii=False).encode()
    answer = await process_bundle(gateway, access, body, _ORIGIN, prefer=None, lenient=False)
    found: dict[str, Any] = json.loads(answer.body or b"{}")
    return found


def _transaction(created: Iterable[dict[str, Any]], urls: Mapping[int, str] | None = None) -> dict[str, Any]:
    """A transaction that creates these. `urls`: what entries are called in it, by their number."""
    entries: list[dict[str, Any]] = [
        {"resource": one, "request": {"method": "POST", "url": one["resourceType"]}} for one in created
    ]
    for n, url in (urls or {}).items():
        entries[n]["fullUrl"] = url
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


async def _together(work: Iterable[Coroutine[Any, Any, Any]]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
