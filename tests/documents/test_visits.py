"""A professional's visits: the first finds all documents of a patient, each later one what has changed, and loses nothing."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.documents.papers import PDF, deposit, deposited, ids_of, pdf
from tests.process import two_processes
from tests.world import BASE, JSON, Actor, Clock, World, bundle, concept, document, entry, label, observation

MASKED = concept("https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument", "X")
Version = tuple[str, str]


async def visit(actor: Actor, owner: Actor, since: str = "", kind: str = "DocumentReference", rest: str = "") -> dict[str, Any]:
    """One search for documents; with `since`, for those that have changed."""
    query = f"{kind}?patient={owner.patient}" + (f"&_lastUpdated=gt{quote(since)}" if since else "")
    answer = await actor.get(query + rest)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def mark(page: dict[str, Any]) -> str:
    return str(page["meta"]["lastUpdated"])


def versions(page: dict[str, Any]) -> list[Version]:
    """What matches, by id and version."""
    matches = [one["resource"] for one in page.get("entry", ()) if one["search"]["mode"] == "match"]
    return [(one["id"], one["meta"]["versionId"]) for one in matches]


def hints(page: dict[str, Any]) -> list[str]:
    found = [one["resource"] for one in page.get("entry", ()) if one["search"]["mode"] == "outcome"]
    return [one["issue"][0]["details"]["coding"][0]["code"] for one in found]


async def patch(actor: Actor, identifier: str, *operations: dict[str, Any]) -> None:
    answer = await actor.send(
        "PATCH", f"DocumentReference/{identifier}", list(operations), Content_Type="application/json-patch+json"
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.requirement("DOC-22", "SRCH-07")
async def test_a_later_visit_finds_what_was_deposited_replaced_and_masked(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await world.consent(owner, doctor)
    kept, old, masked = [(await owner.create(document(owner.patient)))["id"] for _ in range(3)]
    first = await visit(doctor, owner)
    assert {identifier for identifier, _ in versions(first)} == {kept, old, masked}
    assert versions(await visit(doctor, owner, mark(first))) == []

    replacing = document(owner.patient, relatesTo=[{"code": "replaces", "target": {"reference": f"DocumentReference/{old}"}}])
    new = (await owner.create(replacing))["id"]
    await patch(owner, old, {"op": "replace", "path": "/status", "value": "superseded"})
    await patch(owner, masked, {"op": "add", "path": "/securityLabel", "value": [MASKED]})
    second = await visit(doctor, owner, mark(first))
    stored = {one["resource"]["id"]: one["resource"] for one in second["entry"]}
    # (ids stay over a patch)
    assert {name: one["meta"]["versionId"] for name, one in stored.items() if name != masked} == {new: "1", old: "2"}
    assert stored[new]["relatesTo"] == replacing["relatesTo"]
    assert stored[old]["status"] == "superseded"
    assert kept not in stored
    assert versions(await visit(doctor, owner, mark(second))) == []


@pytest.mark.requirement("DOC-22")
async def test_a_watermark_rests_on_what_is_seen(world: World) -> None:
    """Nothing tells that something hidden was written, or that there is such a patient."""
    owner, doctor, stranger = await world.patient(), await world.professional(), await world.professional()
    await world.consent(owner, doctor, types=["DocumentReference"])
    await owner.create(document(owner.patient))
    before = await visit(doctor, owner)
    await owner.create(observation(owner.patient))
    after = await visit(doctor, owner)
    assert mark(before) == mark(after) == before["entry"][0]["resource"]["meta"]["lastUpdated"]
    world.clock.ahead += timedelta(minutes=5)
    nobody = Actor(stranger.http, "", "", f"{owner.patient[:3]}-none")
    for since in ("", mark(before)):
        hidden, missing = [await visit(stranger, one, since) for one in (owner, nobody)]
        assert hidden.keys() == missing.keys()
        if since:
            assert mark(hidden) == mark(missing) == since
        else:
            there, not_there = (datetime.fromisoformat(mark(page)) for page in (hidden, missing))
            assert abs(there - not_there) < timedelta(seconds=5)
            assert world.clock() - there > timedelta(seconds=50)


@pytest.mark.requirement("DOC-22")
async def test_a_time_that_is_still_to_come_is_not_believed(world: World) -> None:
    owner = await world.patient()
    page = await visit(owner, owner, "2099-01-01T00:00:00Z")
    assert datetime.fromisoformat(mark(page)) < world.clock()
    made = await owner.create(document(owner.patient))
    assert versions(await visit(owner, owner, mark(page))) == [(made["id"], "1")]


@pytest.mark.requirement("DOC-22", "SRCH-03")
@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_what_has_changed_comes_in_its_turn_and_each_page_can_be_gone_on_from(world: World, size: int) -> None:
    """By the link as well as by the watermark; what one commit changed stays together."""
    owner = await world.patient()
    begin = mark(await visit(owner, owner))
    for count in (1, 3, 1, 2):
        posted = [entry("POST", "DocumentReference", document(owner.patient)) for _ in range(count)]
        assert (await owner.post("", bundle("transaction", *posted))).status_code == 200
    whole = versions(await visit(owner, owner, begin))
    assert len(whole) == 7
    found: list[Version] = []
    page = await visit(owner, owner, begin, rest=f"&_count={size}")
    while True:
        found += versions(page)
        following = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
        if following is None:
            break
        page = (await owner.get(following)).json()
    assert found == whole
    # By watermarks alone: what of a commit does not fit on the page comes again, and nothing is left out.
    again: dict[Version, None] = {}
    since = begin
    for _ in range(20):
        page = await visit(owner, owner, since, rest=f"&_count={max(size, 3)}")
        again |= dict.fromkeys(versions(page))
        since = mark(page)
    assert [*again] == whole
    assert versions(page) == []


@pytest.mark.requirement("DOC-22")
@pytest.mark.parametrize("order", ["-date", "_lastUpdated", "-_lastUpdated"])
async def test_whatever_the_order_a_watermark_leaves_nothing_out(world: World, order: str) -> None:
    owner = await world.patient()
    made = [(await owner.create(document(owner.patient)))["id"] for _ in range(5)]
    for count in (2, 5):
        page = await visit(owner, owner, rest=f"&_sort={order}&_count={count}")
        if count == 5:
            assert versions(await visit(owner, owner, mark(page))) == []
        shown = {identifier for identifier, _ in versions(page)}
        later = {identifier for identifier, _ in versions(await visit(owner, owner, mark(page)))}
        assert later | shown == {*made}


@pytest.mark.requirement("DOC-22")
async def test_a_consent_that_shows_more_is_announced(world: World) -> None:
    """What it newly shows lies behind the watermark: without the hint it would never be found."""
    owner, doctor, other = await world.patient(), await world.professional(), await world.professional()
    await world.consent(owner, doctor, types=["DocumentReference"])
    denied = await owner.create(denial(owner, doctor))
    hidden = (await owner.create(document(owner.patient, securityLabel=[{"coding": [label("R")]}])))["id"]
    open_one = (await owner.create(document(owner.patient)))["id"]
    first = await visit(doctor, owner)
    assert [identifier for identifier, _ in versions(first)] == [open_one]
    assert hints(await visit(doctor, owner, mark(first))) == []
    await world.revoke(owner, denied)
    second = await visit(doctor, owner, mark(first))
    assert (versions(second), hints(second)) == ([], ["resync"])
    # Asked again, as after a lost answer, it is told again; gone on from, it is not.
    assert hints(await visit(doctor, owner, mark(first))) == ["resync"]
    third = await visit(doctor, owner, mark(second))
    assert (versions(third), hints(third)) == ([], [])
    everything = await visit(doctor, owner)
    assert {identifier for identifier, _ in versions(everything)} == {open_one, hidden}
    assert hints(everything) == []
    # Neither those whom it does not concern nor those who see nothing learn of it.
    for stranger in (other, await world.professional()):
        assert hints(await visit(stranger, owner, mark(first))) == []


def denial(owner: Actor, to: Actor) -> dict[str, Any]:
    from_owner = {"reference": f"Patient/{owner.patient}"}
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": concept("http://terminology.hl7.org/CodeSystem/consentscope", "patient-privacy"),
        "category": [concept("http://loinc.org", "59284-0")],
        "patient": from_owner,
        "performer": [from_owner],
        "dateTime": "2026-11-01",
        "policyRule": concept("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTIN"),
        "provision": {
            "type": "deny",
            "actor": [
                {
                    "role": concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "IRCP"),
                    "reference": {"reference": to.reference},
                }
            ],
            "securityLabel": [label("R")],
        },
    }


@pytest.mark.requirement("DOC-22")
async def test_a_consent_that_ends_by_itself_is_announced(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await world.consent(owner, doctor)
    ends = (world.clock() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    sent = denial(owner, doctor)
    sent["provision"]["period"] = {"start": "2026-01-01", "end": ends}
    await owner.create(sent)
    made = (await owner.create(document(owner.patient, securityLabel=[{"coding": [label("R")]}])))["id"]
    first = await visit(doctor, owner)
    assert versions(first) == []
    assert hints(await visit(doctor, owner, mark(first))) == ["resync"]  # the consents are newer than what was seen
    world.clock.ahead += timedelta(minutes=30)
    since = mark(await visit(doctor, owner))
    assert hints(await visit(doctor, owner, since)) == []
    world.clock.ahead += timedelta(hours=1)
    page = await visit(doctor, owner, since)
    assert (versions(page), hints(page)) == ([], ["resync"])
    assert [identifier for identifier, _ in versions(await visit(doctor, owner))] == [made]
    assert hints(await visit(doctor, owner, mark(page))) == []


@pytest.mark.requirement("DOC-22")
async def test_a_relation_of_care_that_begins_is_announced(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await world.consent(owner, doctor, types=["Observation"])
    made = (await owner.create(document(owner.patient)))["id"]
    first = await visit(doctor, owner)
    assert versions(first) == []
    since = world.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    await world.relation(owner, doctor)
    page = await visit(doctor, owner, since)
    assert (versions(page), hints(page)) == ([], ["resync"])
    assert [identifier for identifier, _ in versions(await visit(doctor, owner))] == [made]
    world.clock.ahead += timedelta(minutes=3)
    page = await visit(doctor, owner, mark(await visit(doctor, owner)))
    assert hints(await visit(doctor, owner, mark(page))) == []


@pytest.mark.requirement("DOC-22")
async def test_a_process_whose_clock_is_late_writes_behind_what_is_there(world: World, peer: World) -> None:
    owner = await world.patient()
    there = peer.bearer(owner)
    await owner.create(document(owner.patient))
    since = mark(await visit(owner, owner))
    peer.clock.ahead = -timedelta(hours=1)
    late = await there.create(document(owner.patient))
    assert late["meta"]["lastUpdated"] > since
    for actor in (owner, there):
        assert versions(await visit(actor, owner, since)) == [(late["id"], "1")]


@pytest.mark.requirement("DOC-22")
async def test_what_is_written_in_the_same_batch_is_behind_no_watermark(world: World) -> None:
    owner = await world.patient()
    since = mark(await visit(owner, owner))
    query = f"DocumentReference?patient={owner.patient}&_lastUpdated=gt{quote(since)}"
    posted = [entry("POST", "DocumentReference", document(owner.patient)), entry("GET", query)]
    for kind in ("batch", "transaction"):
        answer = (await owner.post("", bundle(kind, *posted))).json()
        page = answer["entry"][1]["resource"]
        assert versions(await visit(owner, owner, mark(page))) == []
    assert len(versions(await visit(owner, owner, since))) == 2


@pytest.fixture(scope="module")
async def two(mongo_url: str) -> AsyncIterator[tuple[World, World]]:
    """Two gateway processes on one database."""
    async with two_processes(mongo_url) as (world, second):
        yield world, World(world.gateway, second, Clock())


WRITERS, SECONDS = 8, 4.0


async def write(actors: tuple[Actor, Actor], number: int, until: float) -> list[str]:
    """Deposit and mask at either process until then; returns the ids."""
    made: list[str] = []
    loop = asyncio.get_running_loop()
    while loop.time() < until or not made:
        actor = actors[(number + len(made)) % 2]
        posted = [entry("POST", "DocumentReference", document(actor.patient)) for _ in range(1 + len(made) % 2)]
        answer = await actor.post("", bundle("transaction", *posted))
        assert answer.status_code == 200, answer.text
        made += [one["response"]["location"].split("/")[1] for one in answer.json()["entry"]]
        if len(made) % 3 == 0:
            await patch(actors[number % 2], made[-1], {"op": "add", "path": "/securityLabel", "value": [MASKED]})
    return made


@pytest.mark.requirement("DOC-22", "SRCH-07")
async def test_nothing_is_lost_while_eight_write_over_two_processes(two: tuple[World, World]) -> None:
    """By watermarks, each change comes exactly once; by a clock of one's own (less some seconds), at least once."""
    world, other = two
    owner = await world.patient()
    actors = (owner, other.bearer(owner))
    by_mark: list[Version] = []
    by_clock: set[Version] = set()
    until = asyncio.get_running_loop().time() + SECONDS
    done = asyncio.Event()

    async def follow() -> None:
        page = await visit(owner, owner)
        by_mark.extend(versions(page))
        number, ended = 0, False
        while not ended or versions(page):
            ended = done.is_set()
            number += 1
            page = await visit(actors[number % 2], owner, mark(page), rest="&_count=200")
            by_mark.extend(versions(page))
            assert len(page["link"]) == 1

    async def look() -> None:
        since = ""
        ended = False
        while not ended:
            ended = done.is_set()
            begun = datetime.now(UTC) - timedelta(seconds=10)
            page = await visit(actors[0], owner, since, rest="&_count=200")
            by_clock.update(versions(page))
            while following := next((link["url"] for link in page["link"] if link["relation"] == "next"), None):
                page = (await owner.get(following)).json()
                by_clock.update(versions(page))
            since = begun.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def work() -> list[list[str]]:
        try:
            return await asyncio.gather(*(write(actors, number, until) for number in range(WRITERS)))
        finally:
            done.set()

    made, _, _ = await asyncio.gather(work(), follow(), look())
    documents = await world.stored("DocumentReference", patient=owner.patient)
    current = {(one["_id"], str(one["version"])) for one in documents}
    assert {identifier for identifier, _ in current} == {identifier for found in made for identifier in found}
    assert len(current) > WRITERS
    assert len(by_mark) == len(set(by_mark))
    assert set(by_mark) >= current
    assert by_clock >= current


@pytest.mark.requirement("SRCH-07")
async def test_any_type_can_be_followed(world: World) -> None:
    owner = await world.patient()
    since = mark(await visit(owner, owner, "2020-01-01", "Observation"))
    made = [(await owner.create(observation(owner.patient)))["id"] for _ in range(3)]
    page = await visit(owner, owner, since, "Observation", "&_count=2")
    assert [identifier for identifier, _ in versions(page)] == made[:2]
    page = await visit(owner, owner, mark(page), "Observation", "&_count=2")
    assert [identifier for identifier, _ in versions(page)] == made[2:]
    assert versions(await visit(owner, owner, mark(page), "Observation")) == []
    assert "meta" not in (await owner.get(f"Observation?patient={owner.patient}")).json()


@pytest.mark.requirement("DOC-22")
async def test_watermark_and_hint_are_there_in_xml_too(world: World) -> None:
    owner = await world.patient()
    await owner.create(document(owner.patient))
    page = await owner.get(f"DocumentReference?patient={owner.patient}&_format=xml")
    assert page.status_code == 200
    assert (
        mark((await owner.get(f"DocumentReference?patient={owner.patient}", Accept=JSON)).json())
        in page.text.partition("<entry>")[0]
    )


@pytest.mark.requirement("DOC-21")
@pytest.mark.parametrize("count", [1, 20, 100])
async def test_the_contents_of_a_visit_come_in_one_batch(world: World, count: int) -> None:
    """In the order they were asked in, the same one twice too; what the caller may not read is as what is not there."""
    owner, other, doctor = await world.patient(), await world.patient(), await world.professional()
    await world.consent(owner, doctor)
    contents = [pdf(2_000) for _ in range(count)]
    posted = [one for content in contents for one in deposit(owner.patient, content)["entry"]]
    made = ids_of(await owner.post("", bundle("transaction", *posted)))
    raws = [identifier for identifier in made if identifier.startswith("Binary/")]
    _, hidden = await deposited(other, other.patient, pdf())
    missing = f"{hidden[:-4]}none"
    urls = [*raws, raws[0], hidden, missing, f"Patient/{owner.patient}", "Observation/x", made[0]]
    answer = await doctor.post("", bundle("batch", *(entry("GET", url) for url in urls)))
    assert answer.status_code == 200
    page = answer.json()
    assert page["type"] == "batch-response"
    found = page["entry"]
    for content, one in zip([*contents, contents[0]], found, strict=False):
        assert one["response"]["status"] == "200 OK"
        assert (one["resource"]["contentType"], b64decode(one["resource"]["data"])) == (PDF, content)
    told = [(one["response"]["status"][:3], one["response"].get("outcome")) for one in found[count + 1 :]]
    assert [status for status, _ in told] == ["404", "404", "200", "404", "200"]
    for _, outcome in told[:2]:
        outcome["issue"][0].pop("expression")  # (where it stands in the Bundle)
    assert told[0] == told[1]
    log = await owner.search(f"AuditEvent?patient={owner.patient}&agent={doctor.reference}&_count=200")
    assert len([event for event in log if event["action"] == "R"]) == count + 3
    tried = await other.search(f"AuditEvent?patient={other.patient}&agent={doctor.reference}")
    assert [event["outcome"] for event in tried] == ["8"]


@pytest.mark.requirement("DOC-21", "SRCH-11")
async def test_a_batch_of_contents_takes_few_calls_whoever_asks(world: World) -> None:
    owner, doctor, stranger = await world.patient(), await world.professional(), await world.professional()
    await world.consent(owner, doctor)
    raws = [(await deposited(owner, owner.patient, pdf()))[1] for _ in range(20)]
    missing = [f"{raw[:-4]}none" for raw in raws]

    async def calls(actor: Actor, urls: list[str]) -> int:
        sent = bundle("batch", *(entry("GET", url) for url in urls))
        return await world.calls_of(lambda: actor.post("", sent))

    assert await calls(doctor, raws) <= 8
    assert await calls(stranger, raws) == await calls(stranger, missing)


@pytest.mark.requirement("DOC-21")
async def test_what_a_batch_reads_behind_its_own_write_is_what_was_written(world: World) -> None:
    owner = await world.patient()
    made = [await owner.create(document(owner.patient)) for _ in range(2)]
    paths = [f"DocumentReference/{one['id']}" for one in made]
    changed = {**made[0], "status": "superseded"}
    asked = [entry("GET", path) for path in paths]
    answer = (await owner.post("", bundle("batch", *asked, entry("PUT", paths[0], changed), *asked))).json()
    read = [answer["entry"][n]["resource"]["meta"]["versionId"] for n in (0, 1, 3, 4)]
    assert read == ["1", "1", "2", "1"]


@pytest.mark.requirement("DOC-21", "CORE-01")
async def test_batches_are_declared(world: World) -> None:
    (rest,) = (await world.http.get(f"{BASE}/metadata")).json()["rest"]
    assert "batch" in {one["code"] for one in rest["interaction"]}
    (documents,) = [one for one in rest["resource"] if one["type"] == "DocumentReference"]
    assert "_lastUpdated" in {one["name"] for one in documents["searchParam"]}
