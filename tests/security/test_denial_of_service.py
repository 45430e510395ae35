"""A request that is small or allowed costs little: processor time, memory, or the patience of others (T-19…T-22)."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.exchange.owners import preview
from gateway.fhir.codec import Codec
from gateway.fhir.narrative import check_div
from gateway.fhir.primitives import primitive_types
from gateway.fhir.values import string_value
from gateway.fhir.xhtml import XHTML
from gateway.fhir.xml_read import XmlReader
from gateway.fhir.xml_shape import FHIR, Shapes
from tests.conftest import packaged
from tests.security.cost import seconds_of, seconds_of_request
from tests.world import (
    World,
    bundle,
    care_team,
    concept,
    consent,
    device,
    document,
    entry,
    expression,
    instant,
    issues,
    observation,
    unique,
)

MEGABYTE = 1 << 20

READER = XmlReader(Shapes(packaged().registry.types), 64)
_ATTRIBUTES = " ".join(f'a{n}="b"' for n in range(40_000))

# Each took from three seconds to many hours, growing with the square of its size, before it was bounded.
COSTLY: dict[str, Callable[[Codec], Any]] = {
    "quotes within a string that never ends": lambda codec: codec.check_body(b"[" * 70 + b'"' + b'\\"' * 40_000),
    "nesting as deep as the body is long": lambda codec: codec.check_body(b"[" * 5 * MEGABYTE + b"]" * 5 * MEGABYTE),
    "elements that only a comparison name by name can judge": lambda codec: codec.decode("Patient", _with_ids_alone(600_000)),
    "a key repeated behind many others": lambda codec: codec.decode("Bundle", _with_keys(30_000)),
    "marks to be put in order": lambda _: string_value("a" + "\u0301\u0323" * 50_000),
    "characters that decompose into many": lambda _: string_value("\ufdfa" * MEGABYTE),
    "attributes of a narrative": lambda _: check_div(f'<div xmlns="{XHTML}" {_ATTRIBUTES}>a</div>'),
    "attributes of an element": lambda _: READER.read(f'<Patient xmlns="{FHIR}" {_ATTRIBUTES}/>'.encode()),
    "attributes inside a narrative": lambda _: READER.read(
        f'<Patient xmlns="{FHIR}"><text><div xmlns="{XHTML}"><b {_ATTRIBUTES}/></div></text></Patient>'.encode()
    ),
}


def _with_ids_alone(count: int) -> bytes:
    return b'{"resourceType":"Patient","name":[' + b",".join([b'{"id":"a"}'] * count) + b"]}"


def _with_keys(count: int) -> bytes:
    keys = "".join(f'"k{n}":1,' for n in range(count))
    resource = f'{{"resourceType":"Observation",{keys}"z":1,"z":1}}'
    return f'{{"resourceType":"Bundle","type":"batch","entry":[{{"resource":{resource}}}]}}'.encode()


@pytest.mark.parametrize("what", COSTLY)
@pytest.mark.requirement("ATK-T19", "ATK-T20", "LIM-002")
def test_bad_input_is_refused_in_linear_time(codec: Codec, what: str) -> None:
    assert seconds_of(lambda: COSTLY[what](codec)) < 1.5


PATTERNS = {
    name: kind.__metadata__[0].pattern
    for name, kind in primitive_types(MEGABYTE).items()
    if hasattr(kind, "__metadata__") and kind.__metadata__[0].pattern
}
PATHOLOGICAL = (
    "a" * MEGABYTE,
    "a " * (MEGABYTE // 2),
    " " * MEGABYTE,
    "AAAA" * (MEGABYTE // 4) + "!",
    "AAAA " * (MEGABYTE // 5) + "!",
    "AAAA" + " " * MEGABYTE + "!",
    "urn:oid:1" + ".1" * (MEGABYTE // 2) + "x",
    "2026-11-20T08:00:00." + "0" * MEGABYTE + "x",
    "\u00a0" * MEGABYTE,
)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.requirement("ATK-T19")
def test_no_pattern_backtracks(name: str) -> None:
    pattern = re.compile(PATTERNS[name])
    for text in PATHOLOGICAL:
        assert seconds_of(lambda text=text: pattern.search(text)) < 1.5, text[:12]  # type: ignore[misc]


async def test_many_references_to_many_contained(world: World) -> None:
    owner = await world.patient()
    parts = [{"resourceType": "Organization", "id": f"o{n}", "name": "x"} for n in range(1_500)]
    reading = observation(owner.patient or "", contained=parts, performer=[{"reference": f"#o{n}"} for n in range(1_500)])
    seconds, answer = await seconds_of_request(owner.post("Observation", reading))
    assert answer.status_code == 201, answer.text
    assert seconds < 2.5


@pytest.mark.requirement("LIM-001")
async def test_a_bundle_of_reads_stops_before_it_fills_the_memory(world: World) -> None:
    """A request of 10 kB could ask for gigabytes."""
    owner = await world.patient()
    text = {"contentType": "text/plain", "data": "YWFh" * (2 * MEGABYTE // 4)}
    stored = await owner.create(document(owner.patient or "", content=[{"attachment": text}] * 2))
    reads = [entry("GET", stored["content"][0]["attachment"]["url"]) for _ in range(100)]
    answer = await owner.post("", bundle("batch", *reads))
    statuses = [one["response"]["status"][:3] for one in answer.json()["entry"]]
    assert statuses == sorted(statuses)
    assert set(statuses) == {"200", "413"}
    assert answer.json()["entry"][-1]["response"]["outcome"]["issue"][0]["code"] == "too-costly"
    assert (await owner.post("", bundle("transaction", *reads))).status_code == 413


async def test_the_address_of_an_entry_is_as_long_as_one_of_a_request(world: World) -> None:
    owner = await world.patient()
    answer = await owner.post("", bundle("batch", entry("GET", f"Observation?code={'x' * 9_000}")))
    response = answer.json()["entry"][0]["response"]
    assert response["status"].startswith("413")
    assert response["outcome"]["issue"][0]["expression"] == ["Bundle.entry[0].request.url"]


@pytest.mark.requirement("LIM-001")
async def test_what_cannot_be_stored_is_refused_and_hurts_nobody_else(world: World) -> None:
    """Resources written at the same time share a transaction: one that is too large must not fail its neighbours."""
    owner, other = await world.patient(), await world.patient()
    system = {"system": "urn:x:s"}
    huge = observation(owner.patient or "", identifier=[{**system, "value": f"{n}{'z' * 900_000}"} for n in range(10)])
    neighbours = (other.post("Observation", observation(other.patient or "")) for _ in range(20))
    refused, *answers = await asyncio.gather(owner.post("Observation", huge), *neighbours)
    assert (refused.status_code, issues(refused)[0]["code"]) == (413, "too-long")
    assert [answer.status_code for answer in answers] == [201] * 20
    assert await world.stored("Observation", patient=owner.patient) == []


async def test_a_record_has_only_so_many_consents(world: World) -> None:
    """Each request about a record weighs all of them, whoever asks."""
    owner, limits = await world.patient(), world.gateway.limits
    small = consent(owner, None, "access")
    filled = await owner.post("", bundle("transaction", *(entry("POST", "Consent", small) for _ in range(limits.consents))))
    assert filled.status_code == 200, filled.text
    refused = await owner.post("Consent", small)
    assert (refused.status_code, issues(refused)[0]["code"]) == (422, "too-costly")
    assert len(await world.stored("Consent", patient=owner.patient)) == limits.consents
    first = filled.json()["entry"][0]["response"]["location"].split("/")[1]
    assert (await owner.delete(f"Consent/{first}")).status_code == 204
    assert (await owner.post("Consent", small)).status_code == 201


async def test_a_consent_is_short(world: World) -> None:
    owner = await world.patient()
    long = consent(owner, None, "access") | {"policy": [{"uri": f"urn:x:{n}"} for n in range(4_000)]}
    refused = await owner.post("Consent", long)
    assert (refused.status_code, issues(refused)[0]["code"], expression(refused)) == (413, "too-long", "Consent")


async def test_a_stranger_makes_nobody_look_up_much(world: World) -> None:
    """The body of a create is looked at before anybody is known to ask."""
    kind = world.gateway.registry["Observation"]
    few = observation("abc-x", hasMember=[{"reference": f"Observation/abc-{n}"} for n in range(5)])
    many = observation("abc-x", hasMember=[{"reference": f"Observation/abc-{n}"} for n in range(500)])
    padded = observation("abc-x", note=[{"text": "x" * 70_000}])
    assert len(preview(world.gateway, kind, json.dumps(few).encode())[0].targets) == 5
    assert preview(world.gateway, kind, json.dumps(many).encode())[0].targets == ()
    assert preview(world.gateway, kind, json.dumps(padded).encode())[0].patient is None


@pytest.mark.requirement("LIM-003")
async def test_database_calls_do_not_grow_with_a_transaction(world: World) -> None:
    owner = await world.patient()

    async def calls(count: int) -> int:
        entries = [
            entry("POST", "Observation", observation(owner.patient or ""), ifNoneExist=f"identifier={unique('c')}")
            for _ in range(count)
        ]
        before = world.gateway.mongo.calls
        answer = await owner.post("", bundle("transaction", *entries))
        assert answer.status_code == 200, answer.text
        return world.gateway.mongo.calls - before

    assert await calls(400) <= await calls(4) + 4


@pytest.mark.slow
@pytest.mark.requirement("LIM-001")
async def test_the_largest_allowed_bodies(world: World) -> None:
    """What the limits let through, at its most expensive, takes seconds at worst."""
    owner = await world.patient()
    identifier = owner.patient or ""
    names = [{"name": "\ufdfa" * 100, "type": "other"} for _ in range(25_000)]
    nested: dict[str, Any] = {"url": "urn:x:a", "valueString": "b"}
    for _ in range(28):
        nested = {"url": "urn:x:a", "extension": [nested]}
    escaped = json.dumps(observation(identifier, note=[{"text": "é"}] * 200))
    for body in (
        ("Device", json.dumps(device(identifier, deviceName=names), ensure_ascii=False)),
        ("Observation", json.dumps(observation(identifier, extension=[nested] * 8_000))),
        ("", json.dumps(bundle("batch", *(entry("POST", "Observation", json.loads(escaped)) for _ in range(1_000))))),
    ):
        seconds, answer = await seconds_of_request(owner.post(body[0], body[1].encode()))
        assert answer.status_code in (200, 201), answer.text[:200]
        assert seconds < 8


async def test_what_every_request_about_a_record_reads_does_not_grow_without_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Professionals may declare, and deposit, without any relation to the patient."""
    owner, doctor = await world.patient(), await world.professional()
    policy = world.gateway.policy
    narrow = replace(policy, most_relations=3, labels=replace(policy.labels, most_ends=3))
    monkeypatch.setattr(type(world.gateway), "policy", property(lambda _: narrow))

    async def kept(name: str) -> int:
        [head] = await world.stored("heads", _id=owner.patient)
        return len(head.get(name, {}))

    def team(**elements: Any) -> dict[str, Any]:
        return care_team(owner.patient, doctor.reference, world.clock(), **elements)

    crowd = team(participant=[{"member": {"reference": doctor.reference}}] * 31)
    answer = await doctor.post("CareTeam", crowd)
    assert (answer.status_code, expression(answer)) == (422, "CareTeam.participant")
    answer = await doctor.post("", bundle("transaction", *(entry("POST", "CareTeam", team()) for _ in range(4))))
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[3].resource")
    assert await kept("care") == 0
    long_ago = {"start": instant(world.clock() - timedelta(days=3)), "end": instant(world.clock() - timedelta(days=2))}
    for _ in range(6):
        await doctor.create(team(period=long_ago))
    assert await kept("care") <= 4  # (what is too much goes with the next)

    visible = "https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument"
    hidden = document(owner.patient, securityLabel=[concept(visible, "INVISIBLE_PATIENT")])
    several = bundle("transaction", *(entry("POST", "DocumentReference", hidden) for _ in range(4)))
    answer = await doctor.post("", several)
    assert (answer.status_code, expression(answer)) == (422, "Bundle.entry[3].resource.securityLabel")
    made = [await doctor.create(hidden) for _ in range(3)]
    answer = await doctor.post("DocumentReference", hidden)
    assert (answer.status_code, expression(answer)) == (422, "DocumentReference.securityLabel")
    assert (await doctor.post(f"DocumentReference/{made[0]['id']}/$withdraw", None)).status_code == 200
    await doctor.create(hidden)
