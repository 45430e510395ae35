"""A narrative is harmless XHTML wherever it stands: in a resource, in a contained one, in a section."""

import json

import pytest

from gateway.fhir.codec import Codec
from gateway.fhir.narrative import check_div
from gateway.problem import Problem

DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'
TAB, LINE = "&#9;", "&#10;"


@pytest.mark.parametrize(
    "inside",
    [
        "<p>text &amp; <b>bold</b> &lt;script&gt;</p>",
        '<p class="a" style="color: red; padding: 6px" title="x" xml:lang="fr" lang="fr">a</p>',
        '<table class="grid"><tr><td colspan="2">a</td></tr></table><hr/><blockquote>b</blockquote>',
        '<a href="https://example.org/?a=1&amp;b=2">a</a>', '<a href="Patient/1">a</a>', '<a href="#inside">a</a>',
        '<a href="Patient-fr-patient-123.html">a</a>', '<a href="mailto:a@example.org">a</a>', '<a href="tel:+33 1">a</a>',
        '<a href="urn:uuid:0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0">a</a>', '<a href="../x:y">a</a>', '<a href="?a:b">a</a>',
        '<img src="#image" alt="a"/>', '<img src="data:image/png;base64,AAAA"/>', "<!-- a note --><p>a</p>",
        '<a name="b">a</a>',
    ],
)  # fmt: skip
def test_is_harmless(inside: str) -> None:
    assert check_div(DIV.format(inside)) is None


@pytest.mark.requirement("ATK-T15")
@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>", "<SCRIPT>alert(1)</SCRIPT>", '<script src="https://example.org/x.js"/>',
        '<a href="javascript:alert(1)">a</a>', '<a href=" javascript:alert(1)">a</a>', '<a href="JaVaScRiPt:alert(1)">a</a>',
        f'<a href="{TAB}javascript:alert(1)">a</a>', f'<a href="java{TAB}script:alert(1)">a</a>',
        f'<a href="java{LINE}script:alert(1)">a</a>', '<a href="&#106;avascript:alert(1)">a</a>',
        '<a href="javascript&#58;alert(1)">a</a>', '<a href="\u2028javascript:alert(1)">a</a>',
        '<a href="vbscript:x">a</a>', '<a href="data:text/html,&lt;script&gt;1&lt;/script&gt;">a</a>',
        '<a href="data:image/svg+xml;base64,AAAA">a</a>', '<img src="data:image/svg+xml,x"/>', '<a href="file:///etc/passwd">a</a>',
        '<a href="blob:https://example.org/x">a</a>', '<a href="view-source:x">a</a>',
        '<img src="x" onerror="alert(1)"/>', '<p onclick="alert(1)">a</p>', '<p ONCLICK="alert(1)">a</p>',
        '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "<svg><script>1</script></svg>",
        '<math xmlns="http://www.w3.org/1998/Math/MathML"><mtext>a</mtext></math>',
        '<h:script xmlns:h="http://www.w3.org/1999/xhtml">1</h:script>', '<x:a xmlns:x="urn:x">a</x:a>',
        '<a xlink:href="https://example.org" xmlns:xlink="http://www.w3.org/1999/xlink">a</a>',
        "<style>p{}</style>", '<link rel="stylesheet" href="https://example.org"/>', '<base href="https://example.org/"/>',
        '<meta http-equiv="refresh" content="0"/>', "<iframe>a</iframe>", '<object data="x"/>', '<embed src="x"/>',
        "<form>a</form>", "<input/>", "<button>a</button>", "<audio/>", "<video/>", "<template>a</template>",
        "<noscript>a</noscript>",
        '<p xml:base="https://example.org/">a</p>', '<form action="x"><p>a</p></form>', '<a href="x" target="_blank">a</a>',
        '<p style="background: url(https://example.org/x)">a</p>', '<p style="width: expression(alert(1))">a</p>',
        '<p style="behavior: x">a</p>', '<p style="-moz-binding: x">a</p>', '<p style="background: u\\72l(x)">a</p>',
        '<p style="@import x">a</p>', '<p style="position: fixed; top: 0">a</p>', '<p style="background:image-set(x)">a</p>',
        '<p style="background:&#117;rl(x)">a</p>', '<p style="ur/**/l(x)">a</p>',
        # a comment that HTML ends sooner than XML does
        "<!--><script>alert(1)</script>-->", "<!-- --!><img/> -->", "<!--[if IE]><p>a</p><![endif]-->",
        "<![CDATA[<script>alert(1)</script>]]>", "<?php a?>",
    ],
)  # fmt: skip
def test_is_not_harmless(inside: str) -> None:
    found = check_div(DIV.format(inside + "<p>a</p>"))
    assert found is not None
    assert found.startswith("txt-1: ")


@pytest.mark.parametrize(
    "div",
    [
        '<!DOCTYPE div [<!ENTITY a "b">]>' + DIV.format("&a;"),
        '<!DOCTYPE div SYSTEM "http://example.org/x.dtd">' + DIV.format("a"),
        '<?xml version="1.0"?>' + DIV.format("a"), "<div>a</div>", '<p xmlns="http://www.w3.org/1999/xhtml">a</p>', "a", "<div",
        DIV.format("<p>a"), DIV.format("a & b"), DIV.format("&nbsp;"), DIV.format("a") * 2, DIV.format("<p/>" * 10) + "x",
        DIV.format("<b>" * 300 + "a" + "</b>" * 300),
    ],
)  # fmt: skip
def test_is_no_narrative(div: str) -> None:
    found = check_div(div)
    assert found is not None
    assert found.startswith("txt-1: ")


@pytest.mark.parametrize("inside", ["", " \n", "<p> </p>", "<!-- a -->", "<br/>", '<a name="b"/>'])
def test_says_something(inside: str) -> None:
    assert check_div(DIV.format(inside)) == "txt-2: a narrative says something"


BAD = {"status": "generated", "div": DIV.format("<script>c4n4ry</script>")}
GOOD = {"status": "generated", "div": DIV.format("a")}


@pytest.mark.parametrize(
    ("resource", "expression"),
    [
        ({"resourceType": "Patient", "text": BAD}, "Patient.text.div"),
        ({"resourceType": "Patient", "text": GOOD, "contained": [{"resourceType": "Device", "id": "a", "text": BAD}]},
         "Patient.contained[0].text.div"),
        ({"resourceType": "Patient", "contained": [{"resourceType": "Composition", "id": "a", "status": "final", "title": "a",
          "type": {"text": "a"}, "date": "2026", "author": [{"display": "a"}], "section": [{"title": "a", "text": BAD}]}]},
         "Patient.contained[0].section[0].text.div"),
    ],
)  # fmt: skip
def test_is_checked_wherever_it_stands(codec: Codec, resource: object, expression: str) -> None:
    with pytest.raises(Problem) as caught:
        codec.decode("Patient", json.dumps(resource).encode())
    assert caught.value.issues[0].expression == expression
    assert "c4n4ry" not in str(caught.value.outcome())
