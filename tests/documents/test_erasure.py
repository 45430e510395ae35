"""A record that is erased is nowhere any more but, by ids, in the audit; others do not notice."""

import asyncio
import json
from typing import Any

import pytest

from gateway.exchange.accounts import add_account
from gateway.exchange.contents import CHUNK
from gateway.exchange.records import erase_patient, open_withdrawn
from gateway.problem import Problem
from gateway.store.schema import required_collections
from tests.documents.papers import attaching, deposited, pdf, send_raw
from tests.process import environment, run
from tests.world import Actor, World, consent, document, expression, observation, related_person, unique

SECRET = "Anne-Sophie Quelconque"
KEPT = {"AuditEvent", "patient_keys", "receipts", "seals", "writers", "meta"}


class Life:
    """A patient of whom there is something in every corner."""

    def __init__(self, world: World, owner: Actor, doctor: Actor) -> None:
        self.world, self.owner, self.doctor = world, owner, doctor
        self.wrong = self.raw = ""

    async def live(self) -> None:
        world, owner, doctor = self.world, self.owner, self.doctor
        ids = {"subject": {"reference": f"Patient/{owner.patient}", "display": SECRET}}
        made, self.raw = await deposited(owner, owner.patient, pdf(), description=SECRET)
        await owner.put(made, {**(await owner.get(made)).json(), "status": "superseded"})
        long = await send_raw(owner, pdf(2 * CHUNK))
        await owner.create(attaching(owner.patient, f"Binary/{long.json()['id']}"))
        reading = await owner.create(observation(owner.patient, **ids))
        await owner.put(f"Observation/{reading['id']}", {**reading, "note": [{"text": SECRET}]})
        await owner.delete(f"Observation/{reading['id']}")
        await owner.create({"resourceType": "List", "status": "current", "mode": "working", "title": SECRET, **ids})
        await owner.create(consent(owner, doctor))
        relative = await world.operator.create(related_person(owner.patient, name=[{"text": SECRET}]))
        reference = f"RelatedPerson/{relative['id']}"
        self.proxy = await world.actor("proxy", "patient/*.rs", "portal", reference, user=reference, patient=owner.patient)
        await add_account(world.gateway, self.login, "correct horse battery", SECRET, (f"Patient/{owner.patient}",))
        self.wrong, _ = await deposited(doctor, owner.patient, pdf(), description=SECRET)
        assert (await doctor.post(f"{self.wrong}/$withdraw", None)).status_code == 200
        await send_raw(owner, pdf(3 * CHUNK))  # named by nothing yet

    @property
    def login(self) -> str:
        return f"login-{self.owner.patient}".lower()

    async def places(self, text: str) -> set[str]:
        """The collections in which this stands, and is no part of what is sealed."""
        found = set()
        where = {"$or": [{"bucket": self.owner.patient[:3]}, {"bucket": {"$exists": False}}]}
        for name in await self.world.gateway.mongo.collections():
            documents = await self.world.stored(name, **where)
            if any(text in repr(one) for one in documents):
                found.add(name)
        return found


@pytest.fixture
async def life(world: World) -> Life:
    owner = await world.patient(name=[{"text": SECRET}], identifier=[{"system": "urn:numbers", "value": unique("nss")}])
    changed = (await owner.get(f"Patient/{owner.patient}")).json()
    await world.operator.put(f"Patient/{owner.patient}", {**changed, "birthDate": "1950-01-01"})
    found = Life(world, owner, await world.professional())
    await found.live()
    return found


async def check_nothing_is_left(life: Life) -> None:
    owner, world = life.owner, life.world
    assert await life.places(SECRET) == set()
    assert await life.places(owner.patient) <= KEPT
    (key,) = await world.stored("patient_keys", _id=owner.patient)
    assert key.keys() == {"_id", "bucket", "destroyed"}
    for actor in (owner, life.proxy):
        assert (await actor.get(f"Patient/{owner.patient}")).status_code == 401
    assert await world.stored("accounts", _id=life.login) == []


async def test_nothing_of_it_can_be_read_in_any_collection(world: World, life: Life) -> None:
    other = await world.patient()
    _, raw = await deposited(other, other.patient, pdf())
    neighbour = {name: await world.stored(name, patient=other.patient) for name in ("DocumentReference", "Binary", "contents")}
    assert {"Patient", "DocumentReference", "DocumentReference_history", "accounts"} <= await life.places(SECRET)
    erased = await erase_patient(world.gateway, life.owner.patient, "olga")
    assert erased["Patient"] == erased["heads"] == 1
    assert erased["contents"] >= 4
    await check_nothing_is_left(life)
    assert neighbour == {name: await world.stored(name, patient=other.patient) for name in neighbour}
    assert (await other.get(raw)).status_code == 200


async def test_to_everybody_it_is_as_if_it_had_never_been(world: World, life: Life) -> None:
    owner = life.owner
    await erase_patient(world.gateway, owner.patient, "olga")
    ghost = world.gateway.ids.new(owner.patient[:3])
    for path in ("Patient/{}", "Observation?patient={}", "Patient?_id={}"):
        answers = [await life.doctor.get(path.format(one)) for one in (owner.patient, ghost)]
        assert answers[0].status_code == answers[1].status_code
        assert answers[0].text.replace(owner.patient, ghost).split('"meta"')[0] == answers[1].text.split('"meta"')[0]
    for raw in (life.raw, life.wrong):
        assert (await life.doctor.get(raw)).status_code == 404
    for body in (document(owner.patient), observation(owner.patient)):
        answer = await life.doctor.post(str(body["resourceType"]), body)
        assert (answer.status_code, expression(answer)) == (422, f"{body['resourceType']}.subject")
    sent = await send_raw(life.doctor, pdf(), X_Security_Context=f"Patient/{owner.patient}")
    assert sent.status_code == 422
    with pytest.raises(Problem, match="no such patient"):
        await erase_patient(world.gateway, owner.patient, "olga")


async def test_the_audit_says_who_erased_it_and_keeps_its_chain(world: World, life: Life) -> None:
    before = len(await world.stored("AuditEvent", patient=life.owner.patient))
    await erase_patient(world.gateway, life.owner.patient, "olga")
    events = await world.stored("AuditEvent", patient=life.owner.patient)
    assert len(events) == before + 1
    (erasure,) = [one["event"] for one in events if one["event"]["interaction"] == "$erase"]
    assert (erasure["client"], erasure["kind"], erasure["outcome"]) == ("olga", "operator", "0")


async def test_of_every_collection_it_is_known_whether_it_is_erased(
    world: World, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds one decides what becomes of it here."""
    looked_at: set[str] = set()
    delete = world.gateway.mongo.delete

    async def watched(collection: str, where: dict[str, Any]) -> int:
        looked_at.add(collection)
        return await delete(collection, where)

    monkeypatch.setattr(world.gateway.mongo, "delete", watched)
    await erase_patient(world.gateway, life.owner.patient, "olga")
    registry = world.gateway.registry
    nobodys = {kind.name for kind in registry.resource_types.values() if not kind.in_compartment}
    of_service = {"catalogue", "signing_keys", "assertions", "logins", *nobodys, *(f"{name}_history" for name in nobodys)}
    assert set(required_collections(registry)) - looked_at == KEPT | of_service | {"AuditEvent_history"}


@pytest.mark.parametrize("deletions", [0, 5, 20])
async def test_one_that_breaks_off_is_ended_by_the_next(
    world: World, life: Life, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    left = iter(range(deletions))
    delete = world.gateway.mongo.delete

    async def failing(collection: str, where: dict[str, Any]) -> int:
        if next(left, None) is None:
            raise ConnectionResetError
        return await delete(collection, where)

    with monkeypatch.context() as broken:
        broken.setattr(world.gateway.mongo, "delete", failing)
        with pytest.raises(ConnectionResetError):
            await erase_patient(world.gateway, life.owner.patient, "olga")
    assert (await life.owner.get(life.raw)).status_code in (401, 404, 410)
    await erase_patient(world.gateway, life.owner.patient, "olga")
    await check_nothing_is_left(life)


async def test_one_of_several_records_of_a_person_is_not_erased_alone(world: World) -> None:
    one, other = await world.patient(), await world.patient()
    patients = [(await world.operator.get(f"Patient/{a.patient}")).json() for a in (one, other)]
    links = [{"other": {"reference": f"Patient/{a.patient}"}} for a in (other, one)]
    survivor = {**patients[0], "identifier": [*patients[0]["identifier"], *patients[1]["identifier"]]}
    entries = [
        {**survivor, "link": [{**links[0], "type": "replaces"}]},
        {**patients[1], "active": False, "link": [{**links[1], "type": "replaced-by"}]},
    ]
    sent = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [{"resource": r, "request": {"method": "PUT", "url": f"Patient/{r['id']}"}} for r in entries],
    }
    answer = await world.operator.post("", sent)
    assert answer.status_code == 200, answer.text
    for actor in (one, other):
        with pytest.raises(Problem, match="merged with others"):
            await erase_patient(world.gateway, actor.patient, "olga")
        assert await world.stored("Patient", _id=actor.patient)


async def test_what_was_withdrawn_is_opened_by_an_operator_and_that_is_in_the_log(world: World, life: Life) -> None:
    found = await open_withdrawn(world.gateway, life.wrong, "olga")
    assert {one["said"]["resourceType"] for one in found} == {"DocumentReference", "Binary"}
    assert SECRET in json.dumps(found, ensure_ascii=False)
    (event,) = [
        e["event"] for e in await world.stored("AuditEvent", patient=life.owner.patient) if e["event"]["client"] == "olga"
    ]
    assert (event["interaction"], event["kind"], life.wrong in event["entities"]) == ("read", "operator", True)
    with pytest.raises(Problem, match="nothing of this name"):
        await open_withdrawn(world.gateway, life.raw, "olga")


def test_it_is_a_command_that_wants_the_id_twice(prepared: dict[str, str]) -> None:
    token = run("token", "issue", "--client", "ops", "--kind", "operator", "--scope", "system/*.cruds", env=prepared)
    assert token.returncode == 0
    wrong = run("erase-patient", "abc-x", "--operator", "olga", "--confirm", "abc-y", env=prepared)
    assert (wrong.returncode, wrong.stderr) == (1, "gateway: that is not the id: nothing was erased\n")
    nobody = run("erase-patient", "abc-x", "--operator", "olga", env=prepared, given="abc-x\n")
    assert (nobody.returncode, nobody.stderr) == (1, "gateway: there is no such patient here\n")
    nothing = run("withdrawn", "DocumentReference/abc-x", "--operator", "olga", env=prepared)
    assert (nothing.returncode, nothing.stderr) == (1, "gateway: nothing of this name was withdrawn\n")


async def test_the_command_tells_what_is_gone_and_what_is_kept(world: World, mongo_url: str) -> None:
    owner, settings = await world.patient(name=[{"text": SECRET}]), world.gateway.settings
    changes = {"GATEWAY_MONGO_DATABASE": settings.mongo_database, "GATEWAY_SECRET": settings.secret}
    command = ("erase-patient", owner.patient, "--operator", "olga", "--confirm", owner.patient)
    ended = await asyncio.to_thread(run, *command, env=environment(mongo_url, **changes))
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert "erased        1  Patient" in lines
    assert any(line.startswith("kept    AuditEvent: ") for line in lines)
    assert SECRET not in ended.stdout
    assert (await owner.get(f"Patient/{owner.patient}")).status_code == 401
