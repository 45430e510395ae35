"""What is not yet for the patient leaves no trace that they can see, ends, and cannot be counted by others."""

from base64 import b64decode
from datetime import timedelta
from typing import Any

import pytest

from gateway.exchange.labels import HIDDEN_UNTIL
from tests.api.test_label_writes import INVISIBLE, bearing, relabel, team, until
from tests.documents.papers import deposited, pdf
from tests.world import Actor, World, document, expression, instant, observation, unique


def named_in(events: list[dict[str, Any]]) -> set[str]:
    """What these events name, whatever version of it."""
    found = (entity.get("what", {}).get("reference", "") for event in events for entity in event.get("entity", ()))
    return {one.partition("/_history/")[0] for one in found}


def queries_in(events: list[dict[str, Any]]) -> list[str]:
    """What was asked, as these events tell it."""
    return [b64decode(one["query"]).decode() for event in events for one in event.get("entity", ()) if "query" in one]


async def log_of(actor: Actor) -> list[dict[str, Any]]:
    found = await actor.search("AuditEvent?_count=100")
    counted = (await actor.get("AuditEvent?_summary=count")).json()["total"]
    assert counted in (len(found), len(found) + 1)  # (the first search has left an event of its own)
    return found


@pytest.mark.requirement("SEC-02", "CON-007", "AUD-004")
async def test_nothing_in_their_log_names_it_before_its_end(world: World) -> None:
    owner = await world.patient()
    author, member, _ = await team(world, owner)
    address, raw = await deposited(author, owner.patient, pdf(), **bearing(INVISIBLE))
    hidden = {address, raw}
    for path in hidden:
        assert (await member.get(path)).status_code == 200
        assert (await member.get(f"{path}/_history/1")).status_code == 200
        assert (await owner.get(path)).status_code == 404
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"request": {"method": "POST", "url": "Observation"}, "resource": observation(owner.patient, meta={"security": s})}
            for s in ([INVISIBLE], [])
        ],
    }
    both = (await author.post("", {**bundle, "entry": [_plain(one) for one in bundle["entry"]]})).json()
    unseen, seen = ("/".join(one["response"]["location"].split("/")[-4:-2]) for one in both["entry"])
    kept = [e for e in await world.stored("AuditEvent", patient=owner.patient) if hidden & _entities(e)]
    assert len(kept) > 5

    for path in hidden:
        assert (await member.get(path.replace("/", "?_id="))).status_code in (200, 400, 403, 404, 405)
    for reader in (owner, await world.proxy(owner)):
        assert not any(one.partition("/")[2] in query for query in queries_in(await log_of(reader)) for one in hidden)
        told = named_in(await log_of(reader))
        assert not told & {*hidden, unseen}
        assert seen in told  # of one event only what is hidden is left out
        for event in kept:
            answers = [await reader.get(f"AuditEvent/{i}") for i in (event["_id"], event["_id"][:-4] + "zzzz")]
            assert [one.status_code for one in answers] == [404, 404]
            assert answers[0].content == answers[1].content

    world.clock.ahead += timedelta(days=91)
    again = await world.patient_actor(owner.patient)
    assert named_in(await log_of(again)) >= {*hidden, unseen, seen}
    assert any(address.partition("/")[2] in query for query in queries_in(await log_of(again)))
    assert (await again.get(f"AuditEvent/{kept[0]['_id']}")).status_code == 200


def _entities(event: dict[str, Any]) -> set[str]:
    return {one.partition("/_history/")[0] for one in event["event"].get("entities", ())}


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    resource = entry["resource"]
    return {
        **entry,
        "resource": resource if resource["meta"]["security"] else {k: v for k, v in resource.items() if k != "meta"},
    }


@pytest.mark.requirement("SEC-02")
async def test_once_it_is_disclosed_what_was_done_with_it_is_told(world: World) -> None:
    owner = await world.patient()
    author, *_ = await team(world, owner)
    stored = await author.create(document(owner.patient, **bearing(INVISIBLE)))
    reference = f"DocumentReference/{stored['id']}"
    assert reference not in named_in(await log_of(owner))
    assert await relabel(author, stored) == 200
    assert reference in named_in(await log_of(owner))


@pytest.mark.requirement("SEC-02")
async def test_it_is_not_put_off_again_and_again(world: World) -> None:
    owner = await world.patient()
    author, *_ = await team(world, owner)
    stored = await author.create(document(owner.patient, **bearing(INVISIBLE)))
    path = f"DocumentReference/{stored['id']}"
    world.clock.ahead += timedelta(days=60)
    author = await _again(world, author)
    await world.relation(owner, author)
    later = until(instant(world.clock() + timedelta(days=80)))
    present = (await author.get(path)).json()
    answer = await author.put(path, {**present, **bearing(later)})
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.securityLabel"), answer.text
    # Nor by taking it off and putting it on anew.
    assert await relabel(author, present) == 200
    disclosed = (await author.get(path)).json()
    assert (await author.put(path, {**disclosed, **bearing(later)})).status_code == 422
    assert await relabel(author, disclosed, INVISIBLE) == 200
    [coding] = (await author.get(path)).json()["securityLabel"][0]["coding"]
    [end] = [one["valueDateTime"] for one in coding["extension"] if one["url"] == HIDDEN_UNTIL]
    assert end <= instant(world.clock() + timedelta(days=30, minutes=5))
    world.clock.ahead += timedelta(days=31)
    again = await world.patient_actor(owner.patient)
    assert (await again.get(path)).status_code == 200


async def _again(world: World, actor: Actor) -> Actor:
    return await world.actor("professional", "user/*.cruds", None, actor.reference, user=actor.reference)


@pytest.mark.requirement("CON-007")
async def test_how_many_hold_what_one_may_not_see_is_nobody_s_to_know(world: World) -> None:
    value, most = unique("urn:oid:1.2"), world.gateway.limits.or_values
    shared = {"masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": value}}
    owners = [await world.patient() for _ in range(most + 1)]
    for owner in owners:
        await owner.create(document(owner.patient, **shared))
    doctor, path = await world.professional(), "DocumentReference?identifier=urn:ietf:rfc:3986|"
    hidden, missing = await doctor.get(path + value), await doctor.get(path + unique("urn:oid:9.9"))
    assert (hidden.status_code, missing.status_code) == (200, 200)
    assert hidden.json()["total"] == missing.json()["total"] == 0
    await world.relation(owners[-1], doctor)
    assert len(await doctor.search(path + value)) == 1
    for owner in owners[:-1]:
        await world.relation(owner, doctor)
    assert (await doctor.get(path + value)).status_code == 400  # all of them are theirs to see
