"""What belongs to somebody else answers, by every route and to every stranger, exactly like what never existed (T-01, T-02)."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.fhir.registry import Registry
from tests.conftest import packaged
from tests.documents.papers import attaching, deposited, pdf
from tests.security.scene import CANARY, REASONS, STRANGERS, SYSTEM, Scene, build_scene, minimal, owned_types
from tests.world import Actor, World, bundle, entry, issues, observation, practitioner, unique

FORM = "application/x-www-form-urlencoded"
TYPES = [kind.name for kind in owned_types(packaged().registry)]
# Why somebody has no right makes no difference to the type: those who only differ in that meet one type, unless there is time.
CASES = [
    pytest.param(name, make.__name__, marks=[pytest.mark.slow] if make in REASONS and name != "Observation" else [])
    for name in TYPES
    for make in STRANGERS
]


@pytest.fixture(scope="module")
async def scene(session_world: World) -> Scene:
    return await build_scene(session_world)


@pytest.fixture(scope="module")
async def strangers(scene: Scene) -> dict[str, Actor]:
    return {make.__name__: await make(scene) for make in STRANGERS}


def searches(registry: Registry, name: str, target: dict[str, str]) -> Iterator[str]:
    """Every way in which a search of the type can name the target."""
    it, token, owner = target["id"], f"{SYSTEM}|{target['identifier']}", target["patient"]
    yield from (f"_id={it}", f"_id={it}&_summary=count", f"_id={it}&_total=accurate&_count=1&_sort=-_lastUpdated")
    yield f"_id={it}&_include=*&_revinclude:iterate={name}:*"
    if "identifier" in registry[name].search:
        yield from (f"identifier={token}", f"identifier={token}&_count=0")
    if not registry[name].is_patient:
        yield from (f"patient={owner}", f"patient=Patient/{owner}&_total=accurate", f"patient={owner}&_summary=count")
        yield f"patient.identifier={SYSTEM}|{target['patient_identifier']}"


async def probe(actor: Actor, registry: Registry, name: str, target: dict[str, str]) -> dict[str, httpx.Response]:
    """The answers to every request that names the target, by what the request is."""
    it = target["id"]
    body = minimal(registry, registry[name], target["patient"], target["identifier"]) | {"id": it}
    own = minimal(registry, registry[name], actor.patient or target["patient"], unique("own")) | {"id": it}
    asked = list(searches(registry, name, target))
    reads = [f"{name}/{it}", f"{name}/{it}/_history/1", f"{name}/{it}/_history/2", f"{name}/{it}/_history"]
    found = {f"GET {path}": await actor.get(path) for path in (*reads, *(f"{name}?{search}" for search in asked))}
    found |= {f"HEAD {path}": await actor.send("HEAD", path) for path in reads}
    found["If-None-Match"] = await actor.get(reads[0], If_None_Match='W/"1"')
    found["If-None-Match *"] = await actor.get(reads[0], If_None_Match="*")
    found["If-Modified-Since"] = await actor.get(reads[0], If_Modified_Since="Sun, 01 Jan 2090 00:00:00 GMT")
    for search in asked[-2:]:
        found[f"POST {search}"] = await actor.send("POST", f"{name}/_search", search.encode(), Content_Type=FORM)
    found["PUT"] = await actor.put(f"{name}/{it}", body)
    found["PUT If-Match"] = await actor.put(f"{name}/{it}", body, If_Match='W/"1"')
    found["PUT another version"] = await actor.put(f"{name}/{it}", body, If_Match='W/"7"')
    found["PUT into another record"] = await actor.put(f"{name}/{it}", own)
    found["DELETE"] = await actor.delete(f"{name}/{it}")
    found["DELETE If-Match"] = await actor.delete(f"{name}/{it}", If_Match='W/"1"')
    writes: list[Any] = [entry("PUT", reads[0], body), entry("DELETE", reads[0]), entry("PUT", reads[0], body, ifMatch='W/"1"')]
    lookups = [entry("GET", path) for path in (*reads, *(f"{name}?{search}" for search in asked))]
    found["batch"] = await actor.post("", bundle("batch", *lookups[::3], *writes))
    for one in (lookups[0], lookups[-1], *writes[:2]):
        found[f"transaction {one['request']}"] = await actor.post("", bundle("transaction", one))
    return found


# Of a search that shows nothing: made of the time of the answer alone (`tests/documents/test_visits.py`).
WATERMARK = re.compile(r'("resourceType":"Bundle","meta":\{"lastUpdated":")[^"]+')


def comparable(answer: httpx.Response, target: dict[str, str]) -> tuple[int, str, list[tuple[str, str]]]:
    """Status, body and headers, without what names the target and what differs by time."""
    text = re.sub(r'"meta":\{"lastUpdated":"[^"]*"\},"type":"searchset"', '"type":"searchset"', answer.text)  # the watermark
    for what, value in target.items():
        text = text.replace(value, f"<{what}>")
    text = WATERMARK.sub(r"\1<a minute ago>", text)
    headers = [(k, v) for k, v in sorted(answer.headers.items()) if k not in ("date", "x-request-id", "content-length")]
    return answer.status_code, text, headers


@pytest.mark.parametrize(("name", "stranger"), CASES)
@pytest.mark.requirement("ATK-T01", "ATK-T02", "ATK-T06", "ATK-T12", "CON-001")
async def test_hidden_is_absent(scene: Scene, strangers: dict[str, Actor], name: str, stranger: str) -> None:
    actor, registry, owner = strangers[stranger], scene.world.gateway.registry, scene.victim.patient or ""
    hidden = {"id": scene.ids[name], "identifier": scene.identifiers[name], "patient": owner}
    absent = {"id": scene.ghost(hidden["id"]), "identifier": unique("secret"), "patient": scene.ghost(owner)}
    hidden["patient_identifier"], absent["patient_identifier"] = scene.identifiers["Patient"], unique("secret")
    if registry[name].is_patient:
        absent["patient"] = absent["id"]
    before = [one for one in await scene.world.stored(name, patient=owner) if name != "AuditEvent"]
    of_hidden, of_absent = await asyncio.gather(*(probe(actor, registry, name, target) for target in (hidden, absent)))
    for what, one, other in zip(of_hidden, of_hidden.values(), of_absent.values(), strict=True):
        assert comparable(one, hidden) == comparable(other, absent), what
        assert CANARY not in one.text, what
        assert not {"etag", "last-modified", "location"} & one.headers.keys(), what
        assert one.status_code < 500, what
    assert [one for one in await scene.world.stored(name, patient=owner) if name != "AuditEvent"] == before


@pytest.mark.parametrize("stranger", ["professional_without_consent", "service_without_consent", "app_with_wide_scopes"])
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.requirement("AUD-001")
async def test_a_stranger_leaves_a_trace_in_the_record(
    scene: Scene, strangers: dict[str, Actor], name: str, stranger: str
) -> None:
    actor, reference = strangers[stranger], f"{name}/{scene.ids[name]}"
    answer = await actor.get(reference, X_Request_Id=(request := unique("request")))
    assert answer.status_code == 404
    [event] = await scene.world.stored("AuditEvent", patient=scene.victim.patient, **{"event.request_id": request})
    assert event["event"]["outcome"] == "8"
    assert event["event"]["entities"] == [reference]


@pytest.mark.parametrize("stranger", [make.__name__ for make in STRANGERS])
@pytest.mark.requirement("ATK-T10", "ATK-T41")
async def test_conditional_creates_do_not_find_what_is_hidden(scene: Scene, strangers: dict[str, Actor], stranger: str) -> None:
    """The victim's resource and an absent one: an equal answer, whether the create is refused or done."""
    actor = strangers[stranger]

    async def ask(owner: str, criterion: str) -> tuple[int, str]:
        resource = minimal(scene.world.gateway.registry, scene.world.gateway.registry["Observation"], owner, unique("new"))
        answer = await actor.post("Observation", resource, If_None_Exist=criterion, Prefer="return=OperationOutcome")
        return answer.status_code, answer.text.replace(owner, "<owner>")

    hidden, ghost = scene.ids["Observation"], scene.ghost(scene.ids["Observation"])
    token, other = f"{SYSTEM}|{scene.identifiers['Observation']}", f"{SYSTEM}|{unique('secret')}"
    for owner in filter(None, (scene.victim.patient, actor.patient)):
        assert await ask(owner, f"_id={hidden}") == await ask(owner, f"_id={ghost}")
        assert await ask(owner, f"identifier={token}") == await ask(owner, f"identifier={other}")


async def test_patients_of_one_portal_do_not_find_each_others_deposits(scene: Scene) -> None:
    """The portal is the source of what all of them send: that makes it nobody else's."""
    other = await scene.world.patient("patient/*.cruds user/*.cruds")
    target = f"Observation/{scene.ids['Observation']}"
    answer = await other.put(
        target, minimal(scene.world.gateway.registry, scene.world.gateway.registry["Observation"], "x", "y")
    )
    assert answer.status_code in (400, 405)
    assert (await other.delete(target)).status_code == 404


async def test_the_same_software_does_not_make_one_professional_of_two(world: World) -> None:
    """What is changed, attached or replaced as one's own deposit is the person's, for whom the record is closed otherwise."""
    owner = await world.patient()
    software = unique("software")

    async def user() -> Actor:
        made = await world.operator.create(practitioner())
        reference = f"Practitioner/{made['id']}"
        return await world.actor("professional", "user/*.cruds", software, reference, user=reference)

    one, other = await user(), await user()
    content = pdf()
    made, raw = await deposited(one, owner.patient, content)
    reading = await one.create(observation(owner.patient))
    names = (made, f"Observation/{reading['id']}")
    before = await world.fingerprint()
    for name in names:
        patch = json.dumps([{"op": "replace", "path": "/status", "value": "entered-in-error"}]).encode()
        answer = await other.send("PATCH", name, patch, Content_Type="application/json-patch+json")
        assert answer.status_code == 404, answer.text
    assert (await other.put(names[1], reading)).status_code == 405  # as for an id that nobody has
    assert (await other.delete(names[1])).status_code == 404
    relates = [{"code": "replaces", "target": {"reference": made}}]
    for sent in (attaching(owner.patient, raw), attaching(owner.patient, "https://elsewhere.example/x.pdf", relatesTo=relates)):
        answer = await other.post("DocumentReference", sent)
        assert (answer.status_code, issues(answer)[0]["code"]) == (422, "not-found"), answer.text
    assert await world.fingerprint() == before
    # Whoever has the same file deposits it, too; and everybody goes on with what is theirs.
    _, same = await deposited(other, owner.patient, content)
    assert same != raw
    assert (await other.get(same)).content == content
    assert (await other.get(raw)).status_code == 404
    assert (await one.post("DocumentReference", attaching(owner.patient, raw))).status_code == 201
    assert (await one.delete(names[1])).status_code == 204
