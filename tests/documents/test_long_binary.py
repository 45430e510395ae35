"""A Binary in JSON that is too long to be held: read as it comes, refused for what is no such thing."""

import itertools
import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.long_binary import LongBinary
from gateway.problem import Problem
from tests.documents.papers import PDF, attaching, binary, pdf
from tests.world import Actor, World, expression, issues, label


async def in_pieces(text: bytes, cuts: list[int]) -> Any:
    places = sorted({0, *(cut % (len(text) + 1) for cut in cuts), len(text)})
    for first, end in itertools.pairwise(places):
        yield text[first:end]


async def read(text: bytes, cuts: list[int]) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    found = LongBinary(in_pieces(text, cuts))
    began = await found.begin()
    plain = b"".join([piece async for piece in found.data()])
    return began, plain, found.said()


MEMBERS = st.dictionaries(
    st.text(max_size=5).filter(lambda name: name != "data"),
    st.recursive(st.none() | st.text() | st.integers(), st.lists),
    max_size=3,
)


@given(
    before=MEMBERS,
    behind=MEMBERS,
    plain=st.binary(max_size=200),
    cuts=st.lists(st.integers(0, 2_000)),
    indent=st.sampled_from([None, 2]),
)
async def test_it_is_read_as_json_would_be(
    before: dict[str, Any], behind: dict[str, Any], plain: bytes, cuts: list[int], indent: int | None
) -> None:
    behind = {name: value for name, value in behind.items() if name not in before}
    text = json.dumps({**before, "data": b64encode(plain).decode(), **behind}, indent=indent).encode()
    text = text.replace(b"/", b"\\/") if len(cuts) % 2 else text
    began, found, said = await read(text, cuts)
    assert (began, found, said) == ({**before, "data": ""}, plain, {**before, **behind})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"resourceType":"Binary"}',
        b'{"contained":[{"data":"QQ=="}]}',
        b'{"a":"data","b":"QQ=="}',
        b'{"data":7}',
        b'{"data":"QQ=="',
        b'{"data":"QQ==',
        b'{"data":"QQ="}',
        b'{"data":"QQ==QQ=="}',
        b'{"data":"Q Q="}',
        b'{"data":"QQ\\u003d="}',
        b'{"data":"QQ==","data":"QQ=="}',
        b'{"data":"QQ==","a":1,"a":2}',
        b'{"a":{"b":1,"b":2},"data":"QQ=="}',
        b'{"data":"QQ=="}{}',
        b'{"a":' + b"[" * 9_000 + b"]" * 9_000 + b',"data":"QQ=="}',
        b'{"a":"' + b"x" * 70_000 + b'","data":"QQ=="}',
        b'{"data":"QQ==","a":"' + b"x" * 70_000 + b'"}',
    ],
)
@pytest.mark.parametrize("cuts", [[], [1, 5, 9, 13], list(range(200))])
async def test_what_is_no_binary_is_refused(text: bytes, cuts: list[int]) -> None:
    with pytest.raises(Problem) as refused:
        await read(text, cuts)
    assert (refused.value.issues[0].expression or "").startswith("Binary")


def long_one(content: bytes, **elements: Any) -> bytes:
    """A Binary longer than what is taken into memory, with its data in the middle."""
    body = {"resourceType": "Binary", "contentType": PDF, "data": b64encode(content).decode(), **elements}
    return json.dumps(body).encode()


@pytest.fixture(scope="module")
def content(session_world: World) -> bytes:
    return pdf(session_world.gateway.limits.body_bytes, seed="long")


async def test_it_is_stored_with_all_that_it_says(world: World, content: bytes) -> None:
    owner = await world.patient()
    sent = long_one(content, meta={"security": [label("R")]}, language="fr")
    made = await owner.create(binary(b"%PDF-1.7 short", securityContext={"reference": f"Patient/{owner.patient}"}))
    assert "language" not in made
    answer = await owner.post("Binary", sent)
    assert answer.status_code == 201, answer.text
    raw = f"Binary/{answer.json()['id']}"
    await owner.create(attaching(owner.patient, raw, content))
    assert (await owner.get(raw)).content == content
    said = (await owner.get(f"{raw}?_elements=language,contentType,securityContext")).json()
    assert said["language"] == "fr"
    assert said["securityContext"] == {"reference": f"Patient/{owner.patient}"}
    assert (await owner.post("Binary", sent)).status_code == 200  # it is known by its bytes


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "a type that is not taken": ({"contentType": "application/x-msdownload"}, 422, "Binary.contentType"),
    "another type than it says": ({"contentType": "image/png"}, 422, "Binary.contentType"),
    "an element that there is not": ({"nothing": 1}, 400, "Binary.nothing"),
    "whose it is, said too late": ({"securityContext": {"reference": "Patient/x"}}, 422, "Binary.securityContext"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_taken_is_refused_at_its_place(world: World, content: bytes, name: str) -> None:
    owner = await world.patient()
    elements, status, place = REFUSED[name]
    answer = await owner.post("Binary", long_one(content, **elements))
    assert (answer.status_code, expression(answer)) == (status, place)
    assert await world.stored("Binary", patient=owner.patient) == []


async def test_what_must_stand_before_the_data_is_asked_for(world: World, content: bytes) -> None:
    owner, doctor = await world.patient(), await world.professional()
    data = b64encode(content).decode()
    late = json.dumps({"resourceType": "Binary", "data": data, "contentType": PDF}).encode()
    answer = await owner.post("Binary", late)
    assert (answer.status_code, expression(answer)) == (422, "Binary.contentType")
    answer = await doctor.post("Binary", long_one(content))
    assert (answer.status_code, expression(answer)) == (422, "Binary.securityContext")
    assert await world.stored("contents", patient=owner.patient) == []


async def deposit_for(actor: Actor, patient: str, content: bytes) -> Any:
    body = {"resourceType": "Binary", "contentType": PDF, "securityContext": {"reference": f"Patient/{patient}"}}
    return await actor.post("Binary", json.dumps({**body, "data": b64encode(content).decode()}).encode())


async def test_it_is_taken_for_a_patient_who_is_named(world: World, content: bytes) -> None:
    owner, doctor, service = await world.patient(), await world.professional(), await world.service()
    assert (await deposit_for(doctor, owner.patient, content)).status_code == 201
    ghost = world.gateway.ids.new(owner.patient[:3])
    refused = [await deposit_for(service, one, content) for one in (owner.patient, ghost)]
    assert [answer.status_code for answer in refused] == [422, 422]
    assert refused[0].content == refused[1].content


@pytest.mark.parametrize("header", ["Idempotency-Key", "If-None-Exist"])
async def test_it_takes_no_condition_and_no_key(world: World, content: bytes, header: str) -> None:
    owner = await world.patient()
    answer = await owner.post("Binary", long_one(content), **{header.replace("-", "_"): "x=y"})
    assert (answer.status_code, issues(answer)[0]["expression"]) == (400, [header])


async def test_as_xml_so_much_is_not_taken(world: World, content: bytes) -> None:
    owner = await world.patient()
    answer = await owner.post("Binary", long_one(content), Content_Type="application/fhir+xml")
    assert answer.status_code == 413
