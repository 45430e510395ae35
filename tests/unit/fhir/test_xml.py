"""JSON and XML say the same: there and back nothing changes, digits and gaps included, and another library writes the same."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from gateway.fhir.codec import Codec
from gateway.fhir.registry import Registry
from gateway.fhir.xml_read import XmlReader
from gateway.fhir.xml_shape import Shapes
from gateway.fhir.xml_write import XmlWriter
from gateway.problem import Problem
from tests.examples import TYPES, read_example
from tests.unit.fhir.generate import Maker, dump
from tests.unit.fhir.test_codec import parse
from tests.unit.fhir.test_types import SEEDS

NAMESPACE = 'xmlns="http://hl7.org/fhir"'
DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'


class Both:
    """Reader and writer of the packaged types."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        shapes = Shapes(registry.types)
        self.reader, self.writer = XmlReader(shapes, 64), XmlWriter(shapes)

    def read(self, document: str) -> Any:
        """What a document says, as JSON with exact numbers."""
        return parse(self.reader.read(document.encode()))

    def refusal(self, document: str) -> tuple[str, str | None]:
        """Code and expression of what is wrong with a document."""
        with pytest.raises(Problem) as caught:
            self.reader.read(document.encode())
        return caught.value.code, caught.value.issues[0].expression


@pytest.fixture(scope="session")
def both(registry: Registry) -> Both:
    return Both(registry)


def patient(inside: str) -> str:
    return f"<Patient {NAMESPACE}>{inside}</Patient>"


def narrated(inside: str) -> str:
    return patient(f'<text><status value="generated"/>{DIV.format(inside)}</text>')


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_there_and_back(both: Both, seed: int) -> None:
    random = Random(seed)
    name = random.choice(sorted(both.registry.resource_types))
    sent = dump(Maker(both.registry.types, random).resource(name))
    for pretty in (False, True):
        document = both.writer.write(sent, pretty=pretty)
        assert document == both.writer.write(sent, pretty=pretty)
        assert parse(both.reader.read(document)) == parse(sent)


def test_every_example_of_the_specifications_goes_there_and_back(both: Both, codec: Codec, specifications: Path) -> None:
    seen = 0
    for file in sorted(specifications.rglob("*.json")):
        body = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
        if is_sound(codec, body):
            seen += 1
            assert same_but_for_layout(parse(both.reader.read(both.writer.write(body))), parse(body)), file
    assert seen > 300


def is_sound(codec: Codec, body: bytes | msgspec.Raw) -> bool:
    """Whether a file or an entry is a resource that keeps the standard, with all that it holds."""
    try:
        found = codec.decode(codec.peek_type(body), body)
    except Problem:
        return False
    held = [getattr(item, "resource", None) for name in ("entry", "parameter") for item in getattr(found, name, None) or ()]
    return all(is_sound(codec, resource) for resource in held if resource is not None)


def same_but_for_layout(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; narratives as XML, whatever their quotes and entities."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_but_for_layout(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_but_for_layout, one, other))
    if isinstance(one, str) and one.startswith("<div"):
        return etree.canonicalize(one) == etree.canonicalize(other)
    return bool(one == other)


@pytest.mark.parametrize("name", TYPES)
def test_another_library_has_the_same_elements_in_the_same_order(both: Both, name: str) -> None:
    made = [json.dumps(read_example(name)).encode()]
    made += [dump(Maker(both.registry.types, Random(seed)).resource(name)) for seed in range(12)]
    for body in made:
        theirs = both.registry.types.model(name).model_validate_json(body).model_dump_xml()
        assert elements(both.writer.write(body)) == elements(theirs)


def elements(document: bytes) -> list[str]:
    """Every tag, in order. (The other library takes ids of elements for elements, and loses digits of values.)"""
    return [element.tag for element in etree.fromstring(document).iter() if not element.tag.endswith("}id")]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ('<active value="true"/>', '"active":true'),
        ('<active\n value = "true" ></active>', '"active":true'),
        ('<!-- who --><active value="true"><!-- a --></active> <!-- b -->', '"active":true'),
        ('<active id="a" value="false"/>', '"active":false,"_active":{"id":"a"}'),
        ('<multipleBirthInteger value="+2"/>', '"multipleBirthInteger":2'),
        ('<name><given value="a"/><given value="b"/></name>', '"name":[{"given":["a","b"]}]'),
        (
            '<name><given value="a"/><given id="i"><extension url="http://e"><valueCode value="x"/></extension></given></name>',
            '"name":[{"given":["a",null],"_given":[null,{"id":"i","extension":[{"url":"http://e","valueCode":"x"}]}]}]',
        ),
        (
            '<birthDate><extension url="http://e"><valueDecimal value="5.10"/></extension></birthDate>',
            '"_birthDate":{"extension":[{"url":"http://e","valueDecimal":5.10}]}',
        ),
        ('<name id="n"><text value="a&#10;&quot;&lt;b&gt; &amp;"/></name>', '"name":[{"id":"n","text":"a\\n\\"<b> &"}]'),
        ('<contained><Device><id value="d"/></Device></contained>', '"contained":[{"resourceType":"Device","id":"d"}]'),
        ('<photo><data value="YQ=="/></photo>', '"photo":[{"data":"YQ=="}]'),
        ('<gender value=""/>', '"gender":""'),  # (to be refused where every value is)
    ],
)
def test_what_documents_say(both: Both, document: str, expected: str) -> None:
    assert both.read(patient(document)) == parse(f'{{"resourceType":"Patient",{expected}}}'.encode())


def test_a_prefix_is_as_good_as_none_and_a_hint_to_a_schema_is_not_followed(both: Both) -> None:
    document = """<?xml version="1.0" encoding="utf-8"?>
        <!-- by hand --><f:Patient xmlns:f="http://hl7.org/fhir" xmlns:h="http://www.w3.org/1999/xhtml"
          xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://hl7.org/fhir file:///etc/passwd">
          <f:text><f:status value="generated"/><h:div><h:p>a</h:p></h:div></f:text></f:Patient><!-- end -->"""
    text = {"status": "generated", "div": DIV.format("<p>a</p>")}
    assert both.read(document) == {"resourceType": "Patient", "text": text}


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("a &amp; <b>b</b> &lt;i>", "a &amp; <b>b</b> &lt;i&gt;"),
        ("<p/><br></br><a name='x'/>", '<p></p><br/><a name="x"></a>'),
        ("a\n  <b> b </b>\t&#160;&#13;", "a\n  <b> b </b>\t\xa0&#13;"),
        (
            '<p title=\'"&amp;&#10;\' xml:lang="fr">a<!-- c -->b</p>',
            '<p title="&quot;&amp;&#10;" xml:lang="fr">a<!-- c -->b</p>',
        ),
        ("<![CDATA[<script>1</script>]]>", "&lt;script&gt;1&lt;/script&gt;"),
    ],
)
def test_a_narrative_is_written_in_one_way(both: Both, inside: str, expected: str) -> None:
    found = both.read(narrated(inside))
    assert found["text"]["div"] == DIV.format(expected)
    written = both.writer.write(json.dumps(found).encode()).decode()
    assert DIV.format(expected) in written
    assert both.read(written) == found


def test_digits_stay(both: Both) -> None:
    for digits in ("5.10", "-0.50", "1e-7", "2.5E3", "0.000", "-0", "12345678901234567.80"):
        document = f'<Observation {NAMESPACE}><valueQuantity><value value="{digits}"/></valueQuantity></Observation>'
        body = both.reader.read(document.encode())
        assert f'"value":{digits}}}'.encode() in body
        assert f'<value value="{digits}"/>'.encode() in both.writer.write(body)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_text_is_written_and_read_again(both: Both, text: str) -> None:
    document = both.writer.write(json.dumps({"resourceType": "Patient", "name": [{"text": text}]}).encode())
    kept = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", text)
    assert both.read(document.decode())["name"] == [{"text": kept}]


def test_what_xml_cannot_hold_is_replaced(both: Both) -> None:
    document = both.writer.write(json.dumps({"resourceType": "Patient", "language": "a\u0001\uffff\r\tb"}).encode())
    assert etree.fromstring(document)[0].get("value") == "a\ufffd\ufffd\r\tb"


@pytest.mark.parametrize(
    ("document", "expression"),
    [
        ('<Patient><active value="true"/></Patient>', "Patient"),
        ('<Patient xmlns="http://hl7.org/fhir/"><active value="true"/></Patient>', "Patient"),
        (f"<Thing {NAMESPACE}/>", "Thing"),
        (f"<HumanName {NAMESPACE}/>", "HumanName"),
        (f"<Patient {NAMESPACE}/>", "Patient"),
        (patient('<nick value="a"/>'), "Patient.nick"),
        (patient('<name><nick value="a"/></name>'), "Patient.name[0].nick"),
        (patient('<name><text value="a"/></name><name><text value="b" lang="fr"/></name>'), "Patient.name[1].text.lang"),
        (patient('<name use="usual"/>'), "Patient.name[0].use"),
        (patient('<id id="a" value="b"><extension/></id>'), "Patient.id.extension[0]"),
        (patient('<id value="b"/><id value="c"/>'), "Patient.id"),
        (patient('<active value="true"/><active value="true"/>'), "Patient.active"),
        (patient('<birthDate value="2020"/><active value="true"/>'), "Patient.active"),
        (patient('<name><given value="a"/><family value="b"/><given value="c"/></name>'), "Patient.name[0].family"),
        (patient("<active/>"), "Patient.active"),
        (patient('<active value="1"/>'), "Patient.active"),
        (patient('<active value="TRUE"/>'), "Patient.active"),
        (patient("<active>true</active>"), "Patient.active"),
        (patient('<active value="true">true</active>'), "Patient.active"),
        (patient('<active value="true"/>true'), "Patient"),
        (patient('<active xmlns="" value="true"/>'), "Patient.active"),
        (patient('<active xmlns:f="http://hl7.org/fhir" f:value="true"/>'), "Patient.active.value"),
        (patient('<active value="true"><nick/></active>'), "Patient.active.nick"),
        (patient("<name/>"), "Patient.name[0]"),
        (patient("<name><!-- a --></name>"), "Patient.name[0]"),
        (patient('<multipleBirthInteger value="1.0"/>'), "Patient.multipleBirthInteger"),
        (patient('<multipleBirthInteger value="١"/>'), "Patient.multipleBirthInteger"),
        (patient('<multipleBirthInteger value="007"/>'), "Patient.multipleBirthInteger"),
        (patient("<contained/>"), "Patient.contained[0]"),
        (patient("<contained><Device/><Device/></contained>"), "Patient.contained[0]"),
        (patient("<contained>a<Device/></contained>"), "Patient.contained[0]"),
        (patient('<contained id="a"><Device/></contained>'), "Patient.contained[0]"),
        (patient("<contained><HumanName/></contained>"), "Patient.contained[0]"),
        (
            patient('<contained><Device><id value="a"/></Device></contained><contained><Device><name/></Device></contained>'),
            "Patient.contained[1].name",
        ),
        (patient('<div xmlns="http://www.w3.org/1999/xhtml"/>'), "Patient.div"),
        (patient('<text><status value="generated"/><div>a</div></text>'), "Patient.text.div"),
        (narrated('<svg xmlns="http://www.w3.org/2000/svg"/>'), "Patient.text.div"),
        (narrated('<p xmlns:x="urn:x" x:y="z">a</p>'), "Patient.text.div"),
        (
            patient("<name>" + '<extension url="a">' * 70 + "</extension>" * 70 + "</name>"),
            "Patient.name[0]" + ".extension[0]" * 63,
        ),
        (
            f"<Bundle {NAMESPACE}><entry/><entry><resource>{patient('<nick/>')}</resource></entry></Bundle>".replace(
                "<entry/>", '<entry><fullUrl value="urn:uuid:a"/></entry>'
            ),
            "Bundle.entry[1].resource.nick",
        ),
        (
            f"<Parameters {NAMESPACE}><parameter><valueDecimal value='.5'/></parameter></Parameters>",
            "Parameters.parameter[0].valueDecimal",
        ),
    ],
)
def test_a_refusal_names_the_place_as_in_json(both: Both, document: str, expression: str) -> None:
    code, found = both.refusal(document)
    assert found == expression
    assert code in ("structure", "invariant")


def test_a_div_has_no_twin_as_xml_has_no_place_for_it(codec: Codec) -> None:
    text = (
        f'{{"status":"generated","div":{json.dumps(DIV.format("a"))},"_div":{{"extension":[{{"url":"u","valueCode":"a"}}]}}}}'
    )
    with pytest.raises(Problem) as caught:
        codec.decode("Patient", f'{{"resourceType":"Patient","text":{text}}}'.encode())
    assert caught.value.issues[0].expression == "Patient.text._div"
