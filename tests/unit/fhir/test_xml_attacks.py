"""Documents made to harm: nothing is loaded, nothing grows, nothing is taken for what it is not, and no value is repeated."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.registry import Registry
from gateway.fhir.xml_read import XmlReader
from gateway.fhir.xml_shape import Shapes
from gateway.problem import Problem

NAMESPACE = 'xmlns="http://hl7.org/fhir"'
PATIENT = f'<Patient {NAMESPACE}><name><text value="Durand"/></name></Patient>'
SECRET = "the secret of the house"
PROLOG = "before its root element"


@pytest.fixture(scope="module")
def reader(registry: Registry) -> XmlReader:
    return XmlReader(Shapes(registry.types), 64)


@pytest.fixture(scope="module")
def asked() -> Iterator[list[str]]:
    """What was asked of a server on this machine; its address is the first item."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen.append(f"http://127.0.0.1:{server.server_port}")
        yield seen
        server.shutdown()


def refusal(reader: XmlReader, document: str | bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        reader.read(document.encode() if isinstance(document, str) else document)
    problem = caught.value
    assert (problem.status, problem.code) == (400, "structure")
    assert not any(word in str(problem.outcome()) for word in (SECRET, "Durand", "passwd", "lol"))
    return problem


def laughs(levels: int) -> str:
    entities = ['<!ENTITY l0 "lol">']
    entities += [f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, levels)]
    return f"<!DOCTYPE Patient [{''.join(entities)}]>{PATIENT.replace('Durand', f'&l{levels - 1};')}"


@pytest.mark.requirement("ATK-T16")
@pytest.mark.parametrize(
    "document",
    [
        laughs(2),
        laughs(10),
        f"<!DOCTYPE Patient>{PATIENT}",
        f"<!-- a --> <!DOCTYPE Patient>{PATIENT}",
        f"<!-- <Patient> --><!DOCTYPE Patient>{PATIENT}",
        f'<!DOCTYPE Patient [<!ENTITY x "{"y" * 50_000}">]>{PATIENT.replace("Durand", "&x;" * 1000)}',
        f'<!DOCTYPE Patient [<!ENTITY x SYSTEM "file:///etc/passwd">]>{PATIENT.replace("Durand", "&x;")}',
        f'<!DOCTYPE Patient SYSTEM "http://127.0.0.1:9/x.dtd">{PATIENT}',
        f'<!DOCTYPE Patient [<!ENTITY % p SYSTEM "file:///etc/passwd">%p;]>{PATIENT}',
        f'<!DOCTYPE Patient [<!ATTLIST Patient value CDATA "x">]>{PATIENT}',
        f'<?xml-stylesheet href="http://127.0.0.1:9/x.xsl" type="text/xsl"?>{PATIENT}',
        f'<?xml version="1.0"?><?php phpinfo() ?>{PATIENT}',
        f'<?xml version="1.1"?>{PATIENT}',
        f'<?xml version="1.0" encoding="utf-7"?>{PATIENT}',
        f'<?xml version="1.0" encoding="utf-16"?>{PATIENT}',
        f'<?xml version="1.0" encoding="iso-8859-1"?>{PATIENT}',
        f'<?xml version="1.0" encoding="cp037"?>{PATIENT}',
        f' <?xml version="1.0"?>{PATIENT}',
        "",
        "   ",
        "Durand",
        '{"resourceType":"Patient"}',
        "<!-- " * 100_000,
        " " * 100_000 + "<!",
    ],
)
def test_a_prolog_holds_a_declaration_and_comments_alone(reader: XmlReader, document: str) -> None:
    assert PROLOG in str(refusal(reader, document))


@pytest.mark.requirement("ATK-T16")
@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize("shape", ["entity", "parameter", "dtd", "include", "schema"])
def test_nothing_outside_is_asked(reader: XmlReader, asked: list[str], tmp_path: Path, scheme: str, shape: str) -> None:
    (tmp_path / "secret").write_text(SECRET)
    url = f"{asked[0]}/secret" if scheme == "http" else (tmp_path / "secret").as_uri()
    hint = f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://hl7.org/fhir {url}"'
    document = {
        "entity": f'<!DOCTYPE a [<!ENTITY x SYSTEM "{url}">]>{PATIENT.replace("Durand", "&x;")}',
        "parameter": f'<!DOCTYPE a [<!ENTITY % p SYSTEM "{url}"> %p;]>{PATIENT}',
        "dtd": f'<!DOCTYPE Patient SYSTEM "{url}">{PATIENT}',
        "include": PATIENT.replace("<name>", f'<i:include xmlns:i="http://www.w3.org/2001/XInclude" href="{url}"/><name>'),
        "schema": PATIENT.replace("<name>", f"<name {hint}>"),
    }[shape]
    problem = refusal(reader, document)
    assert asked[1:] == []
    if shape in ("include", "schema"):
        name = "include" if shape == "include" else "name[0].schemaLocation"
        assert problem.issues[0].expression == f"Patient.{name}"


@pytest.mark.parametrize(
    "document",
    [
        PATIENT.encode("utf-16"),
        PATIENT.encode("utf-16-le"),
        PATIENT.encode("utf-32"),
        PATIENT.encode("utf-7").replace(b"<", b"+ADw-"),
        PATIENT.encode("cp037"),
        PATIENT.replace("Durand", "é").encode("latin-1"),
        PATIENT.encode() + b"\xc0\xaf",
        PATIENT.replace("Durand", "@").encode().replace(b"@", b"\xed\xa0\x80"),
        PATIENT.encode().replace(b"Durand", b"a\x00b"),
        PATIENT.replace("Durand", "&#0;"),
        PATIENT.replace("Durand", "&#x1F;"),
        PATIENT.replace("Durand", "&#xFFFF;"),
        PATIENT.replace("Durand", "&#xD800;"),
        PATIENT.replace("Durand", "\x0b"),
        PATIENT.replace("Durand", "&nbsp;"),
        PATIENT.replace("Durand", "&x;"),
        PATIENT.replace("Durand", "a<!-- -->b"),
        PATIENT.replace("Durand", "a<![CDATA[b]]>"),
        PATIENT.replace("value=", 'value="a" value='),
        PATIENT.replace("<name>", "<name><?php x ?>"),
        PATIENT + "<?php x ?>",
        PATIENT + PATIENT,
        PATIENT + "a",
        PATIENT[:-1],
        PATIENT.replace("</name>", "<![CDATA[a]]></name>"),
        PATIENT.replace("</name>", "a</name>"),
        PATIENT.replace("<name>", "<x:name xmlns:x='http://hl7.org/fhir'>"),
        PATIENT.replace("<name>", "<y:name>").replace("</name>", "</y:name>"),
        PATIENT.replace("<name>", '<name xmlns="urn:other">'),
        PATIENT.replace("<text ", '<text xml:base="http://127.0.0.1:9/" '),
        PATIENT.replace("<text ", '<text xmlns:v="urn:v" v:value="b" '),
        PATIENT.replace("http://hl7.org/fhir", "HTTP://hl7.org/fhir"),
        f"<Patient {NAMESPACE}>" + "<name>" * 300 + "</name>" * 300 + "</Patient>",
        f"<Patient {NAMESPACE}>" + "<name>" * 200_000,
        f"<Bundle {NAMESPACE}>" + "<entry><resource><Bundle>" * 60 + "</Bundle></resource></entry>" * 60 + "</Bundle>",
    ],
)
def test_what_is_no_document_of_ours(reader: XmlReader, document: str | bytes) -> None:
    refusal(reader, document)


def test_a_mark_of_the_byte_order_is_let_stand(reader: XmlReader) -> None:
    assert reader.read(b"\xef\xbb\xbf" + PATIENT.encode()) == reader.read(PATIENT.encode())


def test_what_is_said_of_a_document_grows_no_faster_than_it(reader: XmlReader) -> None:
    names = '<name><given value="a"/><given value="b" id="c"/></name>' * 2_000
    document = f"<Patient {NAMESPACE}>{names}</Patient>"
    assert len(reader.read(document.encode())) < 2 * len(document)


WHOLE = b"""<?xml version="1.0" encoding="UTF-8"?><!-- a -->
<Bundle xmlns="http://hl7.org/fhir"><type value="batch"/><entry><resource><Patient><text><status value="generated"/>
<div xmlns="http://www.w3.org/1999/xhtml"><p title="&lt;">a<br/>&#233;</p></div></text><active id="a" value="true"/>
<name><given value="a"/><given><extension url="b"><valueDecimal value="1.50"/></extension></given></name>
</Patient></resource></entry></Bundle>"""
BITS = (
    *b"< > </ /> & &x; \" ' = <!-- --> <![CDATA[ ]]> <? ?> x: <name> <Patient> <div/>".split(),
    *(b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    *(b"<!DOCTYPE x>", b" xmlns='a'", b" value=''"),
)


def is_read_or_refused(reader: XmlReader, document: bytes) -> bool:
    """Whether a document is read as JSON, or refused as such documents are."""
    try:
        found = reader.read(document)
    except Problem as problem:
        return problem.code in ("structure", "invariant")
    return bool(json.loads(found)["resourceType"] == "Bundle")


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 30), st.sampled_from(BITS)), min_size=1, max_size=4))
def test_whatever_is_spoilt_is_read_as_json_or_refused(reader: XmlReader, changes: list[tuple[int, int, bytes]]) -> None:
    document = WHOLE
    for place, length, bit in changes:
        document = document[:place] + bit + document[place + length :]
    assert is_read_or_refused(reader, document)
