"""The FHIR primitive types as annotated Python types for msgspec.

Knows: the regular expressions and ranges of https://hl7.org/fhir/R4/datatypes.html, calendars included.
Must not know: resources, profiles, stores.
"""

import re
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta

# Dates are checked against the calendar here, so that no later step can meet a 30th of February.
_YEAR = r"(?!0000)[0-9]{4}"
_LEAP = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][48]|[13579][26]|[2468]0)00)"
_MONTH_DAY = (
    r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    r"|(?:0[13-9]|1[0-2])-(?:29|30)"
    r"|(?:0[13578]|1[02])-31)"
)
_DAY = rf"(?:{_YEAR}-{_MONTH_DAY}|(?!0000){_LEAP}-02-29)"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_INSTANT = rf"{_DAY}T{_CLOCK}{_ZONE}"
# Groups of four, only the last one padded; possessive, as ten million characters are matched without a step back.
_BASE64 = r"(?=\s*+\S)(?:\s*+[0-9A-Za-z+/]{4})*+\s*+(?:[0-9A-Za-z+/]{3}=|[0-9A-Za-z+/]{2}==)?\s*+"
_DATE = rf"(?:{_DAY}|{_YEAR}-(?:0[1-9]|1[0-2])|{_YEAR})"

DATE_TIME = re.compile(rf"(?:{_INSTANT}|{_DATE})\Z")
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")


def _text(pattern: str, longest: int | None = None) -> Any:
    return Annotated[str, Meta(pattern=rf"^(?:{pattern})\Z", max_length=longest)]


def primitive_types(string_length: int) -> dict[str, Any]:
    """Python type of every FHIR primitive, by its FHIR name.

    `string_length`: the longest string, markdown or narrative accepted, in characters. `base64Binary` is bounded by the
    body alone. Numbers keep their digits: decimals are `Decimal`, never `float`.
    """
    uri = _text(r"\S+", string_length)
    string = Annotated[str, Meta(min_length=1, max_length=string_length)]
    return {
        "boolean": bool,
        "integer": Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)],
        "unsignedInt": Annotated[int, Meta(ge=0, le=2**31 - 1)],
        "positiveInt": Annotated[int, Meta(ge=1, le=2**31 - 1)],
        "decimal": Decimal,
        "string": string,
        "markdown": string,
        "xhtml": string,
        "code": _text(r"\S+(?:\s\S+)*", string_length),
        "id": _text(r"[A-Za-z0-9\-.]{1,64}"),
        "uri": uri,
        "url": uri,
        "canonical": uri,
        "oid": _text(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+", string_length),
        "uuid": _text(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
        "date": _text(_DATE),
        "dateTime": _text(rf"{_INSTANT}|{_DATE}"),
        "instant": _text(_INSTANT),
        "time": _text(_CLOCK),
        "base64Binary": _text(_BASE64),
    }
