"""Who calls and what the record says of it: token, consents, head and what else the request names, looked up together.

Knows: how tokens are stored (by SHA-256, never themselves), and where consents and heads lie.
Must not know: what scopes and consents mean.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from gateway.access.record import Held, Prefetched
from gateway.fhir.identity import IDENTIFIER_BYTES, of_any_sender
from gateway.fhir.registry import Registry
from gateway.store.filter import LIVE, among
from gateway.store.gather import Gather
from gateway.store.mongo import Document, Mongo, Part, Session
from gateway.store.schema import HEADS, PATIENT_KEYS, TOKENS

_PATIENCE = 0.02  # seconds
_HOLDER = "holds:"  # before the type of what attaches the content that is asked for
_PROXY = "RelatedPerson"  # the type of who acts for a patient
_CONSENT = {"patient": 1, "body": 1, "version": 1, "deleted": 1, "updated": 1, "actors": "$search.actor"}


@dataclass(frozen=True, slots=True)
class About:
    """What a request is about, as far as its address, or a small body, tells before anybody is known to ask.

    `patient`: whose record; `resource`: type and id of the resource asked for; `keys`: type, bucket and first part of the
    business key of what is to be created; `targets`: type and id of what that refers to.
    """

    patient: str | None = None
    resource: tuple[str, str] | None = None
    keys: tuple[tuple[str, str, bytes], ...] = ()
    targets: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Question:
    """Whose standing is asked for: the key of a stored token or, with `token`, one that is not stored here."""

    key: bytes
    about: About
    token: Document | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store found: the token, the record in question (None: nobody's, or unknown), and what the request names.

    `acting`: whom the token names as acting for its patient, None for who is not there. The prefetched documents have passed
    no door yet.
    """

    token: Document
    record: "StoredRecord | None"
    prefetched: Prefetched
    acting: tuple[Document | None, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A patient's Consents, tombstones too, and the head of the record (empty where there is no such patient)."""

    patient: str
    consents: list[Document]
    head: Document


class Standings:
    """Looks up standings, several in one call where several requests wait."""

    def __init__(self, mongo: Mongo, registry: Registry) -> None:
        self._mongo = mongo
        self._raw = frozenset(kind.name for kind in registry.resource_types.values() if kind.is_raw)
        self._holders = tuple(kind.name for kind in registry.holders)
        self._gather: Gather[_Question, Standing | None] = Gather(self._find, patience=_PATIENCE)

    async def find(self, token: str, about: About, now: datetime) -> Standing | None:
        """The standing of a bearer token towards a record; None where nobody issued the token or it has expired.

        The record is the one in the token's context or, without a context, the one the request is about.
        """
        found = await self._gather.ask(_Question(token_key(token), about))
        return found if found is not None and found.token["expires"] > now else None

    async def find_foreign(self, token: Document, about: About) -> Standing | None:
        """The standing of whoever bears a token of another issuer, given as ours are stored."""
        return await self._gather.ask(_Question(token["_id"], about, token))

    async def find_records(self, patients: Iterable[str]) -> dict[str, StoredRecord]:
        """Several records, by patient; none for a patient that does not exist."""
        found = _Found(await self._mongo.find_all(_record_parts(set(patients))))
        return {patient: found.record(patient) for patient in patients if patient in found.heads}

    async def find_resources(self, wanted: Iterable[tuple[str, str]]) -> dict[str, Document | None]:
        """Several resources by `Type/id`, None where there is none, in one call. They have passed no door yet."""
        abouts = [About(resource=one) for one in wanted]
        found = _Found(await self._mongo.find_all(_resource_parts(abouts)))
        return {name: found.resources.get(name) for name in ("/".join(one.resource or ()) for one in abouts)}

    async def _find(self, asked: list[_Question]) -> list[Standing | None]:
        """One call for everything that the requests name; a second one for records and proxies that only tokens, or
        resources, name."""
        abouts = [question.about for question in asked]
        keys = [question.key for question in asked]
        foreign = {question.key: question.token for question in asked if question.token is not None}
        named = {about.patient for about in abouts if about.patient}
        named |= {token["patient"] for token in foreign.values() if "patient" in token}
        stored = [key for key in keys if key not in foreign]
        parts = [
            *([Part(TOKENS, {"_id": {"$in": stored}}, "token")] if stored else []),
            *_record_parts(named),
            *_known_parts(abouts),
            *_resource_parts(abouts),
            *self._holder_parts(abouts),
        ]
        found = _Found(await self._mongo.find_all(parts))
        found.tokens |= foreign
        wanted = [found.patient_of(key, about) for key, about in zip(keys, abouts, strict=True)]
        missing = {patient for patient in wanted if patient} - named
        owners = {
            found.owner_of(about.resource)
            for key, about in zip(keys, abouts, strict=True)
            if key in found.tokens and about.resource and about.resource[0] in self._raw
        }
        acting = {one for token in found.tokens.values() for one in acting_by(token)}
        if missing or owners or acting:
            proxies = [Part(_PROXY, among(acting) | LIVE, "acting", {"body": 1, "patient": 1})] if acting else []
            found.add(await self._mongo.find_all([*_record_parts(missing), *key_parts(owners), *proxies]))
            found.is_whole = bool(owners)
        return [found.standing(*one) for one in zip(keys, abouts, wanted, strict=True)]

    def _holder_parts(self, abouts: list[About]) -> list[Part]:
        """What attaches the contents that are asked for: it lies where they do."""
        ids = sorted({about.resource[1] for about in abouts if about.resource and about.resource[0] in self._raw})
        return [Part(name, among(ids, "attached"), _HOLDER + name, {"body": 0}) for name in self._holders] if ids else []


class _Found:
    """The documents of a call, sorted out."""

    def __init__(self, documents: list[Document]) -> None:
        self.tokens: dict[bytes, Document] = {}
        self.heads: dict[str, Document] = {}
        self.consents: dict[str, list[Document]] = {}
        self.known: dict[bytes, list[Document]] = {}
        self.resources: dict[str, Document] = {}
        self.holders: list[Document] = []
        self.keys: dict[str, Document] = {}
        self.acting: dict[str, Document] = {}
        self.is_whole = False  # whether what belongs to contents was looked up
        self.add(documents)

    def add(self, documents: list[Document]) -> None:
        for document in documents:
            match document.pop("of"):
                case "token":
                    self.tokens[document["_id"]] = document
                case "head":
                    self.heads[document["_id"]] = document
                case "consent":
                    self.consents.setdefault(document["patient"], []).append(document)
                case "known":
                    self.known.setdefault(document["key"][:IDENTIFIER_BYTES], []).append(document)
                case "key":
                    self.keys[document["_id"]] = document
                case "acting":
                    self.acting[document["_id"]] = document
                case name if name.startswith(_HOLDER):
                    self.holders.append(document | {"of": name.removeprefix(_HOLDER)})
                case type_name:
                    self.resources[f"{type_name}/{document['_id']}"] = document

    def record(self, patient: str) -> StoredRecord:
        return StoredRecord(patient, self.consents.get(patient, []), self.heads.get(patient, {}))

    def patient_of(self, key: bytes, about: About) -> str | None:
        """Whose record the request behind this token is about."""
        token = self.tokens.get(key, {})
        if "patient" in token:
            patient: str | None = token["patient"]
            return patient
        if about.resource is not None:
            found = self.resources.get("/".join(about.resource))
            # What is not there takes as long as what may not be seen: the record of a patient who is not there is looked up.
            is_nothing = found is None or "withdrawn" in found
            return about.resource[1] if is_nothing and token else (found or {}).get("patient")
        return about.patient if token else None

    def owner_of(self, resource: tuple[str, str]) -> str:
        """Whose a resource is; of what is not there, somebody who is not there either."""
        found = self.resources.get("/".join(resource), {})
        return str(found.get("patient", resource[1]))

    def held(self, about: About) -> Held | None:
        """What belongs to the content that is asked for, None where none is."""
        if about.resource is None or not self.is_whole:
            return None
        attaching = tuple(one for one in self.holders if about.resource[1] in one["attached"])
        return Held(attaching, self.keys.get(self.owner_of(about.resource)))

    def standing(self, key: bytes, about: About, patient: str | None) -> Standing | None:
        if key not in self.tokens:
            return None
        named = [*(("/".join(target)) for target in about.targets), *(["/".join(about.resource)] if about.resource else [])]
        return Standing(
            token=self.tokens[key],
            record=self.record(patient) if patient and (patient in self.heads or about.resource is None) else None,
            prefetched=Prefetched(
                resources={reference: self.resources.get(reference) for reference in named},
                known={first: tuple(self.known.get(first, ())) for _, _, first in about.keys},
                held=self.held(about),
            ),
            acting=tuple(self.acting.get(one) for one in acting_by(self.tokens[key])),
        )


def acting_by(token: Document) -> list[str]:
    """The ids of those whom a token names as acting for its patient."""
    return [reference.partition("/")[2] for reference in token["actors"] if reference.startswith(f"{_PROXY}/")]


def key_parts(patients: Iterable[str]) -> list[Part]:
    """The wrapped keys of these patients' contents; one part too where there are none of them."""
    return [Part(PATIENT_KEYS, among(set(patients) or [""]), "key")]


def _record_parts(patients: set[str]) -> list[Part]:
    if not patients:
        return []
    return [
        Part("Consent", among(patients, "patient"), "consent", _CONSENT),
        Part(HEADS, {"_id": {"$in": sorted(patients)}}, "head"),
    ]


def _known_parts(abouts: list[About]) -> list[Part]:
    """What is stored under the keys asked for, of every source."""
    ranges: dict[str, list[Document]] = {}
    for collection, bucket, first in {key for about in abouts for key in about.keys}:
        ranges.setdefault(collection, []).append({"bucket": bucket, "key": of_any_sender(first)})
    return [Part(name, {"$or": found}, "known", {"body": 0}, hint="key") for name, found in ranges.items()]


def _resource_parts(abouts: list[About]) -> list[Part]:
    """The resources asked for, and what is referred to; each is of its type."""
    ids: dict[str, set[str]] = {}
    for about in abouts:
        for type_name, identifier in (*about.targets, *([about.resource] if about.resource else ())):
            ids.setdefault(type_name, set()).add(identifier)
    return [Part(name, among(wanted), name) for name, wanted in ids.items()]


async def find_moment(mongo: Mongo, patient: str, session: Session = None) -> datetime | None:
    """The time of the last commit of a record, None where there is no such record."""
    head = await mongo.find_one(HEADS, {"_id": patient}, {"updated": 1}, session)
    return None if head is None else head["updated"]


def token_key(token: str) -> bytes:
    """The key a bearer token is stored under."""
    return sha256(token.encode()).digest()


async def put_token(mongo: Mongo, token: str, fields: Document) -> None:
    """Store what a token stands for under its hash, in place of what it stood for before."""
    await mongo.change(
        TOKENS, {"_id": token_key(token)}, [{"$replaceWith": {"$literal": {"_id": token_key(token), **fields}}}], upsert=True
    )


async def delete_token_of(mongo: Mongo, token: str, client: str) -> None:
    """Forget a token if it is this client's."""
    await mongo.delete(TOKENS, {"_id": token_key(token), "client": client})


async def delete_token(mongo: Mongo, token: str) -> bool:
    """Forget a token, whose next use is then refused. Returns whether it was known."""
    return await mongo.delete(TOKENS, {"_id": token_key(token)}) == 1
