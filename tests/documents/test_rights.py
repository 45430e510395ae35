"""Content is there for who may read what attaches it, and for nobody else; it is attached by who deposited or may read it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.documents.papers import attaching, binary, deposit, deposited, pdf, send_raw, sha1
from tests.world import Actor, World, bundle, concept, consent, entry, expression, issues, label

pytestmark = pytest.mark.requirement("SEC-05")


async def same(world: World, actor: Actor, hidden: str, **headers: str) -> None:
    """What is hidden answers like what never was: body, status, headers, number of calls to the database."""
    ghost = f"Binary/{world.gateway.ids.new(hidden.partition('/')[2][:3])}"
    answers = [await actor.get(one, **headers) for one in (hidden, ghost)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content
    volatile = {"x-request-id", "date"}
    told, ghostly = ({k: v for k, v in answer.headers.items() if k not in volatile} for answer in answers)
    assert told == ghostly
    assert await fewest(world, lambda: actor.get(hidden, **headers)) == await fewest(world, lambda: actor.get(ghost, **headers))


async def fewest(world: World, ask: Callable[[], Awaitable[Any]]) -> int:
    """How many calls it takes: this machine may be so busy that three requests take as long as two seals of the audit."""
    return min([await world.calls_of(ask) for _ in range(2)])


FORMS: list[dict[str, str]] = [
    {},
    {"Accept": "application/fhir+json"},
    {"Accept": "application/fhir+xml"},
    {"Accept": "image/png"},
    {"Range": "bytes=0-1"},
    {"If_None_Match": '"1"'},
]


@pytest.mark.parametrize("headers", FORMS, ids=str)
async def test_content_of_a_stranger_is_not_there(world: World, headers: dict[str, str]) -> None:
    owner, other, doctor = await world.patient(), await world.patient(), await world.professional()
    _, raw = await deposited(owner, owner.patient, pdf())
    for actor in (other, doctor, await world.service()):
        await same(world, actor, raw, **headers)


async def test_the_bytes_of_hidden_content_are_not_fetched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it takes to fetch them would tell that they are there."""
    owner, doctor = await world.patient(), await world.professional()
    _, raw = await deposited(owner, owner.patient, pdf(500_000))
    asked: list[str] = []
    find, find_all = world.gateway.mongo.find, world.gateway.mongo.find_all

    async def watched(collection: str, *args: Any, **options: Any) -> Any:
        asked.append(collection)
        return await find(collection, *args, **options)

    async def watched_all(parts: list[Any]) -> Any:
        asked.extend(part.collection for part in parts)
        return await find_all(parts)

    monkeypatch.setattr(world.gateway.mongo, "find", watched)
    monkeypatch.setattr(world.gateway.mongo, "find_all", watched_all)
    assert (await doctor.get(raw)).status_code == 404
    assert "DocumentReference" in asked
    assert "contents" not in asked
    assert (await owner.get(raw)).status_code == 200
    assert "contents" in asked


async def test_content_is_read_in_four_calls(world: World) -> None:
    """Token and what attaches it; record and key; the content; the audit. Hidden, or not there, it takes three."""
    owner, doctor = await world.patient(), await world.professional()
    _, raw = await deposited(owner, owner.patient, pdf())
    absent = f"Binary/{world.gateway.ids.new(owner.patient[:3])}"
    asked = [(owner, raw), (doctor, raw), (doctor, absent), (owner, absent)]
    counts = [await world.calls_of(lambda one=one: one[0].get(one[1])) for one in asked]  # type: ignore[misc]
    assert counts == [4, 3, 3, 3]


async def test_a_consent_opens_content_with_what_attaches_it_and_closes_it_again(world: World) -> None:
    owner, doctor, content = await world.patient(), await world.professional(), pdf()
    _, raw = await deposited(owner, owner.patient, content)
    given = await world.consent(owner, doctor, types=["DocumentReference"])
    assert (await doctor.get(raw)).content == content
    await world.revoke(owner, given)
    await same(world, doctor, raw)


async def test_a_consent_for_one_kind_of_document_opens_no_other(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    _, open_one = await deposited(owner, owner.patient, pdf(), type=concept("http://loinc.org", "11502-2"))
    _, other_one = await deposited(owner, owner.patient, pdf(), type=concept("http://loinc.org", "34133-9"))
    only = [{"coding": [{"system": "http://loinc.org", "code": "11502-2"}]}]
    await owner.create(consent(owner, doctor, "access", ["DocumentReference"], code=only))
    assert (await doctor.get(open_one)).status_code == 200
    await same(world, doctor, other_one)


async def test_a_label_that_hides_a_document_hides_its_content(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    made, raw = await deposited(owner, owner.patient, pdf())
    await world.consent(owner, doctor)
    denial = consent(owner, doctor, "access", None, type="deny", securityLabel=[label("V")])
    await owner.create(denial)
    assert (await doctor.get(raw)).status_code == 200
    stored = (await owner.get(made)).json()
    changed = await owner.put(made, {**stored, "securityLabel": [{"coding": [label("V")]}]})
    assert changed.status_code == 200, changed.text
    await same(world, doctor, raw)
    assert (await owner.get(raw)).status_code == 200


async def test_who_deposits_reads_that_as_long_as_the_patient_does_not_refuse_them(world: World) -> None:
    owner, doctor, other = await world.patient(), await world.professional(), await world.professional()
    _, raw = await deposited(doctor, owner.patient, pdf())
    assert (await doctor.get(raw)).status_code == 200
    await same(world, other, raw)
    await owner.create(consent(owner, doctor, "access", type="deny"))
    await same(world, doctor, raw)
    assert (await owner.get(raw)).status_code == 200


async def test_content_that_nothing_attaches_is_there_for_nobody(world: World) -> None:
    owner = await world.patient()
    made = await send_raw(owner, pdf())
    raw = f"Binary/{made.json()['id']}"
    await same(world, owner, raw)
    stored = await owner.create(attaching(owner.patient, raw))
    assert (await owner.get(raw)).status_code == 200
    gone = await owner.put(f"DocumentReference/{stored['id']}", {**stored, "status": "entered-in-error"})
    assert gone.status_code == 200
    assert (await owner.get(raw)).status_code == 410


@pytest.mark.requirement("DOC-15")
async def test_a_mistake_opens_no_content_any_more(world: World) -> None:
    """Gone for who could see it; for others there never was anything."""
    owner, doctor, stranger = await world.patient(), await world.professional(), await world.professional()
    await world.consent(owner, doctor, types=["DocumentReference"])
    made, raw = await deposited(owner, owner.patient, pdf())
    assert (await doctor.get(raw)).status_code == 200
    stored = (await owner.get(made)).json()
    gone = await owner.put(made, {**stored, "status": "entered-in-error"})
    assert gone.is_success, gone.text
    for actor in (owner, doctor):
        for headers in FORMS:
            answer = await actor.get(raw, **headers)
            assert answer.status_code == 410
    await same(world, stranger, raw)
    again = await doctor.post("DocumentReference", attaching(owner.patient, raw))
    assert expression(again) == "DocumentReference.content[0].attachment.url"
    await owner.create(attaching(owner.patient, raw))  # what one document said by mistake, another may say rightly
    assert (await doctor.get(raw)).status_code == 200


@pytest.mark.requirement("DOC-15")
async def test_a_superseded_document_stays_readable(world: World) -> None:
    owner = await world.patient()
    made, raw = await deposited(owner, owner.patient, pdf())
    stored = (await owner.get(made)).json()
    assert (await owner.put(made, {**stored, "status": "superseded"})).status_code == 200
    assert (await owner.get(raw)).status_code == 200
    assert (await owner.get(made)).json()["status"] == "superseded"


@pytest.mark.requirement("CON-008")
async def test_the_strictest_labels_of_all_that_attaches_it_hold(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    open_one, raw = await deposited(owner, owner.patient, pdf())
    await world.consent(owner, doctor)
    await owner.create(consent(owner, doctor, "access", None, type="deny", securityLabel=[label("V")]))
    assert (await doctor.get(raw)).status_code == 200
    hidden = await owner.create(attaching(owner.patient, raw, securityLabel=[{"coding": [label("V")]}]))
    assert (await doctor.get(open_one)).status_code == 200
    await same(world, doctor, raw)
    assert (await owner.get(raw)).status_code == 200
    ghost = f"Binary/{world.gateway.ids.new(owner.patient[:3])}"
    refused = [await doctor.post("DocumentReference", attaching(owner.patient, one)) for one in (raw, ghost)]
    assert refused[0].content == refused[1].content
    gone = await owner.put(f"DocumentReference/{hidden['id']}", {**hidden, "status": "entered-in-error"})
    assert gone.status_code == 200
    assert (await doctor.get(raw)).status_code == 200


async def test_labels_of_another_type_hold_too_whatever_the_scopes(world: World) -> None:
    """A token that speaks of documents only is not told of reports, and bound by their labels all the same."""
    owner, doctor = await world.patient(), await world.professional("user/DocumentReference.cruds user/Binary.cr")
    _, raw = await deposited(owner, owner.patient, pdf())
    await world.consent(owner, doctor)
    await owner.create(consent(owner, doctor, "access", None, type="deny", securityLabel=[label("V")]))
    report = {
        "resourceType": "DiagnosticReport",
        "meta": {"security": [label("V")]},
        "status": "final",
        "code": concept("http://loinc.org", "11502-2"),
        "subject": {"reference": f"Patient/{owner.patient}"},
        "presentedForm": [{"url": raw}],
    }
    assert (await doctor.get(raw)).status_code == 200
    await owner.create(report)
    await same(world, doctor, raw)


async def test_a_label_of_the_content_itself_holds(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await world.consent(owner, doctor)
    await owner.create(consent(owner, doctor, "access", None, type="deny", securityLabel=[label("V")]))
    labelled = {**binary(pdf()), "meta": {"security": [label("V")]}}
    raw = f"Binary/{(await owner.create({**labelled, 'securityContext': {'reference': f'Patient/{owner.patient}'}}))['id']}"
    made = await owner.create(attaching(owner.patient, raw))
    assert (await doctor.get(f"DocumentReference/{made['id']}")).status_code == 200
    await same(world, doctor, raw)


@pytest.mark.parametrize("scope", ["patient/Observation.cruds", "patient/Binary.r", "patient/DocumentReference.c"])
async def test_scopes_bound_it(world: World, scope: str) -> None:
    owner = await world.patient()
    _, raw = await deposited(owner, owner.patient, pdf())
    narrow = await world.patient_actor(owner.patient, scope)
    answer = await narrow.get(raw)
    assert answer.status_code == (404 if "Binary.r" in scope else 403)


async def test_a_scope_that_lets_read_what_attaches_it_lets_read_it(world: World) -> None:
    owner = await world.patient()
    _, raw = await deposited(owner, owner.patient, pdf())
    narrow = await world.patient_actor(owner.patient, "patient/DocumentReference.r")
    assert (await narrow.get(raw)).status_code == 200
    other = await world.patient_actor(owner.patient, "patient/DocumentReference.r?category=http://x.example|other")
    await same(world, other, raw)


async def test_nobody_attaches_what_they_neither_deposited_nor_may_read(world: World) -> None:
    owner, doctor, colleague = await world.patient(), await world.professional(), await world.professional()
    _, raw = await deposited(doctor, owner.patient, pdf())
    ghost = f"Binary/{world.gateway.ids.new(owner.patient[:3])}"
    refused = [await colleague.post("DocumentReference", attaching(owner.patient, one)) for one in (raw, ghost)]
    assert [answer.status_code for answer in refused] == [422, 422]
    assert refused[0].content == refused[1].content
    assert expression(refused[0]) == "DocumentReference.content[0].attachment.url"
    attaching_it = [
        await fewest(world, lambda one=one: colleague.post("DocumentReference", attaching(owner.patient, one)))
        for one in (raw, ghost)
    ]
    assert attaching_it[0] == attaching_it[1]
    await doctor.create(attaching(owner.patient, raw))  # the depositor may
    await owner.create(attaching(owner.patient, raw))  # and who reads it


async def test_content_of_one_record_is_attached_in_no_other(world: World) -> None:
    one, two, doctor = await world.patient(), await world.patient(), await world.professional()
    _, raw = await deposited(doctor, one.patient, pdf())
    answer = await doctor.post("DocumentReference", attaching(two.patient, raw))
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.content[0].attachment.url")
    name = "urn:uuid:0e0e0e0e-0000-4000-8000-000000000001"
    crossing = bundle(
        "transaction",
        entry("POST", "DocumentReference", attaching(two.patient, name)),
        entry("POST", "Binary", binary(pdf(), securityContext={"reference": f"Patient/{one.patient}"}), full_url=name),
    )
    answer = await doctor.post("", crossing)
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[0].resource.content[0].attachment.url")


@pytest.mark.requirement("DOC-03")
@pytest.mark.parametrize("url", ["Binary", "Binary/", "Bundle/abc-1", "urn:uuid:0e0e0e0e-0000-4000-8000-000000000009", "x.pdf"])
async def test_an_url_that_leads_nowhere_here_is_refused(world: World, url: str) -> None:
    owner = await world.patient()
    answer = await owner.post("DocumentReference", attaching(owner.patient, url))
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.content[0].attachment.url")


@pytest.mark.requirement("DOC-04")
@pytest.mark.parametrize("claim", [{"hash": sha1(b"other")}, {"size": 999}, {"contentType": "text/plain"}])
async def test_what_is_said_of_content_must_be_true(world: World, claim: dict[str, Any]) -> None:
    owner, content = await world.patient(), pdf()
    sent = deposit(owner.patient, content)
    attachment = sent["entry"][0]["resource"]["content"][0]["attachment"]
    attachment.update(claim)
    answer = await owner.post("", sent)
    (name,) = claim
    assert (answer.status_code, expression(answer)) == (422, f"Bundle.entry[0].resource.content[0].attachment.{name}")
    assert await world.stored("contents", patient=owner.patient) == []
    inline = attaching(owner.patient, "")
    for long in (content, pdf(50_000)):
        inline["content"][0]["attachment"] = {"contentType": "application/pdf", "data": binary(long)["data"], **claim}
        answer = await owner.post("DocumentReference", inline)
        assert (answer.status_code, expression(answer)) == (422, f"DocumentReference.content[0].attachment.{name}")


async def test_an_owner_that_is_not_there_is_refused_like_one_who_may_not_be_written_to(world: World) -> None:
    owner, service = await world.patient(), await world.service()
    answers = [
        await send_raw(service, pdf(), X_Security_Context=f"Patient/{one}")
        for one in (owner.patient, world.gateway.ids.new(owner.patient[:3]))
    ]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert answers[0].content == answers[1].content
    assert issues(answers[0])[0]["code"] == "not-found"


@pytest.mark.requirement("AUD-001")
async def test_deposit_and_fetch_are_in_the_log_of_the_patient(world: World) -> None:
    owner, doctor, other = await world.patient(), await world.professional(), await world.professional()
    _, raw = await deposited(doctor, owner.patient, pdf())
    await other.get(raw)
    await owner.get(raw)
    events = await world.stored("AuditEvent", patient=owner.patient)
    mine = [e["event"] for e in events if e["event"].get("type") == "Binary"]
    assert {(e["interaction"], e["outcome"], e["kind"]) for e in mine} >= {
        ("create", "0", "professional"),
        ("read", "8", "professional"),
        ("read", "0", "patient"),
    }


async def test_a_batch_fetches_many(world: World) -> None:
    owner, other = await world.patient(), await world.patient()
    contents = [pdf() for _ in range(5)]
    raws = [(await deposited(owner, owner.patient, one))[1] for one in contents]
    foreign = (await deposited(other, other.patient, pdf()))[1]
    answer = await owner.post("", bundle("batch", *(entry("GET", one) for one in (*raws, foreign))))
    found = answer.json()["entry"]
    assert [one["resource"]["data"] for one in found[:5]] == [binary(one)["data"] for one in contents]
    assert found[5]["response"]["status"].startswith("404")


async def test_the_owner_is_the_one_in_the_token_or_the_one_that_is_named(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    assert (await send_raw(owner, pdf())).status_code == 201
    unnamed = await send_raw(doctor, pdf())
    assert (unnamed.status_code, expression(unnamed)) == (422, "Binary.securityContext")
    named = await send_raw(doctor, pdf(), X_Security_Context=f"Patient/{owner.patient}")
    assert named.json()["securityContext"] == {"reference": f"Patient/{owner.patient}"}
