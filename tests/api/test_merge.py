"""Merged Patients: one person under several ids, found under any of them, with every denial of every record in force."""

from typing import Any

import pytest

from tests.world import (
    Actor,
    World,
    bundle,
    concept,
    consent,
    entry,
    expression,
    issues,
    label,
    observation,
    patient,
    related_person,
)

READ = ["Observation", "Patient"]


def linked(resource: dict[str, Any], *links: tuple[str, str], **elements: Any) -> dict[str, Any]:
    """A Patient with these links in place of those it has."""
    kept = {name: value for name, value in resource.items() if name != "link"} | elements
    found = [{"other": {"reference": f"Patient/{other}"}, "type": kind} for other, kind in links]
    return kept | ({"link": found} if found else {})


def updates(*resources: dict[str, Any]) -> dict[str, Any]:
    return bundle("transaction", *(entry("PUT", f"Patient/{one['id']}", one) for one in resources))


async def own(operator: Actor, identifier: str) -> dict[str, Any]:
    """A Patient as it stands itself, whatever took its place."""
    history = await operator.get(f"Patient/{identifier}/_history")
    return dict(history.json()["entry"][0]["resource"])


async def merge(world: World, survivor: str, *replaced: str) -> None:
    """Put the survivor in place of the others, as an operator does."""
    others = [await own(world.operator, one) for one in replaced]
    kept = await own(world.operator, survivor)
    kept["identifier"] += [identifier | {"use": "old"} for one in others for identifier in one["identifier"]]
    others = [linked(one, (survivor, "replaced-by"), active=False) for one in others]
    answer = await world.operator.post("", updates(linked(kept, *((one, "replaces") for one in replaced)), *others))
    assert answer.status_code == 200, answer.text


@pytest.fixture
async def old(world: World) -> Actor:
    return await world.patient(gender="female")


@pytest.fixture
async def new(world: World) -> Actor:
    return await world.patient(gender="other")


async def ids(actor: Actor, path: str) -> set[str]:
    return {one["id"] for one in await actor.search(path)}


async def test_the_old_id_answers_with_the_new_one_on_read_and_search(world: World, old: Actor, new: Actor) -> None:
    before = (await world.operator.get(f"Patient/{old.patient}")).json()
    await merge(world, new.patient, old.patient)
    for actor in (world.operator, old, new):
        answer = await actor.get(f"Patient/{old.patient}")
        assert (answer.status_code, answer.json()["id"]) == (200, new.patient)
        assert answer.json()["link"] == [{"other": {"reference": f"Patient/{old.patient}"}, "type": "replaces"}]
        assert answer.headers["etag"] == (await actor.get(f"Patient/{new.patient}")).headers["etag"]
        assert (await actor.get(f"Patient/{old.patient}", If_None_Match=answer.headers["etag"])).status_code == 304
        assert await ids(actor, f"Patient?_id={old.patient}") == {new.patient}
    token = "{system}|{value}".format(**before["identifier"][0])
    assert await ids(world.operator, f"Patient?identifier={token}") == {new.patient}
    found = (await world.operator.post("", bundle("batch", entry("GET", f"Patient/{old.patient}")))).json()["entry"][0]
    assert found["resource"]["id"] == new.patient
    first = await world.operator.get(f"Patient/{old.patient}/_history/1")
    assert (first.status_code, first.json()) == (200, before)


@pytest.mark.parametrize("other", ["first", "second"])
async def test_data_is_found_under_every_id_and_stays_where_it_is(world: World, old: Actor, new: Actor, other: str) -> None:
    earlier = await old.create(observation(old.patient, effectiveDateTime="2026-11-01T08:00:00Z"))
    long = {"effectivePeriod": {"start": "2026-10-01", "end": "2026-11-05"}, "effectiveDateTime": None}
    wide = await old.create({name: v for name, v in observation(old.patient, **long).items() if v is not None})
    later = await new.create(observation(new.patient, effectiveDateTime="2026-11-02T08:00:00Z"))
    await merge(world, new.patient, old.patient)
    latest = await new.create(observation(new.patient, effectiveDateTime="2026-11-03T08:00:00Z"))
    actor = {"first": old, "second": new}[other]
    every = [latest["id"], later["id"], earlier["id"], wide["id"]]
    for patient_id in (old.patient, new.patient):
        assert [one["id"] for one in await actor.search(f"Observation?patient={patient_id}&_sort=-date")] == every
        assert (await actor.get(f"Observation?patient={patient_id}&_summary=count")).json()["total"] == 4
        near = f"Observation?subject=Patient/{patient_id}&date=ge2026-11-01&date=lt2026-11-03"
        assert await ids(actor, near) == {later["id"], earlier["id"], wide["id"]}
        page = (await actor.get(f"Observation?patient={patient_id}&_count=3&_sort=-date")).json()
        rest = await actor.search(next(link["url"] for link in page["link"] if link["relation"] == "next"))
        assert [one["id"] for one in rest] == every[3:]
        back = await actor.search(f"Patient?_id={patient_id}&_revinclude=Observation:subject")
        assert {one["id"] for one in back} == {new.patient, *every}
    assert await ids(actor, "Observation") == {*every}
    stored = (await actor.get(f"Observation/{earlier['id']}")).json()
    assert stored == earlier
    assert {one["action"] for one in await actor.search("AuditEvent?_count=50")} >= {"C", "R", "U", "E"}


@pytest.mark.parametrize("denying", ["old", "new"])
@pytest.mark.parametrize("what", [{"securityLabel": [label("M")]}, {"code": [concept("http://loinc.org", "1-8")]}, {}])
async def test_a_denial_of_one_record_holds_in_all(
    world: World, old: Actor, new: Actor, denying: str, what: dict[str, Any]
) -> None:
    service = await world.service()
    denier, other = (old, new) if denying == "old" else (new, old)
    hit = {"meta": {"security": [label("M")]}} if "securityLabel" in what else {"code": concept("http://loinc.org", "1-8")}
    hidden = {(await owner.create(observation(owner.patient, **hit)))["id"] for owner in (old, new)}
    plain = set() if not what else {(await owner.create(observation(owner.patient)))["id"] for owner in (old, new)}
    for owner in (old, new):
        await world.consent(owner, service, types=READ)
    mask = await denier.create(consent(denier, service, type="deny", **what))
    await merge(world, new.patient, old.patient)
    for patient_id in (old.patient, new.patient):
        assert await ids(service, f"Observation?patient={patient_id}") == plain
        assert (await service.get(f"Observation?patient={patient_id}&_summary=count")).json()["total"] == len(plain)
        assert (await service.get(f"Patient/{patient_id}")).status_code == (200 if "securityLabel" in what else 404)
    for identifier in hidden:
        assert (await service.get(f"Observation/{identifier}")).status_code == 404
    await world.revoke(denier, mask)
    assert await ids(service, f"Observation?patient={other.patient}") == plain | hidden


@pytest.mark.parametrize("denying", ["old", "new"])
async def test_who_is_denied_writing_in_one_record_writes_in_none(world: World, old: Actor, new: Actor, denying: str) -> None:
    doctor, other = await world.professional(), await world.professional()
    known = await doctor.create(observation(new.patient))
    denier = {"old": old, "new": new}[denying]
    denial = await denier.create(consent(denier, doctor, "collect", type="deny"))
    await merge(world, new.patient, old.patient)
    body = observation(new.patient)
    for answer in (
        await doctor.post("Observation", body),
        await doctor.post("", bundle("transaction", entry("POST", "Observation", body))),
        await doctor.put(f"Observation/{known['id']}", known),
    ):
        assert (answer.status_code, issues(answer)[0]["code"]) == (422, "not-found"), answer.text
    assert (await other.post("Observation", body)).status_code == 201
    await world.revoke(denier, denial)
    assert (await doctor.post("Observation", observation(new.patient))).status_code == 201


async def test_a_permit_of_one_record_opens_that_one_alone(world: World, old: Actor, new: Actor) -> None:
    service = await world.service()
    in_old, in_new = await old.create(observation(old.patient)), await new.create(observation(new.patient))
    await world.consent(old, service, types=READ)
    await merge(world, new.patient, old.patient)
    assert await ids(service, f"Observation?patient={old.patient}") == {in_old["id"]}
    assert await ids(service, f"Observation?patient={new.patient}") == set()  # which tells them of no merge
    assert (await service.get(f"Observation/{in_new['id']}")).status_code == 404
    assert (await service.get(f"Patient/{new.patient}")).status_code == 404
    assert (await service.get(f"Patient/{old.patient}")).json()["id"] == old.patient  # the new one is not theirs to see
    await world.consent(new, service, types=READ)
    assert await ids(service, f"Observation?patient={old.patient}") == {in_old["id"], in_new["id"]}
    assert (await service.get(f"Patient/{old.patient}")).json()["id"] == new.patient


async def test_who_treats_and_who_acts_for_the_person_is_said_by_the_surviving_record(world: World) -> None:
    first, second = await world.professional(), await world.professional()
    old = await world.patient(generalPractitioner=[{"reference": first.reference}])
    new = await world.patient(generalPractitioner=[{"reference": second.reference}])
    of_old, of_new = await world.proxy(old), await world.proxy(new)
    readings = {(await owner.create(observation(owner.patient)))["id"]: owner.patient for owner in (old, new)}
    in_old = {identifier for identifier, owner in readings.items() if owner == old.patient}
    await merge(world, new.patient, old.patient)
    both = (old.patient, new.patient)
    for actor, names, seen in (
        (first, both, set()),
        (second, (new.patient,), {*readings}),
        (second, (old.patient,), set()),  # in the record of which they never had a right
        (of_old, both, in_old),
        (of_new, both, {*readings}),
    ):
        for name in names:
            assert await ids(actor, f"Observation?patient={name}") == seen


async def test_the_audit_of_both_records_shows_the_merge(world: World, old: Actor, new: Actor) -> None:
    await merge(world, new.patient, old.patient)
    for patient_id in (old.patient, new.patient):
        found = await world.stored("AuditEvent", patient=patient_id, **{"event.interaction": "update"})
        assert [(one["event"]["kind"], one["event"]["entities"]) for one in found] == [("operator", [f"Patient/{patient_id}"])]
    told = [one["entity"][1]["what"]["reference"] for one in await new.search("AuditEvent?subtype=update")]
    assert sorted(told) == sorted([f"Patient/{old.patient}", f"Patient/{new.patient}"])


async def test_a_replaced_record_takes_nothing_new_and_the_surviving_one_is_addressed(world: World) -> None:
    old, new = await world.patient(), await world.patient()
    known = (await own(world.operator, old.patient))["identifier"][0]
    app, doctor = await world.app(old), await world.professional()
    consented = await world.consent(old, app, "collect", ["Observation"])
    sent = await app.create(observation(old.patient, identifier=[{"system": "urn:x", "value": old.patient}]))
    await merge(world, new.patient, old.patient)
    for actor in (old, new, app, doctor):
        answer = await actor.post("Observation", observation(old.patient))
        assert (answer.status_code, issues(answer)[0]["code"]) == (422, "business-rule"), answer.text
        assert expression(answer) == "Observation.subject"
    again = {name: value for name, value in sent.items() if name not in ("id", "meta")}
    assert (await app.post("Observation", again)).status_code == 200  # what was sent once is known as ever
    by_identifier = observation("", subject={"identifier": {"system": known["system"], "value": known["value"]}})
    made = await doctor.create(by_identifier)
    assert made["id"][:3] == new.patient[:3]
    assert (await world.stored("Observation", _id=made["id"]))[0]["patient"] == new.patient
    await world.revoke(old, consented)


@pytest.mark.parametrize("active", [False, True])
async def test_a_closed_record_takes_nothing_new_from_apps(world: World, active: bool) -> None:
    owner, doctor = await world.patient(active=True), await world.professional()
    app, service = await world.app(owner), await world.service("user/*.cruds")
    for actor in (app, service):
        await world.consent(owner, actor, "collect", ["Observation"])
        await world.consent(owner, actor, "access", ["Observation"])
    before = await app.create(observation(owner.patient))
    stored = await own(world.operator, owner.patient)
    died = await world.operator.put(
        f"Patient/{owner.patient}", {**stored, "active": active, "deceasedDateTime": "2026-11-20T10:00:00Z"}
    )
    assert died.status_code == 200
    for actor in (app, service):
        for answer in (
            await actor.post("Observation", observation(owner.patient)),
            await actor.post("", bundle("transaction", entry("POST", "Observation", observation(owner.patient)))),
        ):
            assert answer.status_code == (422 if not active else 201 if "Bundle" not in answer.text else 200), answer.text
            if not active:
                assert issues(answer)[0]["code"] == "business-rule"
                assert str(expression(answer)).endswith(".subject")
        assert before["id"] in await ids(actor, f"Observation?patient={owner.patient}")
    assert (await doctor.post("Observation", observation(owner.patient))).status_code == 201
    assert (await owner.post("Observation", observation(owner.patient))).status_code == 201
    assert (await app.put(f"Observation/{before['id']}", before)).status_code == 200
    stranger = await world.app(owner)
    hidden = await stranger.post("Observation", observation(owner.patient))
    assert (hidden.status_code, issues(hidden)[0]["code"]) == (422, "not-found")  # nothing is told to who may not write


@pytest.mark.parametrize(
    ("links", "elements", "element", "code"),
    [
        ([("{me}", "seealso")], {}, "Patient.link[0].other", "business-rule"),
        ([("{other}", "seealso"), ("{other}", "refer")], {}, "Patient.link[1].other", "business-rule"),
        ([("{other}", "replaced-by")], {"active": True}, "Patient.active", "business-rule"),
        ([("{other}", "replaced-by")], {}, "Patient.active", "business-rule"),
        ([("{other}", "replaced-by"), ("{third}", "replaces")], {"active": False}, "Patient.link", "business-rule"),
        ([("{other}", "replaced-by"), ("{third}", "replaced-by")], {"active": False}, "Patient.link", "business-rule"),
        ([("{nobody}", "seealso")], {}, "Patient.link[0].other", "not-found"),
        ([("{nobody}", "replaces")], {}, "Patient.link[0].other", "not-found"),
        ([("{other}", "replaced-by")], {"active": False}, "Patient.link", "business-rule"),  # the other one does not say so
        ([("{other}", "replaces")], {}, "Patient.link", "business-rule"),
        ([("{other}", "twin")], {}, "Patient.link[0].type", "code-invalid"),
    ],
)
async def test_links_that_cannot_be_true_are_refused(
    world: World, links: list[tuple[str, str]], elements: dict[str, Any], element: str, code: str
) -> None:
    mine, other, third = [await world.operator.create(patient()) for _ in range(3)]
    names = {"me": mine["id"], "other": other["id"], "third": third["id"], "nobody": world.gateway.ids.new(other["id"][:3])}
    body = linked(mine, *((one.format(**names), kind) for one, kind in links), **elements)
    answer = await world.operator.put(f"Patient/{mine['id']}", body)
    assert (answer.status_code, issues(answer)[0]["code"]) == (422, code)
    assert str(expression(answer)).startswith(element)
    assert await own(world.operator, mine["id"]) == mine


async def test_links_that_merge_nothing_are_kept_as_said(world: World, old: Actor, new: Actor) -> None:
    stored = await own(world.operator, old.patient)
    relative = await world.operator.create(related_person(new.patient))
    body = linked(stored, (new.patient, "seealso"))
    body["link"].append({"other": {"reference": f"RelatedPerson/{relative['id']}"}, "type": "refer"})
    assert (await world.operator.put(f"Patient/{old.patient}", body)).status_code == 200
    assert (await old.get(f"Patient/{old.patient}")).json()["link"] == body["link"]
    assert (await old.get(f"Patient/{new.patient}")).status_code == 404
    assert await ids(world.operator, f"Patient?_id={old.patient}&link=Patient/{new.patient}") == {old.patient}


@pytest.mark.parametrize("lost", ["link back", "identifier", "version"])
async def test_a_merge_that_loses_something_is_refused_as_a_whole(world: World, old: Actor, new: Actor, lost: str) -> None:
    one, other = await own(world.operator, old.patient), await own(world.operator, new.patient)
    replaced = linked(one, (new.patient, "replaced-by"), active=False)
    survivor = linked(other, *([] if lost == "link back" else [(old.patient, "replaces")]))
    if lost != "identifier":
        survivor["identifier"] = other["identifier"] + one["identifier"]
    request = updates(replaced, survivor)
    request["entry"][1]["request"]["ifMatch"] = 'W/"1"' if lost != "version" else 'W/"7"'
    answer = await world.operator.post("", request)
    assert answer.status_code == (412 if lost == "version" else 422)
    where = {"link back": "Bundle.entry[0].resource.link", "identifier": "Bundle.entry[1].resource.identifier"}
    assert lost == "version" or expression(answer) == where[lost]
    assert [await own(world.operator, i) for i in (old.patient, new.patient)] == [one, other]


async def test_a_merge_is_undone_in_both_records_at_once(world: World, old: Actor, new: Actor) -> None:
    readings = {owner.patient: (await owner.create(observation(owner.patient)))["id"] for owner in (old, new)}
    await merge(world, new.patient, old.patient)
    one, other = await own(world.operator, old.patient), await own(world.operator, new.patient)
    for alone in (linked(one, active=True), linked(other)):
        answer = await world.operator.put(f"Patient/{alone['id']}", alone)
        assert (answer.status_code, expression(answer)) == (422, "Patient.link")
    answer = await world.operator.post("", updates(linked(one, active=True), linked(other)))
    assert answer.status_code == 200, answer.text
    for owner in (old, new):
        assert await ids(owner, f"Observation?patient={owner.patient}") == {readings[owner.patient]}
        assert (await owner.get(f"Patient/{owner.patient}")).json()["id"] == owner.patient
    assert await ids(old, f"Observation?patient={new.patient}") == set()
    assert (await old.post("Observation", observation(old.patient))).status_code == 201


async def test_what_replaces_several_can_be_replaced_with_all_of_them(world: World) -> None:
    first, second, third = [await world.patient() for _ in range(3)]
    readings = {(await owner.create(observation(owner.patient)))["id"] for owner in (first, second, third)}
    await merge(world, second.patient, first.patient)
    oldest, older = await own(world.operator, first.patient), await own(world.operator, second.patient)
    last = await own(world.operator, third.patient)
    last["identifier"] += older["identifier"]
    older = linked(older, (third.patient, "replaced-by"), active=False)
    alone = await world.operator.post("", updates(older, linked(last, (second.patient, "replaces"))))
    assert alone.status_code == 422
    oldest = linked(oldest, (third.patient, "replaced-by"))
    survivor = linked(last, (first.patient, "replaces"), (second.patient, "replaces"))
    answer = await world.operator.post("", updates(oldest, older, survivor))
    assert answer.status_code == 200, answer.text
    for owner in (first, second, third):
        assert (await third.get(f"Patient/{owner.patient}")).json()["id"] == third.patient
        assert await ids(owner, f"Observation?patient={owner.patient}") == readings


async def test_a_new_patient_can_take_the_place_of_others_in_the_transaction_that_brings_it(world: World, old: Actor) -> None:
    stored = await own(world.operator, old.patient)
    made = patient(link=[{"other": {"reference": f"Patient/{old.patient}"}, "type": "replaces"}])
    made["identifier"] += stored["identifier"]
    replaced = {**stored, "active": False, "link": [{"other": {"reference": "urn:uuid:new"}, "type": "replaced-by"}]}
    request = bundle("transaction", entry("POST", "Patient", made, "urn:uuid:new"), updates(replaced)["entry"][0])
    answer = await world.operator.post("", request)
    assert answer.status_code == 200, answer.text
    identifier = answer.json()["entry"][0]["response"]["location"].split("/")[1]
    assert (await old.get(f"Patient/{old.patient}")).json()["id"] == identifier


@pytest.mark.parametrize("path", ["Patient/{}", "Observation?patient={}", "Patient?_id={}", "Observation/{}"])
@pytest.mark.requirement("ATK-T43", "ATK-T47")
async def test_a_merge_is_told_to_nobody_without_rights(world: World, old: Actor, new: Actor, path: str) -> None:
    reading = await old.create(observation(old.patient))
    stranger = await world.professional()
    await merge(world, new.patient, old.patient)
    target = reading["id"] if path.startswith("Observation/") else old.patient
    asked = [path.format(one) for one in (target, world.gateway.ids.new(target[:3]))]
    answers = [await stranger.get(one) for one in asked]
    assert answers[0].status_code == answers[1].status_code
    assert {one.text.replace(asked[0], "x").replace(asked[1], "x") for one in answers} == {
        answers[0].text.replace(asked[0], "x")
    }
    counts = [await world.calls_of(lambda one=one: stranger.get(one)) for one in asked]  # type: ignore[misc]
    assert counts[0] == counts[1]


@pytest.mark.requirement("ATK-T47")
@pytest.mark.parametrize("kind", ["patient", "proxy", "app", "professional", "service"])
async def test_nobody_but_who_keeps_identities_links_patients(world: World, old: Actor, new: Actor, kind: str) -> None:
    makers = {
        "patient": lambda: world.patient_actor(old.patient, "user/*.cruds"),
        "proxy": lambda: world.proxy(old, "user/*.cruds"),
        "app": lambda: world.app(old, "user/*.cruds"),
        "professional": world.professional,
        "service": world.service,
    }
    actor = await makers[kind]()
    one, other = await own(world.operator, old.patient), await own(world.operator, new.patient)
    other["identifier"] += one["identifier"]
    request = updates(linked(one, (new.patient, "replaced-by"), active=False), linked(other, (old.patient, "replaces")))
    assert (await actor.post("", request)).status_code == 403
    assert await own(world.operator, old.patient) == one
