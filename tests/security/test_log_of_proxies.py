"""The log that a proxy reads names nothing that a label hides from proxies for good (SEC-02, AUD-004)."""

from typing import Any

import pytest

from gateway.store import through
from gateway.store.mongo import Part
from tests.api.test_label_writes import PARENTS, bearing, relabel, team
from tests.documents.papers import deposited, pdf
from tests.security.test_hidden_leaves_no_trace import log_of, named_in, queries_in
from tests.security.test_labels_hide import VISIBILITY
from tests.world import Actor, World, bundle, consent, document, entry, label, observation

V = label("V")


async def pages_of(actor: Actor, query: str) -> tuple[list[dict[str, Any]], set[int]]:
    """All events of a search, page by page, and the totals that the pages tell."""
    found, totals, url = [], set(), query
    while url:
        page = (await actor.get(url)).json()
        found += [one["resource"] for one in page.get("entry", ())]
        totals.add(page["total"])
        url = next((link["url"] for link in page.get("link", ()) if link["relation"] == "next"), "")
    return found, totals


@pytest.mark.requirement("SEC-02", "CON-007", "AUD-004")
@pytest.mark.parametrize("hiding", [PARENTS, V])
async def test_nothing_in_it_names_what_is_hidden_from_proxies(world: World, hiding: dict[str, str]) -> None:
    owner = await world.patient()
    author, *_ = await team(world, owner)
    address, raw = await deposited(author, owner.patient, pdf(), **bearing(hiding))
    hidden = {address, raw}
    proxy = await world.proxy(owner)
    for path in hidden:
        assert [(await one.get(path)).status_code for one in (owner, proxy)] == [200, 404]
        assert (await owner.get(f"{path}/_history/1")).status_code == 200
    await owner.get(address.replace("/", "?_id="))
    labelled = observation(owner.patient, meta={"security": [hiding]})
    plain = observation(owner.patient)
    both = (
        await author.post(
            "", bundle("transaction", entry("POST", "Observation", labelled), entry("POST", "Observation", plain))
        )
    ).json()
    unseen, seen = ("/".join(one["response"]["location"].split("/")[-4:-2]) for one in both["entry"])
    kept = [
        e
        for e in await world.stored("AuditEvent", patient=owner.patient)
        if (names := {one.partition("/_history/")[0] for one in e["event"].get("entities", ())}) and names <= hidden
    ]
    assert len(kept) > 5

    told = await log_of(proxy)
    assert not named_in(told) & {*hidden, unseen}
    assert seen in named_in(told)  # of one event only what is hidden is left out
    assert not any(one.partition("/")[2] in query for query in queries_in(told) for one in hidden)
    for event in kept:
        answers = [await proxy.get(f"AuditEvent/{i}") for i in (event["_id"], event["_id"][:-4] + "zzzz")]
        assert [one.status_code for one in answers] == [404, 404]
        assert answers[0].content == answers[1].content
        for form in ("AuditEvent?_id={}", "AuditEvent?_id={}&_summary=count"):
            assert (await proxy.get(form.format(event["_id"]))).json()["total"] == 0
    batch = bundle("batch", *(entry("GET", f"AuditEvent/{event['_id']}") for event in kept))
    answer = (await proxy.post("", batch)).json()
    assert {one["response"]["status"][:3] for one in answer["entry"]} == {"404"}
    paged, totals = await pages_of(proxy, f"AuditEvent?patient={owner.patient}&_count=3&_total=accurate&action=R,C")
    assert not named_in(paged) & {*hidden, unseen}
    assert max(totals) - len(paged) in range(len(totals) + 2)  # (each page leaves an event of its own)
    # Patients read all that was done with their own.
    assert named_in(await log_of(owner)) >= {*hidden, unseen, seen}


@pytest.mark.requirement("SEC-02", "AUD-004")
async def test_what_was_deleted_stays_hidden_and_what_is_disclosed_is_told(world: World) -> None:
    owner = await world.patient()
    author, *_ = await team(world, owner)
    deleted = await author.create(observation(owner.patient, meta={"security": [PARENTS]}))
    disclosed = await author.create(document(owner.patient, **bearing(PARENTS)))
    gone, told = f"Observation/{deleted['id']}", f"DocumentReference/{disclosed['id']}"
    assert (await author.delete(gone)).status_code in (200, 204)
    proxy = await world.proxy(owner)
    assert not named_in(await log_of(proxy)) & {gone, told}
    assert await relabel(author, disclosed) == 200
    assert named_in(await log_of(proxy)) & {gone, told} == {told}


@pytest.mark.requirement("SEC-02", "CON-008")
async def test_what_a_consent_opens_to_a_proxy_is_told(world: World) -> None:
    owner = await world.patient()
    author, *_ = await team(world, owner)
    open_to_them, closed = [
        f"DocumentReference/{(await author.create(document(owner.patient, **bearing(one))))['id']}" for one in (V, PARENTS)
    ]
    proxy = await world.proxy(owner)
    await owner.create(consent(owner, proxy, securityLabel=[V, label("INVISIBLE_REPRESENTANTS_LEGAUX", VISIBILITY)]))
    assert [(await proxy.get(one)).status_code for one in (open_to_them, closed)] == [200, 404]
    assert named_in(await log_of(proxy)) & {open_to_them, closed} == {open_to_them}


async def test_many_of_them_do_not_outgrow_a_filter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await world.patient()
    author, *_ = await team(world, owner)
    made = []
    for _ in range(10):
        body = bundle(
            "batch", *(entry("POST", "Observation", observation(owner.patient, meta={"security": [V]})) for _ in range(100))
        )
        made += [one["response"]["location"] for one in (await author.post("", body)).json()["entry"]]
    proxy = await world.proxy(owner)
    told = await log_of(proxy)
    assert told
    assert not any("Observation/" in one for one in named_in(told))
    monkeypatch.setattr(through, "MOST_HIDDEN", 999)
    refused = await proxy.get("AuditEvent?_count=5")
    assert (refused.status_code, refused.json()["issue"][0]["code"]) == (422, "too-costly")
    assert (await owner.get("AuditEvent?_count=5")).status_code == 200


async def test_it_costs_one_call_and_that_of_proxies_alone(world: World) -> None:
    owner = await world.patient()
    proxy = await world.proxy(owner)

    async def calls(actor: Actor, path: str) -> int:
        return await world.calls_of(lambda: actor.get(path))

    event = (await log_of(owner))[0]["id"]
    for path in ("AuditEvent?_count=3", f"AuditEvent/{event}"):
        assert await calls(proxy, path) == await calls(owner, path) + 1
    assert await calls(proxy, "Observation?_count=3") == await calls(owner, "Observation?_count=3")


async def test_an_index_leads_to_what_bears_such_labels(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await world.patient()
    author, *_ = await team(world, owner)
    proxy, mongo, asked = await world.proxy(owner), world.gateway.mongo, list[Part]()
    body = bundle("batch", *(entry("POST", "Observation", observation(owner.patient)) for _ in range(100)))
    await author.post("", body)
    for _ in range(3):
        await author.create(observation(owner.patient, meta={"security": [PARENTS]}))
    finding = mongo.find_all

    async def watched(parts: list[Part], **options: Any) -> list[dict[str, Any]]:
        asked.extend(parts if options.get("limit") else ())
        return await finding(parts, **options)

    monkeypatch.setattr(mongo, "find_all", watched)
    await proxy.search("AuditEvent?_count=5")
    types = {part.collection for part in asked}
    assert types >= {"Observation", "DocumentReference", "List", "Device", "Consent", "RelatedPerson"}
    assert types.isdisjoint({"AuditEvent", "Binary", "Patient"})
    for part in asked:
        explained = await mongo.explain(part.collection, part.where)
        plan, found = str(explained["queryPlanner"]["winningPlan"]), explained["executionStats"]
        assert max(found["totalDocsExamined"], found["totalKeysExamined"]) <= 5, part.collection
        assert "'indexName': 'labels'" in plan or (part.collection != "Observation" and "COLLSCAN" not in plan)
        assert "labels" in await mongo.indexes(part.collection)
