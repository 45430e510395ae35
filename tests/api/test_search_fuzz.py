"""Searches and writes made up at random: an answer or a refusal that is an OperationOutcome, never a failure."""

import copy
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.fhir.registry import COMMON_PARAMETERS
from gateway.fhir.search import implied_parameters
from tests.conftest import packaged
from tests.world import Actor, World, consent, document, issues, observation

REGISTRY = packaged().registry
PROFILE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

PARAMETERS = [
    (kind.name, name)
    for kind in REGISTRY.resource_types.values()
    if "search-type" in kind.interactions
    for name in (*kind.search, *(p.name for p in implied_parameters(kind)), *COMMON_PARAMETERS)
]
MODIFIERS = [
    "",
    "",
    "",
    "",
    ":not",
    ":missing",
    ":exact",
    ":identifier",
    ":Patient",
    ":contains",
    ":",
    "::",
    ".identifier",
    ":of-type",
    ":text",
    ":above",
    ":below",
]
PIECES = st.sampled_from(
    """, | \\ \\, \\| \\\\ $ \\$ - . / : + % & = 0 1 9 e E ge lt ap ne eb sa eq 2026 2026-02-29 2026-11-20T08:00:00Z T Z 24:00
    9999-12-31 0001-01-01 -0 1e308 1e-400 0x1 NaN Infinity Patient/ http://loinc.org| urn:uuid: true false null # ? ; ' " < >
    _id 99504-3 mg/dL #1 \u0000 \u00e9 \U0001f489 \uffff Patient/1/_history/2 http://gateway.test/fhir/Patient/""".split(" ")
)
VALUES = st.lists(PIECES | st.text(max_size=6), max_size=6).map("".join)


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    owner = await session_world.patient()
    await owner.create(observation(owner.patient))
    await owner.create(document(owner.patient))
    return owner


@pytest.mark.requirement("SRCH-10", "SRCH-13", "CORE-13")
@PROFILE
@given(st.sampled_from(PARAMETERS), st.lists(st.tuples(st.sampled_from(MODIFIERS), VALUES), min_size=1, max_size=3), st.data())
async def test_any_search_is_answered_or_refused(
    camille: Actor, parameter: tuple[str, str], asked: list[tuple[str, str]], data: st.DataObject
) -> None:
    type_name, name = parameter
    pairs = [(f"{name}{modifier}", value.encode("utf-8", "replace").decode()) for modifier, value in asked]
    control = data.draw(st.sampled_from([[], [("_sort", "-_lastUpdated")], [("_count", "1")], [("_summary", "count")]]))
    answer = await camille.get(f"{type_name}?{urlencode([*pairs, *control])}")
    assert answer.status_code in (200, 400, 422), (pairs, answer.text)
    if answer.status_code != 200:
        assert (answer.status_code == 422) <= (issues(answer)[0]["code"] == "too-costly")
        assert issues(answer)[0]["code"] in ("invalid", "not-supported", "too-costly", "required")


HEADERS = [
    "accept",
    "prefer",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-none-exist",
    "content-type",
    "x-request-id",
]
HEADER_PIECES = st.sampled_from(
    """, ; = q=0 q=x * / */* W/ "1" " \\ application/fhir+json fhirVersion=4.0 fhirVersion= charset= json return=minimal return=
    handling=lenient handling Fri, 20 Nov 2026 08:00:00 GMT +9999 -0000 0 -1 code=x code: _id= %FF ? & {} $ne""".split(" ")
)
LINES = st.lists(HEADER_PIECES | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=4), max_size=8).map(
    " ".join
)


@pytest.mark.requirement("CORE-13")
@PROFILE
@given(st.dictionaries(st.sampled_from(HEADERS), LINES, min_size=1, max_size=4))
async def test_any_header_is_honoured_or_refused(camille: Actor, headers: dict[str, str]) -> None:
    stored = await camille.search("Observation?_count=1")
    path = f"Observation/{stored[0]['id']}"
    for answer in (
        await camille.get(path, **headers),
        await camille.get(f"{path}/_history", **headers),
        await camille.get("Observation?foo=bar", **headers),
        await camille.put(path, stored[0], **headers),
        await camille.post("Observation", stored[0], **headers),
        await camille.send("DELETE", "Observation/abc-1", **headers),
    ):
        assert answer.status_code in (200, 201, 304, 400, 404, 406, 409, 412, 415), (headers, answer.text)
        if answer.status_code >= 400:
            assert issues(answer)


SCRAPS = st.sampled_from(
    [
        *("null", "true", "0", "-1", "1.50", "1e30", '""', '" "', '"x"', '"2026-13-45"', '"Patient/x"', '"#x"', '"urn:uuid:x"'),
        *("[]", "{}", "[null]", "[[]]", "[{}]", '{"": 1}', '{"resourceType": "Patient"}', '{"reference": "Patient/x"}'),
        *('{"coding": [{}]}', '{"value": "1"}', '{"extension": []}', '"\\u0000"', '"\\ud800"'),
    ]
).map(json.loads)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


@pytest.mark.requirement("CORE-16", "CORE-13")
@PROFILE
@given(data=st.data(), kind=st.sampled_from(["Observation", "DocumentReference", "Consent"]))
async def test_any_body_is_stored_or_refused(camille: Actor, kind: str, data: st.DataObject) -> None:
    whole = {"Observation": observation, "DocumentReference": document}.get(kind, lambda _: consent(camille, camille))
    sent = copy.deepcopy(whole(camille.patient))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(sent)[1:]))
        *way, last = path
        target: Any = sent
        for step in way:
            target = target[step]
        if isinstance(target, dict) and data.draw(st.booleans()):
            last = data.draw(
                st.sampled_from([last, f"_{last}", "extension", "id", "contained", "modifierExtension", "meta", "text"])
            )
        target[last] = data.draw(SCRAPS)
    answer = await camille.post(kind, json.dumps(sent).encode())
    assert answer.status_code in (200, 201, 400, 403, 409, 422), (sent, answer.text)
    if answer.status_code >= 400:
        assert issues(answer)
    else:
        identifier = answer.headers["location"].split("/")[-3]
        assert (await camille.get(f"{kind}/{identifier}")).status_code == 200
