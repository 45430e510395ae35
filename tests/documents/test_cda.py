"""CDA documents: taken as XML that declares nothing; the file one wraps is given to who asks for its type."""

import itertools
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.exchange.contents import CHUNK
from gateway.fhir.cda import EmbeddedReader, declares_nothing
from tests.documents.papers import PDF, attaching, binary, pdf, send_raw
from tests.world import Actor, World, expression

XML = "text/xml"
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<?xml-stylesheet type="text/xsl" href="cda.xsl"?>\n<!-- <!DOCTYPE x> -->\n'
    '<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    '<typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/><title>Compte rendu d\'été</title>'
    "<recordTarget><patientRole><id extension='2'/></patientRole></recordTarget>"
)


def cda(plain: bytes, media: str = PDF, *, width: int = 76, **attributes: str) -> bytes:
    """A document that wraps a file, with its base64 in lines as senders write it."""
    text = b64encode(plain).decode()
    lines = "\n".join(text[n : n + width] for n in range(0, len(text), width)) if width else text
    said = {"mediaType": media, "representation": "B64", **attributes}
    inside = "".join(f' {name}="{value}"' for name, value in said.items() if value)
    return f"{HEAD}<component><nonXMLBody><text{inside}>{lines}</text></nonXMLBody></component></ClinicalDocument>".encode()


async def stored(owner: Actor, content: bytes, media: str = XML) -> str:
    made = await send_raw(owner, content, media)
    assert made.status_code == 201, made.text
    raw = f"Binary/{made.json()['id']}"
    await owner.create(attaching(owner.patient, raw))
    return raw


@pytest.mark.requirement("DOC-14")
@pytest.mark.parametrize("size", [1_000, 2 * CHUNK])
@pytest.mark.parametrize("media", [XML, "application/xml"])
async def test_the_file_it_wraps_is_given_to_who_asks_for_it(world: World, size: int, media: str) -> None:
    owner, inside = await world.patient(), pdf(size, seed="cda")
    document = cda(inside)
    raw = await stored(owner, document, media)
    for accept in (PDF, f"{PDF}, */*;q=0.5", f"{PDF}, {XML}"):
        answer = await owner.get(raw, Accept=accept)
        assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, PDF, inside)
        assert answer.headers["content-disposition"].endswith('.pdf"')
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
    assert (await owner.get(f"{raw}?_format={PDF}")).content == inside
    head = await owner.send("HEAD", raw, Accept=PDF)
    assert (head.headers["content-length"], head.content) == (str(len(inside)), b"")
    for accept in (media, "*/*", f"{PDF};q=0.1, */*", ""):
        answer = await owner.get(raw, Accept=accept)
        assert (answer.headers["content-type"], answer.content) == (media, document)
    assert (await owner.get(raw, Accept="application/fhir+json")).json()["contentType"] == media
    assert (await owner.get(raw, Accept="image/png")).status_code == 406


async def test_who_may_not_read_the_document_is_not_given_the_file(world: World) -> None:
    owner, stranger = await world.patient(), await world.professional()
    raw = await stored(owner, cda(pdf()))
    ghost = f"Binary/{world.gateway.ids.new(owner.patient[:3])}"
    answers = [await stranger.get(one, Accept=PDF) for one in (raw, ghost)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content


NOT_THERE: dict[str, bytes] = {
    "sections in place of a file": f"{HEAD}<component><structuredBody/></component></ClinicalDocument>".encode(),
    "another type": cda(pdf(), "image/png"),
    "a type that is not taken": cda(b"MZ\x90", "application/x-msdownload"),
    "no PDF": cda(b"<html><script>alert(1)</script></html>"),
    "no base64": cda(pdf(), representation="TXT"),
    "compressed": cda(pdf(), compression="DF"),
    "broken base64": cda(pdf()).replace(b"</text>", b"=A</text>"),
    "no CDA": cda(pdf()).replace(b"ClinicalDocument", b"Document"),
    "another namespace": cda(pdf()).replace(b"urn:hl7-org:v3", b"urn:x"),
    "elements inside": cda(pdf()).replace(b"</text>", b"<b/></text>"),
    "cut off": cda(pdf())[:-200],
    "a bush of elements": HEAD.encode() + b"<a/>" * 30_000 + cda(pdf()).removeprefix(HEAD.encode()),
    "another place": cda(pdf()).replace(b"nonXMLBody", b"observationMedia"),
}


@pytest.mark.parametrize("name", NOT_THERE)
async def test_what_wraps_no_such_file_is_said_to_be_what_it_is(world: World, name: str) -> None:
    owner = await world.patient()
    raw = await stored(owner, NOT_THERE[name])
    assert (await owner.get(raw, Accept=PDF)).status_code == 406
    answer = await owner.get(raw, Accept=f"{PDF}, */*;q=0.5")
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, XML, NOT_THERE[name])


DECLARED: dict[str, bytes] = {
    "a type": b"<!DOCTYPE a><a/>",
    "an entity": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e "e">]><a>&e;</a>',
    "a file": b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>',
    "behind a comment": b"<!-- x --><!DOCTYPE a><a/>",
    "behind an instruction": b"<?x y?>\n<!DOCTYPE a><a/>",
    "in other letters": b"<!doctype a><a/>",
    "no element for long": b"<?x " + b"y" * CHUNK + b"?><a/>",
}


@pytest.mark.requirement("DOC-24")
@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("media", [XML, "application/xml"])
async def test_xml_that_declares_anything_is_not_taken(world: World, name: str, media: str) -> None:
    owner = await world.patient()
    for answer in (await send_raw(owner, DECLARED[name], media), await owner.post("Binary", binary(DECLARED[name], media))):
        assert (answer.status_code, expression(answer)) == (422, "Binary.contentType")
    assert await world.stored("contents", patient=owner.patient) == []


@given(plain=st.binary(max_size=300), width=st.sampled_from([0, 1, 76]), cuts=st.lists(st.integers(0, 2_000), max_size=8))
def test_it_is_read_in_any_pieces(plain: bytes, width: int, cuts: list[int]) -> None:
    text, reader = cda(plain, width=width), EmbeddedReader()
    places = sorted({0, *(cut % len(text) for cut in cuts), len(text)})
    for first, end in itertools.pairwise(places):
        if not reader.feed(text[first:end]):
            break
    found = reader.result()
    assert found is not None
    assert (found.media, found.plain) == (PDF, plain)


@given(text=st.binary(max_size=200) | st.text(alphabet='<>!?-"= &;aD\n', max_size=60).map(str.encode))
def test_no_bytes_break_it(text: bytes) -> None:
    reader = EmbeddedReader()
    reader.feed(text)
    assert reader.result() is None
    assert declares_nothing(text) in (True, False)


@pytest.mark.parametrize("text", [b"<?" * 200_000, b"<!--" * 200_000, b" " * 500_000, b"<?x?>" * 100_000, b"<!---->" * 100_000])
def test_a_prolog_takes_no_longer_than_it_is(text: bytes) -> None:
    assert not declares_nothing(text)


def test_sections_and_bodies_are_told_apart() -> None:
    reader = EmbeddedReader()
    assert not reader.feed(b"<html><body/></html>")
    assert reader.result() is None


def test_a_file_is_offered_only_when_it_is_whole() -> None:
    reader: Any = EmbeddedReader()
    text = cda(pdf())
    reader.feed(text[:-150])
    assert reader.result() is None
