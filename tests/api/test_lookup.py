"""$lookup: a depositor addresses a patient by one exact identifier, learns id and active alone, and is seen doing it."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from gateway.exchange.misses import Misses
from gateway.problem import Problem
from tests.world import Actor, World, bundle, consent, entry, expression, issues, observation, patient

SCOPE = "user/*.crs user/Patient.$lookup"
LOOKUP = "Patient/$lookup"


def asked(identifier: Any) -> dict[str, Any]:
    """The Parameters of a lookup: an Identifier, or its text."""
    element = "valueString" if isinstance(identifier, str) else "valueIdentifier"
    return {"resourceType": "Parameters", "parameter": [{"name": "identifier", element: identifier}]}


def found(answer: httpx.Response) -> tuple[str, bool]:
    """Id and active of a lookup that found somebody, which say everything it says."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    reference, active = (parameter.popitem()[1] for parameter in body["parameter"])
    assert body == {"resourceType": "Parameters", "parameter": [{"name": "patient"}, {"name": "active"}]}
    assert "etag" not in answer.headers
    return reference["reference"].removeprefix("Patient/"), active


@pytest.fixture
async def stored(world: World) -> dict[str, Any]:
    """A Patient whom nobody treats and who has agreed to nothing."""
    return await world.operator.create(patient(active=True, gender="female"))


@pytest.fixture
async def depositor(world: World) -> Actor:
    return await world.professional(SCOPE)


def identifier_of(stored: dict[str, Any]) -> dict[str, str]:
    return {name: stored["identifier"][0][name] for name in ("system", "value")}


@pytest.mark.parametrize("as_text", [True, False])
async def test_id_and_active_are_told_and_a_deposit_goes_there(
    world: World, stored: dict[str, Any], depositor: Actor, as_text: bool
) -> None:
    identifier = identifier_of(stored)
    question = asked("{system}|{value}".format(**identifier) if as_text else identifier)
    assert found(await depositor.post(LOOKUP, question)) == (stored["id"], True)
    assert (await depositor.get(f"Patient/{stored['id']}")).status_code == 404
    assert (await depositor.post("Observation", observation(stored["id"]))).status_code == 201
    answer = await world.operator.put(f"Patient/{stored['id']}", {**stored, "active": False})
    assert answer.status_code == 200
    assert found(await depositor.post(LOOKUP, question)) == (stored["id"], False)


async def test_who_was_replaced_is_addressed_as_the_surviving_one(
    world: World, stored: dict[str, Any], depositor: Actor
) -> None:
    other = await world.operator.create(patient())
    survivor = {**other, "link": [{"other": {"reference": f"Patient/{stored['id']}"}, "type": "replaces"}]}
    survivor["identifier"] = other["identifier"] + stored["identifier"]
    replaced = {**stored, "active": False}
    replaced["link"] = [{"other": {"reference": f"Patient/{other['id']}"}, "type": "replaced-by"}]
    merging = bundle("transaction", *(entry("PUT", f"Patient/{one['id']}", one) for one in (survivor, replaced)))
    assert (await world.operator.post("", merging)).status_code == 200
    assert found(await depositor.post(LOOKUP, asked(identifier_of(stored)))) == (other["id"], True)


@pytest.mark.parametrize(
    ("parameters", "status", "element"),
    [
        ([], 422, "Parameters.parameter"),
        ([{"name": "identifier", "valueString": "{value}"}], 422, "Parameters.parameter[0]"),
        ([{"name": "identifier", "valueString": "|{value}"}], 422, "Parameters.parameter[0]"),
        ([{"name": "identifier", "valueString": "{system}|"}], 422, "Parameters.parameter[0]"),
        ([{"name": "identifier", "valueString": "{system}|{value},{system}|1"}], 422, "Parameters.parameter[0]"),
        ([{"name": "identifier", "valueString": "{system}|1*"}], 422, "Parameters.parameter[0]"),
        ([{"name": "identifier", "valueIdentifier": {"value": "{value}"}}], 422, "Parameters.parameter[0]"),
        ([{"name": "identifier", "valueIdentifier": {"system": "{system}"}}], 422, "Parameters.parameter[0]"),
        ([{"name": "identifier", "valueBoolean": True}], 400, "Parameters.parameter[0]"),
        ([{"name": "family", "valueString": "Durand"}], 400, "Parameters.parameter[0]"),
        ([{"name": "identifier", "valueString": "{system}|{value}"}] * 2, 400, "Parameters.parameter[1]"),
        ([{"name": "identifier", "valueString": "{system}|00000"}], 404, None),
    ],
)
async def test_anything_but_one_exact_identifier_finds_nobody(
    stored: dict[str, Any], depositor: Actor, parameters: list[dict[str, Any]], status: int, element: str | None
) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(one) for name, one in value.items()}
        return value.format(**identifier_of(stored)) if isinstance(value, str) else value

    sent = {"resourceType": "Parameters"} | ({"parameter": [filled(one) for one in parameters]} if parameters else {})
    answer = await depositor.post(LOOKUP, sent)
    assert (answer.status_code, expression(answer)) == (status, element), answer.text


async def test_an_identifier_stands_in_no_address(stored: dict[str, Any], depositor: Actor) -> None:
    path = "Patient/$lookup?identifier={system}|{value}".format(**identifier_of(stored))
    answer = await depositor.send("POST", path)
    assert (answer.status_code, expression(answer)) == (400, "identifier")
    answer = await depositor.get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    for other in (f"Patient/{stored['id']}/$lookup", "Practitioner/$lookup"):
        assert (await depositor.post(other, asked(identifier_of(stored)))).status_code == 404


async def test_an_identifier_of_two_patients_is_of_nobody(world: World, stored: dict[str, Any], depositor: Actor) -> None:
    twin = patient()
    twin["identifier"].append(identifier_of(stored))
    await world.operator.create(twin)
    assert (await depositor.post(LOOKUP, asked(identifier_of(stored)))).status_code == 404


@pytest.mark.parametrize("scope", ["user/*.cruds", "user/*.*", "user/Patient.crs", "system/*.cruds"])
async def test_no_other_scope_gives_the_right(world: World, stored: dict[str, Any], scope: str) -> None:
    actor = await world.professional(scope)
    answer = await actor.post(LOOKUP, asked(identifier_of(stored)))
    assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden")
    assert 'scope="system/Patient.$lookup"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("kind", ["patient", "proxy", "app"])
async def test_the_policy_gives_it_to_depositors_alone(world: World, stored: dict[str, Any], kind: str) -> None:
    owner = await world.patient()
    make: dict[str, Callable[..., Any]] = {"proxy": world.proxy, "app": world.app}
    actor = await (world.patient_actor(owner.patient, SCOPE) if kind == "patient" else make[kind](owner, SCOPE))
    answer = await actor.post(LOOKUP, asked(identifier_of(stored)))
    assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "scope", ["patient/Patient.$lookup", "user/*.$lookup", "user/Observation.$lookup", "user/Patient.$meta", "user/Patient.$x"]
)
async def test_a_scope_that_means_nothing_is_refused(world: World, scope: str) -> None:
    with pytest.raises(Problem, match="is not a scope this gateway knows"):
        await world.actor("professional", scope, reference="Practitioner/x", patient="abc-1")


@pytest.mark.requirement("ATK-T43")
@pytest.mark.parametrize("who", ["service without consent", "blocked professional", "reader"])
async def test_to_whom_nothing_can_be_deposited_is_told_as_if_not_there(world: World, who: str) -> None:
    owner = await world.patient()
    stored = (await world.operator.get(f"Patient/{owner.patient}")).json()
    if who == "service without consent":
        actor = await world.service(SCOPE)
    else:
        actor = await world.professional(SCOPE if who == "blocked professional" else "user/*.rs user/Patient.$lookup")
    if who == "blocked professional":
        assert found(await actor.post(LOOKUP, asked(identifier_of(stored))))[0] == owner.patient
        for action in ("access", "collect"):
            await owner.create(consent(owner, actor, action, type="deny"))
    questions = [asked(identifier_of(stored)), asked(identifier_of(patient()))]
    answers = [await actor.post(LOOKUP, question) for question in questions]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].text == answers[1].text
    counts = [await world.calls_of(lambda one=one: actor.post(LOOKUP, one)) for one in questions]  # type: ignore[misc]
    assert counts[0] == counts[1]
    told = await owner.search("AuditEvent?subtype=operation&outcome=8")
    assert len(told) == 4  # what was asked of them, one time and three


async def test_every_lookup_is_in_the_audit_and_misses_are_counted_in_the_log(
    world: World, depositor: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await world.patient()
    stored, nobody = (await world.operator.get(f"Patient/{owner.patient}")).json(), patient()
    with caplog.at_level(logging.WARNING, "gateway"):
        await depositor.post(LOOKUP, asked(identifier_of(stored)))
        assert not [one for one in caplog.records if one.getMessage() == "lookup.missed"]
        for _ in range(2):
            await depositor.post(LOOKUP, asked(identifier_of(nobody)))
    missed = [vars(one)["fields"] for one in caplog.records if one.getMessage() == "lookup.missed"]
    assert [one["count"] for one in missed] == [1, 2]
    assert {frozenset(one) for one in missed} == {frozenset({"client", "count"})}
    (event,) = await owner.search("AuditEvent?subtype=operation")
    assert event["outcome"] == "0"
    assert event["agent"][0]["who"]["identifier"]["value"] == missed[0]["client"]
    events = await world.stored("AuditEvent", **{"event.client": missed[0]["client"], "event.interaction": "$lookup"})
    assert sorted(one["event"]["outcome"] for one in events) == ["0", "8", "8"]
    assert all(identifier_of(one)["value"] not in str(events) for one in (stored, nobody))


def test_misses_are_those_of_the_last_hour_of_each_client() -> None:
    misses, now = Misses(), datetime(2026, 11, 25, tzinfo=UTC)
    assert [misses.count("a", now + timedelta(minutes=n)) for n in (0, 30, 59)] == [1, 2, 3]
    assert misses.count("b", now) == 1
    assert misses.count("a", now + timedelta(minutes=61)) == 3
    for n in range(1_100):
        misses.count(f"c{n}", now)
    assert misses.count("b", now) == 1
