"""Where the two voices differ: our derived types, and fhir.resources R4B. Each row says who is right, by the text of R4.

A kind is one of `breaking.py`, or a matter of its own. `ours` and `theirs` say whether the voice takes the example.
"""

from dataclasses import dataclass

_OBSERVATION = '{"resourceType":"Observation","status":"final","code":{"text":"x"},%s}'
_PATIENT = '{"resourceType":"Patient",%s}'
_DIV = '{"status":"generated","div":"<div xmlns=\\"http://www.w3.org/1999/xhtml\\">%s</div>"}'


@dataclass(frozen=True)
class Difference:
    """One kind of difference, an example of it, what each voice says and why R4 has it our way."""

    kind: str
    example: str
    ours: bool
    theirs: bool
    why: str


def _we_refuse(kind: str, example: str, why: str) -> Difference:
    return Difference(kind, example, ours=False, theirs=True, why=why)


def _we_take(kind: str, example: str, why: str) -> Difference:
    return Difference(kind, example, ours=True, theirs=False, why=why)


DIFFERENCES: tuple[Difference, ...] = (
    # JSON: https://hl7.org/fhir/R4/json.html
    _we_refuse("null", _PATIENT % '"gender":null', "null stands only in lists, where the twin list has an entry"),
    _we_refuse("null in a list", _PATIENT % '"name":[{"given":["a",null]}]', "nothing in a twin list fills the gap"),
    _we_refuse("empty list", _PATIENT % '"active":true,"name":[]', "a list has at least one item"),
    _we_refuse("empty object", _PATIENT % '"active":true,"maritalStatus":{}', "an object is never empty"),
    _we_refuse("key twice", _PATIENT % '"active":true,"active":false', "the names of an object are unique: the last is not it"),
    _we_refuse("number as text", _OBSERVATION % '"valueQuantity":{"value":"5.10"}', "a number is a JSON number"),
    _we_refuse("boolean as text", _PATIENT % '"active":"true"', "a boolean is a JSON boolean"),
    _we_refuse("number for a boolean", _PATIENT % '"active":1', "a boolean is a JSON boolean"),
    _we_refuse(
        "number for a text", _OBSERVATION % '"effectiveDateTime":1', "everything but booleans and numbers is a JSON string"
    ),
    _we_refuse("fraction for an integer", _OBSERVATION % '"valueInteger":1.0', "the pattern of integer has no fraction"),
    _we_refuse(
        "twin longer than its list",
        _PATIENT % '"name":[{"given":["a"],"_given":[null,{"extension":[{"url":"a","valueCode":"b"}]}]}]',
        "null fills both lists up to the same length",
    ),
    # Datatypes: https://hl7.org/fhir/R4/datatypes.html
    _we_refuse("empty text", _PATIENT % '"active":true,"implicitRules":""', "strings are not empty"),
    _we_refuse("control character", _PATIENT % '"name":[{"text":"a\\bc"}]', "no character below 32 but tab and line ends"),
    _we_refuse("blank in a uri", _PATIENT % '"implicitRules":"http://a b"', "the pattern of uri has no white space"),
    _we_refuse("tiny exponent", _OBSERVATION % '"valueQuantity":{"value":1e-999}', "what is kept must be what can be searched"),
    _we_refuse("code of no binding", _PATIENT % '"gender":"nonsense"', "the binding is required"),
    _we_refuse(
        "base64 out of step",
        _OBSERVATION % '"extension":[{"url":"a","valueBase64Binary":"AA AA"}]',
        "blanks stand between groups of four",
    ),
    _we_take("text of a no-break space", _OBSERVATION % '"valueString":"\u00a0"', "it is a character like others"),
    _we_take(
        "uuid of another version",
        _OBSERVATION % '"extension":[{"url":"a","valueUuid":"urn:uuid:0f1e2d3c-4b5a-1978-8796-a5b4c3d2e1f0"}]',
        "the pattern of uuid asks for no version",
    ),
    _we_take(
        "required choice by its twin",
        '{"resourceType":"AuditEvent","type":{"code":"a"},"recorded":"2026-01-01T00:00:00Z","agent":[{"requestor":true}],'
        '"source":{"observer":{"display":"a"}},"entity":[{"detail":[{"type":"a","_valueString":{"extension":'
        '[{"url":"a","valueCode":"unknown"}]}}]}]}',
        "an extension may stand for the value of any element",
    ),
    _we_take(
        "twin of an extension's value",
        _PATIENT % '"extension":[{"url":"a","_valueDate":{"extension":[{"url":"b","valueCode":"unknown"}]}}]',
        "a primitive may be extended wherever it stands",
    ),
    _we_refuse(
        "two carriers of a choice",
        _PATIENT % '"deceasedBoolean":true,"_deceasedDateTime":{"extension":[{"url":"a","valueCode":"b"}]}',
        "a choice is made once",
    ),
    # Elements and invariants
    _we_refuse("id alone", _PATIENT % '"active":true,"maritalStatus":{"id":"a"}', "ele-1"),
    _we_refuse("script in the narrative", _PATIENT % f'"text":{_DIV % "<script/>x"}', "txt-1"),
    _we_refuse("narrative that says nothing", _PATIENT % f'"text":{_DIV % " "}', "txt-2"),
    _we_refuse(
        "contained without id",
        _OBSERVATION % '"contained":[{"resourceType":"Patient","active":true}]',
        "nothing could point at it",
    ),
    _we_refuse(
        "contained in contained",
        _OBSERVATION % '"contained":[{"resourceType":"Patient","id":"a","contained":[{"resourceType":"Patient","id":"b"}]}]',
        "dom-2",
    ),
    _we_refuse(
        "contained with a version",
        _OBSERVATION % '"contained":[{"resourceType":"Patient","id":"a","meta":{"versionId":"1"}}]',
        "dom-4",
    ),
    _we_refuse(
        "contained with a label",
        _OBSERVATION % '"contained":[{"resourceType":"Patient","id":"a","meta":{"security":[{"code":"R"}]}}]',
        "dom-5",
    ),
    _we_refuse("quantity code without system", _OBSERVATION % '"valueQuantity":{"value":1,"code":"mg"}', "qty-3"),
    _we_refuse("extension that says nothing", _PATIENT % '"extension":[{"url":"a"}]', "ext-1"),
    _we_refuse(
        "value beside the parts of an extension",
        _PATIENT % '"extension":[{"url":"a","valueCode":"b","extension":[{"url":"c","valueCode":"d"}]}]',
        "ext-1",
    ),
    # What R4B added: https://hl7.org/fhir/R4B/diff.html
    _we_refuse(
        "datatype of R4B",
        _PATIENT % '"extension":[{"url":"a","valueRatioRange":{"lowNumerator":{"value":1}}}]',
        "R4 has no RatioRange",
    ),
    _we_refuse(
        "resource type of R4B",
        _PATIENT % '"contained":[{"resourceType":"NutritionProduct","id":"a","status":"active"}]',
        "R4 has none such",
    ),
    _we_refuse(
        "element of R4B",
        _PATIENT % '"contained":[{"resourceType":"ActivityDefinition","id":"a","status":"draft","subjectCanonical":"x"}]',
        "R4 has none such",
    ),
)
