"""Tokens that are missing, unknown, spent or in the wrong place: answered as RFC 6750 says, and kept nowhere."""

from datetime import timedelta

import pytest

from tests.world import BASE, Actor, World, issues

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    return await session_world.patient()


@pytest.mark.requirement("SEC-040", "EXT-05")
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer  ", "Basic dXNlcjpwYXNz", "gwat_x", "DPoP x", "Bearer\tx"]
)
async def test_without_a_bearer_token_one_is_asked_for(world: World, authorization: str | None) -> None:
    """RFC 6750 §3: a request without authentication information gets no error code."""
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in (
        ("GET", "Observation"),
        ("GET", "Observation/abc-1"),
        ("PUT", "Observation/abc-1"),
        ("GET", "Foo"),
        ("POST", ""),
    ):
        sent = {**headers, "Content-Type": "application/fhir+json"}
        answer = await world.http.request(method, f"{BASE}/{path}".rstrip("/"), headers=sent, content=b"{}")
        assert (answer.status_code, issues(answer)[0]["code"]) == (401, "login")
        assert answer.headers["www-authenticate"] == 'Bearer realm="fhir"'


@pytest.mark.requirement("SEC-040", "EXT-05")
async def test_unknown_expired_and_revoked_tokens_are_refused_alike(world: World, camille: Actor) -> None:
    short_lived = await world.actor(
        "patient",
        "patient/*.rs",
        "portal",
        f"Patient/{camille.patient}",
        patient=camille.patient,
        lifetime=timedelta(minutes=5),
    )
    revoked = await world.patient_actor(camille.patient)
    for actor in (short_lived, revoked):
        assert (await actor.get("Observation")).status_code == 200
    await world.forget(revoked)
    world.clock.ahead = timedelta(minutes=5, seconds=1)
    unknown = [
        f"Bearer {text}" for text in ("x", "gwat_" + "x" * 43, "x" * 513, "x" * 5_000, "$ne", "caf\u00e9", "a b", "null")
    ]
    answers = [await actor.get("Observation") for actor in (short_lived, revoked)]
    answers += [await camille.http.get(f"{BASE}/Observation", headers={"Authorization": t.encode("latin-1")}) for t in unknown]
    for answer in answers:
        assert (answer.status_code, answer.content) == (401, answers[0].content)
        assert answer.headers["www-authenticate"] == 'Bearer realm="fhir", error="invalid_token"'
    assert issues(answers[0])[0]["code"] == "unknown"


@pytest.mark.requirement("SEC-040")
async def test_the_scheme_may_be_written_as_one_likes(camille: Actor) -> None:
    for scheme in ("bearer", "BEARER", "Bearer  "):
        assert (await camille.get("Observation", Authorization=f"{scheme} {camille.token}")).status_code == 200


@pytest.mark.requirement("SEC-040")
async def test_a_missing_scope_is_named(world: World, camille: Actor) -> None:
    narrow = await world.patient_actor(camille.patient, "patient/Device.rs")
    answer = await narrow.get(f"Observation?patient={camille.patient}")
    assert (answer.status_code, issues(answer)[0]["code"]) == (403, "forbidden")
    assert answer.headers["www-authenticate"] == (
        'Bearer realm="fhir", error="insufficient_scope", scope="patient/Observation.s"'
    )


@pytest.mark.requirement("SEC-030")
@pytest.mark.parametrize(
    "path", ["Observation", "Observation/abc-1", "Observation/abc-1/_history", "Observation/abc-1/_history/1"]
)
async def test_a_token_in_the_url_is_refused_even_if_it_is_good(camille: Actor, path: str) -> None:
    for authorization in (f"Bearer {camille.token}", ""):
        answer = await camille.get(f"{path}?access_token={camille.token}", Authorization=authorization)
        assert (answer.status_code, issues(answer)[0]["expression"]) == (400, ["access_token"])
        assert camille.token not in answer.text


@pytest.mark.requirement("SEC-030", "AUD-04")
async def test_a_token_in_a_form_is_refused_and_kept_nowhere(world: World) -> None:
    owner = await world.patient()
    form = f"code=x&access_token={owner.token}".encode()
    for headers in ({}, {"Prefer": "handling=lenient"}):
        answer = await owner.send("POST", "Observation/_search", form, Content_Type=FORM, **headers)
        assert (answer.status_code, issues(answer)[0]["expression"]) == (400, ["access_token"])
    events = await world.stored("AuditEvent", patient=owner.patient)
    assert owner.token not in str(events)
    assert [event for event in events if event["event"]["interaction"] == "search-type"] == []
