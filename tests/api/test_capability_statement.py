"""What the CapabilityStatement declares works, and what it does not declare is refused."""

from typing import Any

import httpx
import pytest
from fhir.resources.R4B.capabilitystatement import CapabilityStatement

from tests.examples import TYPES, bring, prepare, writer_of
from tests.searches import any_value
from tests.world import BASE, Actor, World, bundle, entry, issues, observation, unique

INTERACTIONS = {
    "read": ("GET", "{type}/{id}"),
    "vread": ("GET", "{type}/{id}/_history/1"),
    "update": ("PUT", "{type}/{id}"),
    "patch": ("PATCH", "{type}/{id}"),
    "delete": ("DELETE", "{type}/{id}"),
    "history-instance": ("GET", "{type}/{id}/_history"),
    "history-type": ("GET", "{type}/_history"),
    "create": ("POST", "{type}"),
    "search-type": ("GET", "{type}?_id={id}"),
}
SYSTEM = {
    "transaction": ("POST", "", bundle("transaction", entry("GET", "Observation?_count=1"))),
    "batch": ("POST", "", bundle("batch", entry("GET", "Observation?_count=1"))),
    "search-system": ("GET", "?_type=Observation", None),
    "history-system": ("GET", "_history", None),
}


async def statement(world: World, **headers: str) -> dict[str, Any]:
    answer = await world.http.get(f"{BASE}/metadata", headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def declared(world: World, type_name: str) -> dict[str, Any]:
    (rest,) = (await statement(world))["rest"]
    (found,) = (resource for resource in rest["resource"] if resource["type"] == type_name)
    return dict(found)


@pytest.mark.requirement("CORE-01")
async def test_it_is_valid_and_says_what_this_is(world: World) -> None:
    found = CapabilityStatement.model_validate(await statement(world))
    assert (found.status, found.kind, found.fhirVersion) == ("active", "instance", "4.0.1")
    assert found.implementation.url == BASE
    [rest] = found.rest
    assert rest.mode == "server"
    stored = {resource.type for resource in rest.resource if resource.interaction}
    assert stored == set(world.gateway.registry.resource_types)
    for resource in rest.resource:
        names = [parameter.name for parameter in resource.searchParam or ()]
        assert len(names) == len(set(names)), resource.type
        urls = [parameter.definition for parameter in resource.searchParam or ()]
        assert all("/SearchParameter/" in url and url.startswith(DEFINED) for url in urls)


@pytest.mark.requirement("CORE-01")
async def test_a_token_changes_nothing_about_it(world: World) -> None:
    open_to_all = await world.http.get(f"{BASE}/metadata")
    assert open_to_all.headers["content-type"] == "application/fhir+json; charset=utf-8"
    owner = await world.patient()
    for authorization in (f"Bearer {owner.token}", "Bearer wrong", "Basic x"):
        assert await statement(world, Authorization=authorization) == open_to_all.json()


@pytest.mark.requirement("CORE-01")
@pytest.mark.parametrize(
    ("query", "status"),
    [("_format=json", 200), ("mode=full", 200), ("mode=terminology", 400), ("foo=bar", 400), ("access_token=x", 400)],
)
async def test_its_parameters(world: World, query: str, status: int) -> None:
    answer = await world.http.get(f"{BASE}/metadata?{query}")
    assert answer.status_code == status
    if status == 400:
        assert issues(answer)[0]["expression"] == [query.partition("=")[0]]


@pytest.mark.requirement("CORE-01", "CORE-11")
async def test_each_declared_format_is_answered_and_no_other(world: World) -> None:
    formats = (await statement(world))["format"]
    for name in formats:
        accepted = await world.http.get(f"{BASE}/metadata", headers={"Accept": name})
        asked = await world.http.get(f"{BASE}/metadata", params={"_format": name})
        assert (accepted.status_code, asked.status_code, accepted.content) == (200, 200, asked.content)
        assert name.rpartition("+")[2] in accepted.headers["content-type"]
        assert accepted.content.startswith(b"<?xml" if "xml" in name else b'{"resourceType":"CapabilityStatement"')
    assert {"application/fhir+json", "application/fhir+xml"} < set(formats)
    for name in ("text/turtle", "ttl"):
        assert (await world.http.get(f"{BASE}/metadata", params={"_format": name})).status_code == 406


@pytest.mark.requirement("CORE-01", "CORE-02")
@pytest.mark.parametrize("type_name", TYPES)
async def test_each_interaction_answers_if_and_only_if_it_is_declared(world: World, type_name: str) -> None:
    kind = world.gateway.registry[type_name]
    owner = await world.patient()
    writer = writer_of(world, kind, owner)
    found = {interaction["code"] for interaction in (await declared(world, type_name))["interaction"]}
    stored = await bring(world, type_name, owner) if "create" in found else await an_event(world, type_name, owner.patient)
    reader = await world.patient_actor(stored["id"]) if kind.is_patient else owner
    for code, (method, path) in sorted(INTERACTIONS.items(), key=lambda item: item[0] == "delete"):
        body = {"create": await prepare(world, type_name, owner), "update": stored, "patch": []}.get(code)
        actor = world.operator if code == "history-type" else writer if method != "GET" else reader
        headers = {"Content-Type": "application/json-patch+json"} if code == "patch" else {}
        answer = await actor.send(method, path.format(type=type_name, id=stored["id"]), body, **headers)
        if code in found:
            assert answer.is_success or (answer.status_code, type_name) == (404, "Provenance"), (code, answer.text)
        else:
            assert answer.status_code in (404, 405), (code, answer.text)
            assert issues(answer)[0]["severity"] == "error"


async def an_event(world: World, type_name: str, patient: str) -> dict[str, Any]:
    """What the server wrote itself; of Provenances it writes none yet."""
    found = await world.stored(type_name, patient=patient)
    return {"resourceType": type_name, "id": found[0]["_id"] if found else f"{patient[:3]}-none"}


@pytest.mark.requirement("CORE-01")
@pytest.mark.parametrize("code", SYSTEM)
async def test_each_interaction_of_the_whole_system(world: World, code: str) -> None:
    (rest,) = (await statement(world))["rest"]
    method, path, body = SYSTEM[code]
    actor = world.operator if code == "history-system" else await world.patient()
    answer = await actor.send(method, path, body)
    if code in {interaction["code"] for interaction in rest["interaction"]}:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code in (404, 405)
        assert issues(answer)


@pytest.mark.requirement("CORE-02", "CORE-15")
@pytest.mark.parametrize("type_name", TYPES)
async def test_each_parameter_is_understood_if_and_only_if_it_is_declared(world: World, type_name: str) -> None:
    owner = await world.patient()
    parameters = {p["name"]: p["type"] for p in (await declared(world, type_name))["searchParam"]}
    elsewhere = {name for kind in world.gateway.registry.resource_types.values() for name in kind.search} - set(parameters)
    unknown = sorted(elsewhere | {"_tag", "_profile", "_source", "_text", "_content", "_has"})
    rest = bound(world, owner, type_name)
    queries = [
        f"{type_name}?{name}={any_value(world.gateway.registry[type_name], name, kind)}&{name}:missing=true&{rest}"
        for name, kind in parameters.items()
    ]
    queries += [f"{type_name}?{name}=x&{rest}" for name in unknown]
    answers = (await owner.post("", bundle("batch", *(entry("GET", query) for query in queries)))).json()["entry"]
    for n, (name, item) in enumerate(zip([*parameters, *unknown], answers, strict=True)):
        status = item["response"]["status"][:3]
        if n < len(parameters):
            assert status == "200", (name, item)
        else:
            (issue,) = item["response"]["outcome"]["issue"]
            assert (status, issue["code"]) == ("400", "not-supported")
            assert f"'{name}'" in issue["diagnostics"]


@pytest.mark.requirement("SRCH-08", "CORE-01")
@pytest.mark.parametrize("type_name", TYPES)
async def test_each_include_is_understood_if_and_only_if_it_is_declared(world: World, type_name: str) -> None:
    owner = await world.patient()
    (rest,) = (await statement(world))["rest"]
    whose = f"&patient={owner.patient}" if world.gateway.registry[type_name].requires else ""
    for name, key in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude")):
        every = {value for resource in rest["resource"] for value in resource.get(key, ())} | {"Encounter:subject", "*:x"}
        there = set((await declared(world, type_name)).get(key, ()))
        asked = sorted(every)
        sent = bundle("batch", *(entry("GET", f"{type_name}?{name}={value}{whose}") for value in asked))
        answers = (await owner.post("", sent)).json()["entry"]
        understood = {value for value, item in zip(asked, answers, strict=True) if item["response"]["status"] == "200 OK"}
        assert understood == there
        for value, item in zip(asked, answers, strict=True):
            if value not in there:
                assert item["response"]["status"].startswith("400"), (name, value)


@pytest.mark.requirement("CORE-01", "CORE-07")
async def test_each_patch_format_is_read_if_and_only_if_it_is_declared(world: World) -> None:
    owner = await world.patient()
    stored = await owner.create(observation(owner.patient))
    formats = (await statement(world))["patchFormat"]
    for name in (*formats, "application/merge-patch+json", "application/xml-patch+xml", "text/plain"):
        body: Any = [] if "patch" in name else {"resourceType": "Parameters"}
        answer = await owner.send("PATCH", f"Observation/{stored['id']}", body, Content_Type=name)
        assert (answer.status_code == 415) is (name not in formats), answer.text


@pytest.mark.requirement("CORE-01")
@pytest.mark.parametrize("type_name", [*TYPES, "Bundle", "Encounter"])
async def test_each_operation_is_carried_out_if_and_only_if_it_is_declared(world: World, type_name: str) -> None:
    owner = await world.patient()
    (rest,) = (await statement(world))["rest"]
    found = {operation["name"] for r in rest["resource"] if r["type"] == type_name for operation in r.get("operation", ())}
    for name in sorted({*world.gateway.registry.operations, "everything", "meta-add", "meta-delete"}):
        offered = world.gateway.registry.operations.get(name)
        for level, path in (("type", type_name), ("instance", f"{type_name}/{owner.patient[:3]}-none")):
            answer = await owner.post(f"{path}/${name}", b"")
            if name in found and offered and offered.is_offered(type_name, level):
                # (there is no such instance, nothing was sent to a type, and no right of its own was given)
                # (some say of nobody that there is nobody, or begin with the token's patient)
                others = {"access-status": {200, 400}, "changes": {200}, "everything": {200}, "submission-status": {200}}
                nobody = others.get(name, {400, 404})
                nobody = nobody if "POST" in offered.methods else {405}
                assert answer.status_code in ({403} if offered.own_right else nobody), (name, answer.text)
                assert "operation" not in answer.text, (name, answer.text)
            else:
                assert (answer.status_code, issues(answer)[0]["code"]) == (404, "not-supported"), (name, answer.text)


# Where search parameters are defined: by HL7, by IHE, by the ANS.
DEFINED = ("http://hl7.org/fhir/", "https://profiles.ihe.net/ITI/MHD/", "https://interop.esante.gouv.fr/ig/fhir/pdsm/")


def bound(world: World, owner: Actor, type_name: str) -> str:
    """What an index leads to, which directories ask for, and whose what is asked for is, where that must be said."""
    whose = f"&patient={owner.patient}" if world.gateway.registry[type_name].requires else ""
    return f"_lastUpdated=gt2000{whose}"


MODIFIED = {"missing": "true", "of-type": "a|b|c", "above": "http://x/y", "below": "http://x/y"}


@pytest.mark.requirement("CORE-02", "CORE-15")
@pytest.mark.parametrize("type_name", TYPES)
async def test_each_modifier_is_understood_if_and_only_if_it_is_declared(world: World, type_name: str) -> None:
    owner = await world.patient()
    asked: dict[tuple[str, str], bool] = {}
    for parameter in (await declared(world, type_name))["searchParam"]:
        modifiers = parameter["documentation"].removeprefix("Modifiers: ").split(", ")
        for modifier in ("missing", "not", "exact", "contains", "text", "above", "below", "in", "of-type", "identifier"):
            asked[parameter["name"], modifier] = modifier in modifiers
    queries = [
        f"{type_name}?{name}:{modifier}={MODIFIED.get(modifier, 'x')}&{bound(world, owner, type_name)}"
        for name, modifier in asked
    ]
    answers = (await owner.post("", bundle("batch", *(entry("GET", query) for query in queries)))).json()["entry"]
    for query, is_declared, item in zip(queries, asked.values(), answers, strict=True):
        status = item["response"]["status"][:3]
        assert status == ("200" if is_declared else "400"), (query, item)
        if not is_declared:
            assert item["response"]["outcome"]["issue"][0]["code"] == "not-supported", (query, item)


async def test_each_condition_it_declares_is_understood(world: World) -> None:
    owner = await world.patient()
    resource = await declared(world, "Observation")
    policy = ("conditionalCreate", "conditionalUpdate", "conditionalDelete", "updateCreate")
    assert [resource[name] for name in policy] == [True, True, "single", False]
    reading = observation(owner.patient)
    condition = f"identifier={reading['identifier'][0]['system']}|{reading['identifier'][0]['value']}"
    answers = [await owner.post("Observation", reading, If_None_Exist=condition) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    for method, status in (("PUT", 200), ("DELETE", 204)):
        answer = await owner.send(method, f"Observation?{condition}", reading if method == "PUT" else None)
        assert answer.status_code == status, answer.text
    undeclared = await owner.delete(f"Patient?_id={owner.patient}")
    assert (await declared(world, "Patient"))["conditionalDelete"] == "not-supported"
    assert (undeclared.status_code, issues(undeclared)[0]["code"]) == (405, "not-supported")
    own_id = f"{owner.patient[:3]}-chosen"
    assert (await owner.put(f"Observation/{own_id}", {**reading, "id": own_id})).status_code == 405


@pytest.mark.requirement("CORE-10")
async def test_conditional_read_is_fully_supported(world: World) -> None:
    owner = await world.patient()
    assert (await declared(world, "Observation"))["conditionalRead"] == "full-support"
    stored = await owner.create(observation(owner.patient))
    first = await owner.get(f"Observation/{stored['id']}")
    for name, value in (("If_None_Match", first.headers["etag"]), ("If_Modified_Since", first.headers["last-modified"])):
        assert (await owner.get(f"Observation/{stored['id']}", **{name: value})).status_code == 304


@pytest.mark.requirement("CORE-05")
async def test_versions_are_kept_and_checked(world: World) -> None:
    owner = await world.patient()
    resource = await declared(world, "Observation")
    assert (resource["versioning"], resource["readHistory"]) == ("versioned", True)
    stored = await owner.create(observation(owner.patient))
    address = f"Observation/{stored['id']}"
    assert (await owner.put(address, {**stored, "status": "amended"}, If_Match='W/"1"')).status_code == 200
    stale = await owner.put(address, {**stored, "status": "cancelled"}, If_Match='W/"1"')
    assert (stale.status_code, issues(stale)[0]["code"]) == (412, "conflict")
    assert (await owner.get(f"{address}/_history/1")).json() == stored


async def test_references_are_what_the_policy_says(world: World) -> None:
    owner = await world.patient()
    assert set((await declared(world, "Observation"))["referencePolicy"]) == {"literal", "logical", "enforced"}

    async def answer(**performer: Any) -> httpx.Response:
        return await owner.post("Observation", observation(owner.patient, performer=[performer]))

    assert (await answer(reference=f"Patient/{owner.patient}")).status_code == 201  # literal
    assert (await answer(identifier={"system": "urn:rpps", "value": "1"})).status_code == 201  # logical
    assert (await answer(reference="https://other.example/fhir/Practitioner/1")).status_code == 201  # not only local
    dangling = await answer(reference=f"Practitioner/{owner.patient[:3]}-nobody")
    assert dangling.status_code == 422
    assert issues(dangling)[0]["expression"][0].startswith("Observation.performer[0]")


@pytest.mark.requirement("CGM-05")
async def test_declared_profiles_are_held_against_what_claims_them(world: World) -> None:
    owner = await world.patient()
    for url in (await declared(world, "Observation"))["supportedProfile"]:
        wrong = observation(owner.patient, code={"text": "glucose"}, meta={"profile": [url]})
        answer = await owner.post("Observation", wrong)
        assert answer.status_code == 422, answer.text
        assert "Observation.code" in {i["expression"][0] for i in issues(answer)}
    assert await owner.search(f"Observation?patient={owner.patient}") == []
    unknown = observation(owner.patient, code={"text": "x"}, meta={"profile": [f"https://x.example/{unique()}"]})
    assert (await owner.post("Observation", unknown)).status_code == 201


async def test_everything_else_needs_a_token_and_pages_of_other_sites_see_the_statement_alone(world: World) -> None:
    (rest,) = (await statement(world))["rest"]
    assert rest["security"]["cors"] is True
    for path, seen in (("metadata", "*"), ("Organization", None)):
        answer = await world.http.get(f"{BASE}/{path}", headers={"Origin": "https://other.example"})
        assert answer.headers.get("access-control-allow-origin") == seen
    for path in ("Observation", "Patient/x", "Organization", "Consent?_id=x"):
        assert (await world.http.get(f"{BASE}/{path}")).status_code == 401
