"""The partner face: what a paired app may send, what it is told that is wrong with it, and who it has to be."""

import copy
import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.oauth.id_token import IdTokens
from gateway.oauth.keys import AFTER_USE, BEFORE_USE, SigningKeys
from tests.decisions import register_app
from tests.world import LOINC, UCUM, Actor, World, concept, issues, observation, unique

Resource = dict[str, Any]
FACE = "http://gateway.test/mesures"
OID, PATIENTS = "1.2.250.1.999.1.1", "1.2.250.1.999.1.2"
BLOOD = "https://fhir.monespacesante.fr/ref/mesure/StructureDefinition/mes-observation-glucose"
WEIGHT = "https://fhir.monespacesante.fr/ref/mesure/StructureDefinition/mes-observation-bodyweight"
OLD_PROFILE = "http://esante.gouv.fr/ci-sis/fhir/StructureDefinition/ENS_Measure"
EXTENSIONS = "https://interop.esante.gouv.fr/ig/fhir/mesures/StructureDefinition/"
VITAL_SIGNS = concept("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs")
LEGACY = "https://mos.esante.gouv.fr/NOS/TRE_R308-TAASIP/FHIR/TRE-R308-TAASIP"
SMT = "https://smt.esante.gouv.fr/fhir/CodeSystem/terminologie-cisis"


@dataclass
class Phone:
    """A paired app: its token, and the name by which it knows its patient."""

    actor: Actor
    idpe: str
    id_token: str
    client: str

    def subject(self) -> Resource:
        return {"identifier": {"system": f"urn:oid:{PATIENTS}", "value": self.idpe}}

    async def push(self, body: Any, **headers: str) -> Any:
        return await self.actor.post(FACE, body, **headers)

    async def get(self, query: str, **headers: str) -> Any:
        return await self.actor.get(f"{FACE}/Observation?subject.identifier={PATIENTS}%7C{self.idpe}&{query}", **headers)


@pytest.fixture
async def camille(world: World) -> Actor:
    return await world.patient(birthDate="1980-02-01")


async def pair(world: World, owner: Actor, *actions: str, scope: str = "patient/Observation.crs patient/Device.crs") -> Phone:
    """An app of the catalogue on the phone of a patient, who permits it these."""
    app = await register_app(world, oid=OID, patients_oid=PATIENTS)
    actor = await world.actor("app", scope, app.id, app.client.actor, patient=owner.patient)
    for action in actions:
        await world.consent(owner, actor, action, ["Observation", "Device"])
    return Phone(actor, *(await names(world, app.id, owner)), app.id)


async def names(world: World, client: str, owner: Actor, oid: str | None = OID) -> tuple[str, str]:
    """The idPe of a patient for a client, and the id_token that says so."""
    tokens = IdTokens(world.gateway.settings)
    keys = SigningKeys(world.gateway.mongo, world.gateway.sealer, world.clock)
    now = world.clock()
    approval = {"client": client, "kind": "app", "patient": owner.patient, "user": owner.reference, "plain": ["openid"]}
    more = {"logged_in": now, "level": "urn:example:1", "nonce": None}
    return tokens.subject(approval), tokens.make(await keys.signing(), approval | more, now, oid)


@pytest.fixture
async def phone(world: World, camille: Actor) -> Phone:
    return await pair(world, camille, "collect", "access")


def extension(name: str, system: str, code: str) -> Resource:
    return {"url": f"{EXTENSIONS}mesures-{name}", "valueCodeableConcept": concept(system, code)}


FASTING = extension("moment-of-measurement", "https://mos.esante.gouv.fr/NOS/TRE_A04-Loinc/FHIR/TRE-A04-Loinc", "53049-3")
TWO_WEEKS = extension("number-of-days", SMT, "GEN-276")


def measure(of: Phone, code: Resource, value: float, unit: str, profile: str = WEIGHT, **elements: Any) -> Resource:
    return {
        "resourceType": "Observation",
        "meta": {"profile": [profile]},
        "status": "final",
        "category": [VITAL_SIGNS],
        "code": code,
        "subject": of.subject(),
        "effectiveDateTime": "2026-11-20T07:45:00+01:00",
        "valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit},
        **elements,
    }


def weight(of: Phone, value: float = 71, **elements: Any) -> Resource:
    return measure(of, concept(LOINC, "29463-7"), value, "kg", **elements)


def blood(of: Phone, value: float = 112, **elements: Any) -> Resource:
    return measure(of, concept(LOINC, "2345-7"), value, "mg/dL", BLOOD, **{"extension": [FASTING]} | elements)


def mean(of: Phone, code: Resource, value: float = 148, **elements: Any) -> Resource:
    return measure(of, code, value, "mg/dL", BLOOD, **{"extension": [TWO_WEEKS]} | elements)


def scale(name: str) -> Resource:
    return {
        "resourceType": "Device",
        "id": "3bc44de3-069d-442d-829b-f3ef68cae371",
        "meta": {"profile": ["http://hl7.org/fhir/uv/phd/StructureDefinition/PhdDevice"]},
        "identifier": [{"system": f"urn:oid:{OID}.8", "value": name}],
        "manufacturer": "EXAMPLE",
        "type": concept("urn:iso:std:iso:11073:10101", "65573"),
    }


def sent(resource: Resource, device: str | None = None) -> Resource:
    """The Bundle: an Observation, and the Device of this name."""
    found = [{"fullUrl": unique("5138af77"), "resource": resource, "request": {"method": "POST", "url": "Observation"}}]
    if device is not None:
        resource["device"] = {"reference": f"Device/{scale(device)['id']}"}
        condition = f"identifier=urn:oid:{OID}.8|{device}"
        found.append({"resource": scale(device), "request": {"method": "POST", "url": "Device", "ifNoneExist": condition}})
    return {"resourceType": "Bundle", "type": "transaction", "entry": found}


def told(answer: Any) -> tuple[int, str, str]:
    (issue,) = issues(answer)
    assert issue["expression"]
    return answer.status_code, issue["code"], issue["diagnostics"]


def statuses(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == "transaction-response"
    return [entry["response"]["status"] for entry in answer.json()["entry"]]


def place(answer: Any, position: int = 0) -> str:
    return str(answer.json()["entry"][position]["response"]["location"])


@pytest.mark.requirement("MES-03", "MES-11")
async def test_a_measure_with_its_device_is_stored_once(world: World, camille: Actor, phone: Phone) -> None:
    device = unique("CG")
    first = await phone.push(sent(weight(phone), device))
    assert statuses(first) == ["201 Created", "201 Created"]
    assert [place(first, n).partition("/")[0] for n in range(2)] == ["Observation", "Device"]
    again = await phone.push(sent(weight(phone), device))
    assert statuses(again) == ["200 OK", "200 OK"]
    assert [place(again, n) for n in range(2)] == [place(first, n) for n in range(2)]
    later = sent(weight(phone, effectiveDateTime="2026-11-21T07:45:00+01:00"), device)
    later["entry"].reverse()
    other = await phone.push(later)
    assert (statuses(other), place(other, 0)) == (["200 OK", "201 Created"], place(first, 1))
    stored = (await camille.get(place(first))).json()
    assert stored["device"]["reference"] == place(first, 1)
    assert stored["subject"] == {"reference": f"Patient/{camille.patient}"}
    assert stored["meta"]["source"] == f"urn:oid:{OID}"
    assert len(await world.stored("Observation", patient=camille.patient)) == 2


@pytest.mark.requirement("MES-11")
async def test_a_measure_without_device_is_stored_once_and_can_be_corrected(camille: Actor, phone: Phone) -> None:
    first = await phone.push(sent(weight(phone, 71)))
    again = await phone.push(sent(weight(phone, 71)))
    assert (statuses(first), statuses(again), place(again)) == (["201 Created"], ["200 OK"], place(first))
    corrected = await phone.push(sent(weight(phone, 70.5)))
    assert (statuses(corrected), place(corrected)) == (["200 OK"], place(first))
    stored = (await camille.get(place(first))).json()
    assert (stored["valueQuantity"]["value"], stored["meta"]["versionId"]) == (70.5, "2")
    utc = await phone.push(sent(weight(phone, 70.5, effectiveDateTime="2026-11-20T06:45:00Z")))
    assert place(utc) == place(first)


async def test_an_idempotency_key_answers_again(phone: Phone) -> None:
    body = sent(weight(phone))
    first, again = [await phone.push(body, Idempotency_Key="m-1") for _ in range(2)]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (statuses(first), again.json()) == (["201 Created"], first.json())


@pytest.mark.requirement("MES-01", "MES-02")
async def test_the_official_table_of_errors_and_the_valid_files(world: World, camille: Actor, specifications: Path) -> None:
    folder = specifications / "ans-mesures" / "derived"
    table = {case["file"]: case for case in json.loads((folder / "invalid" / "error-table.json").read_text("utf-8"))["cases"]}
    phone = await pair(world, camille, "collect")
    files = [file for file in sorted((folder / "invalid").glob("*.json")) if file.name in table]
    assert len(files) > 10
    before = await world.fingerprint()
    for file in files:
        answer = await phone.push(_of(phone, file.read_text("utf-8")))
        case, issue = table[file.name], issues(answer)[0]
        assert answer.status_code == case["http"], file.name
        assert case["issueCode"] in (None, issue["code"]), file.name
        assert case["diagnostics"] in (None, issue["diagnostics"]), file.name
    assert await world.fingerprint() == before
    valid = sorted((folder / "valid").glob("*.json"))
    assert len(valid) > 5
    for file in valid:
        answer = await phone.push(_of(phone, file.read_text("utf-8")))
        assert statuses(answer)[0] == "201 Created", file.name


def _of(phone: Phone, text: str) -> Resource:
    found: Resource = json.loads(text.replace("idPe-0001", phone.idpe))
    return found


def _without(resource: Resource, *path: str) -> Resource:
    found = copy.deepcopy(resource)
    at = found
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    return found


@pytest.mark.requirement("MES-01", "MES-02", "MES-09", "MES-10")
async def test_what_is_wrong_with_a_measure_is_told_in_the_words_of_the_api(world: World, phone: Phone) -> None:
    bp = measure(phone, concept(LOINC, "85354-9"), 1, "mm[Hg]")
    igg = measure(phone, concept(SMT, "MED-972"), 6.9, "%", BLOOD, extension=[TWO_WEEKS])
    hba1c = measure(phone, concept(LOINC, "4548-4"), 6.5, "%", BLOOD)
    before = await world.fingerprint()
    for body, status, code, text in [
        (_without(blood(phone), "extension"), 422, "incomplete", "Observation.extension.moment is mandatory."),
        (blood(phone, extension=[FASTING, TWO_WEEKS]), 422, "invalid", "Observation.extension.numberOfDays cannot be added."),
        (_without(mean(phone, concept(LOINC, "99504-3")), "extension"), 422, "incomplete", DAYS_MISSING),
        (_without(mean(phone, concept(LEGACY, "MED-969")), "extension"), 422, "incomplete", DAYS_MISSING),
        (mean(phone, concept(LOINC, "99504-3"), extension=[TWO_WEEKS, FASTING]), 422, "invalid", NO_MOMENT),
        ({**hba1c, "extension": [FASTING]}, 422, "invalid", NO_MOMENT),
        ({**igg, "extension": [TWO_WEEKS, FASTING]}, 422, "invalid", NO_MOMENT),
        (_without(igg, "extension"), 422, "incomplete", DAYS_MISSING),
        (_without(weight(phone), "valueQuantity"), 422, "value", "Observation value quantity not provided."),
        (_without(weight(phone), "meta"), 422, "invalid", "Observation must provide meta.profile value."),
        (_without(weight(phone), "subject"), 422, "invalid", "Observation.subject.identifier is mandatory."),
        (_without(weight(phone), "category"), 422, "invalid", "Observation.category must be vital-signs."),
        (_without(weight(phone), "effectiveDateTime"), 422, "invalid", "Observation.effectiveDateTime is mandatory."),
        (measure(phone, concept(LOINC, "39156-5"), 22, "kg/m2"), 422, "not-supported", "Bmi observation cannot be created."),
        (measure(phone, concept(LOINC, "718-7"), 22, "g/dL"), 422, "value", "Observation.code is not one of the measures."),
        ({**hba1c, "valueQuantity": weight(phone)["valueQuantity"]}, 422, "value", None),
        (bp, 422, "invalid", "Observation.value cannot be added: this measure has components."),
        ({**weight(phone), "meta": {"profile": [WEIGHT], "source": "urn:oid:1.2.250.1.99"}}, 422, "value", SOURCE),
        ({**weight(phone), "meta": {"profile": [WEIGHT], "source": f"urn:oid:{OID}1"}}, 422, "value", SOURCE),
    ]:
        answer = await phone.push(sent(body))
        first = issues(answer)[0]
        assert (answer.status_code, first["code"]) == (status, code), body
        assert text in (None, first["diagnostics"]), first
    assert await world.fingerprint() == before


DAYS_MISSING = "Observation.extension.numberOfDays is mandatory."
NO_MOMENT = "Observation.extension.moment cannot be added."
SOURCE = f"Solution oid contains in Observation.meta.source don't belong to root editor oid ({OID})."
NOT_LINKED = "Observation and device not linked by id (Observation.device.reference <-> Device.id)"
CONDITION = "Device request must have a valid IfNoneExist attribute : identifier=urn:oid:<OID>|<DEVICE ID>"


@pytest.mark.requirement("MES-01", "MES-03")
async def test_what_is_wrong_with_the_bundle(world: World, phone: Phone) -> None:
    whole = sent(weight(phone), "CG-1")
    before = await world.fingerprint()

    def changed(position: int, part: str, **elements: Any) -> Resource:
        found = copy.deepcopy(whole)
        at = found["entry"][position][part]
        at.update(elements)
        for name in [name for name, value in elements.items() if value is None]:
            del at[name]
        return found

    patient = {"resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}}
    one = "Bundle must contains one observation creation (POST)"
    for body, code, text in [
        (changed(0, "request", method="PUT", url="Observation/abc"), "not-supported", "<Observation>…<PUT>"),
        (changed(1, "request", method="DELETE"), "not-supported", "<Device>…<DELETE>"),
        ({**whole, "entry": [*whole["entry"], patient]}, "not-supported", "<Patient>…<POST>"),
        ({**whole, "entry": whole["entry"][1:]}, "invalid", one),
        ({**whole, "entry": [whole["entry"][0], {**whole["entry"][0], "fullUrl": "urn:x:y"}]}, "invalid", one),
        (_without(whole, "entry"), "invalid", one),
        (changed(1, "request", ifNoneExist=None), "invalid", CONDITION),
        (changed(1, "request", ifNoneExist="serial=1234"), "invalid", CONDITION),
        (changed(1, "request", ifNoneExist="identifier=urn:oid:1.2|other"), "invalid", CONDITION),
        (changed(0, "resource", device=None), "invalid", "Observation.device.reference is mandatory."),
        (changed(1, "resource", id="another"), "invalid", NOT_LINKED),
        ({**whole, "entry": whole["entry"][:1]}, "invalid", NOT_LINKED),
        (changed(1, "resource", meta=None), "invalid", "Device must provide meta.profile value."),
        ({**whole, "type": "batch"}, "invalid", "the Bundle is of type transaction"),
    ]:
        if "…" in text:
            text = "Resource of type {} is not acceptable with method {}.".format(*text.split("…"))
        assert told(await phone.push(body)) == (422, code, text)
    for nothing in (b"", {"resourceType": "Observation"}):
        assert told(await phone.push(nothing)) == (400, "invalid", "No bundle provided.")
    assert await world.fingerprint() == before


@pytest.mark.requirement("MES-04")
async def test_the_source_is_the_solution(camille: Actor, phone: Phone) -> None:
    for day, source in enumerate((None, f"urn:oid:{OID}", f"urn:oid:{OID}.7"), start=10):
        meta = {"profile": [WEIGHT], **({"source": source} if source else {})}
        answer = await phone.push(sent(weight(phone, meta=meta, effectiveDateTime=f"2026-11-{day}T08:00:00+01:00")))
        stored = (await camille.get(place(answer))).json()
        assert stored["meta"]["source"] == (source or f"urn:oid:{OID}")


async def test_all_measures_are_taken(phone: Phone) -> None:
    rows = [
        ("29463-7", 71, "kg"),
        ("8302-2", 172, "cm"),
        ("8280-0", 90, "cm"),
        ("8287-5", 51.5, "cm"),
        ("8310-5", 37.2, "Cel"),
        ("8867-4", 61, "/min"),
        ("41950-7", 8_000, "1/(24.h)"),
        ("72514-3", 3, "1"),
        ("4548-4", 6.5, "%"),
    ]
    for code, value, unit in rows:
        one = measure(phone, concept(LOINC, code), value, unit, OLD_PROFILE)
        assert statuses(await phone.push(sent(one))) == ["201 Created"], code
    parts = [{"code": concept(LOINC, c), "valueQuantity": _pressure(v)} for c, v in (("8480-6", 120), ("8462-4", 60))]
    bp = _without(measure(phone, concept(LOINC, "85354-9"), 0, "-", OLD_PROFILE), "valueQuantity") | {"component": parts}
    assert statuses(await phone.push(sent(bp))) == ["201 Created"]
    answer = await phone.push(sent({**bp, "effectiveDateTime": "2026-11-19T08:00:00Z", "component": parts[:1]}))
    assert told(answer) == (422, "value", "Observation value quantity not provided.")


def _pressure(value: float) -> Resource:
    return {"value": value, "unit": "mm[Hg]", "system": UCUM, "code": "mm[Hg]"}


@pytest.mark.requirement("MES-05")
async def test_tokens_that_do_not_go_together(world: World, camille: Actor, phone: Phone) -> None:
    body = sent(weight(phone))
    assert statuses(await phone.push(body, Id_Token=phone.id_token)) == ["201 Created"]
    invalid = "HTTP code 400 : Bad request -> The ID_TOKEN value is not valid (invalid JWT)"
    head, claims, _ = phone.id_token.split(".")
    _, of_another_app = await names(world, "another", camille)
    for wrong in ("x", "a.b.c", f"{head}.{claims}.AAAA", of_another_app, "x" * 9_000):
        assert told(await phone.push(body, Id_Token=wrong)) == (400, "invalid", invalid)
    _, of_another_oid = await names(world, phone.client, camille, "1.2.3")
    status, code, text = told(await phone.push(body, Id_Token=of_another_oid))
    assert (status, code) == (409, "conflict")
    assert text.startswith("HTTP code 409 :OID conflict between the one from id_token and the one in the system")
    other = await world.patient()
    idpe, of_somebody_else = await names(world, phone.client, other)
    refusal = (403, "forbidden", "idPe requested do not match authorized idPe.")
    assert told(await phone.push(body, Id_Token=of_somebody_else)) == refusal
    for subject in ({"system": f"urn:oid:{PATIENTS}", "value": idpe}, {"system": "urn:oid:1.2.3", "value": phone.idpe}):
        assert told(await phone.push(sent(weight(phone, subject={"identifier": subject})))) == refusal
    wrong_token = await world.http.post(FACE, json=body, headers={"Authorization": "Bearer nobody"})
    assert wrong_token.status_code == 401
    world.clock.ahead = timedelta(days=2)  # what it says is still true when its time is over
    assert statuses(await phone.push(body, Id_Token=phone.id_token)) == ["200 OK"]


@pytest.mark.requirement("MES-05", "SEC-026")
async def test_an_id_token_counts_as_long_as_the_key_that_signed_it_is_published(world: World, phone: Phone) -> None:
    body = sent(weight(phone))
    keys = SigningKeys(world.gateway.mongo, world.gateway.sealer, world.clock)
    first = (await keys.signing()).id
    assert statuses(await phone.push(body, Id_Token=phone.id_token)) == ["201 Created"]
    await keys.rotate()
    for ahead in (timedelta(minutes=2), BEFORE_USE + timedelta(minutes=2), BEFORE_USE + AFTER_USE - timedelta(minutes=2)):
        world.clock.ahead = ahead
        assert statuses(await phone.push(body, Id_Token=phone.id_token)) == ["200 OK"]
    assert (await keys.signing()).id != first
    world.clock.ahead = BEFORE_USE + AFTER_USE + timedelta(minutes=2)
    assert told(await phone.push(body, Id_Token=phone.id_token))[0] == 400
    again = await world.patient_actor(phone.actor.patient)
    _, renewed = await names(world, phone.client, again)
    assert statuses(await phone.push(body, Id_Token=renewed)) == ["200 OK"]


async def test_an_id_token_by_a_key_that_another_process_has_just_made_counts_at_once(world: World, phone: Phone) -> None:
    body = sent(weight(phone))
    assert statuses(await phone.push(body, Id_Token=phone.id_token)) == ["201 Created"]  # (the keys are remembered now)
    world.clock.ahead = timedelta(seconds=2)
    await SigningKeys(world.gateway.mongo, world.gateway.sealer, world.clock).rotate(compromised=True)
    _, renewed = await names(world, phone.client, await world.patient_actor(phone.actor.patient))
    assert statuses(await phone.push(body, Id_Token=renewed)) == ["200 OK"]


async def test_only_paired_apps_with_an_oid_are_served(world: World, camille: Actor, phone: Phone) -> None:
    body = sent(weight(phone))
    unlisted = await world.app(camille)
    doctor = await world.professional()
    for actor in (camille, unlisted, doctor):
        answer = await actor.post(FACE, body)
        assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden")
    assert (await phone.actor.put(f"{FACE}/Observation/abc", weight(phone))).status_code in (404, 405)
    assert (await phone.actor.put(FACE, body)).status_code == 405


@pytest.mark.requirement("MES-06")
async def test_writing_is_agreed_to_by_itself_and_taken_back_at_once(world: World, camille: Actor) -> None:
    refusal = (403, "forbidden", "Consent not given, access refused.")
    reader = await pair(world, camille, "access")
    assert told(await reader.push(sent(weight(reader)))) == refusal
    writer = await pair(world, camille)
    given = await world.consent(camille, writer.actor, "collect", ["Observation", "Device"])
    assert statuses(await writer.push(sent(weight(writer)))) == ["201 Created"]
    await world.revoke(camille, given)
    assert told(await writer.push(sent(weight(writer, 72)))) == refusal
    narrow = await pair(world, camille, "collect", scope="patient/Observation.rs")
    assert told(await narrow.push(sent(weight(narrow)))) == refusal
    refusals = [event for event in await camille.search("AuditEvent?_count=20") if event["outcome"] != "0"]
    assert len(refusals) == 3


async def test_readings_of_a_person_are_seen_by_all_who_may(world: World, camille: Actor, phone: Phone) -> None:
    await phone.push(sent(weight(phone, 71)))
    (found,) = await camille.search(f"Observation?patient={camille.patient}&code={LOINC}%7C29463-7")
    assert phone.idpe not in json.dumps(found)
    await camille.create(observation(camille.patient))
