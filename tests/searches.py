"""The tests' own reading of the FHIR R4 search page: tables of what finds what, and how a value is written to be searched.

Must not know: how the gateway spells index values.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from gateway.fhir.registry import ResourceType

LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"


def search_value(search_type: str, kind: str, value: Any) -> str:
    """A value, percent-encoded, by which a resource that holds this `value` of FHIR type `kind` is found."""
    return quote(_WRITERS[search_type](kind, value), safe="")


def other_value(search_type: str, kind: str, value: Any) -> str:
    """A value of the same form by which it is not found."""
    return quote(_OTHERS[search_type](_WRITERS[search_type](kind, value)), safe="")


def _token(kind: str, value: Any) -> str:
    if kind == "CodeableConcept":
        value = value.coding[0]
    if kind in ("CodeableConcept", "Coding"):
        return f"{value.system}|{value.code}"
    if kind == "Identifier":
        return f"{value.system}|{value.value}"
    if kind == "ContactPoint":
        return str(value.value)
    return str(value).lower() if kind == "boolean" else str(value)


def _date(kind: str, value: Any) -> str:
    return str(value.start if kind == "Period" else value)


def _string(kind: str, value: Any) -> str:
    if kind == "HumanName":
        value = value.family
    if kind == "Address":
        value = value.city
    return str(value)[:6].upper()


def _quantity(_: str, value: Any) -> str:
    return f"{value.value}|{value.system}|{value.code}"


def _reference(kind: str, value: Any) -> str:
    return str(value.reference if kind == "Reference" else value)


_WRITERS: dict[str, Callable[[str, Any], str]] = {
    "token": _token,
    "date": lambda kind, value: ("ge" if kind == "Period" else "") + _date(kind, value),
    "string": _string,
    "quantity": _quantity,
    "reference": _reference,
    "number": lambda _, value: str(value),
    "uri": lambda _, value: str(value),
}
_OTHERS: dict[str, Callable[[str], str]] = {
    "token": lambda text: f"{text}x",
    "date": lambda text: f"lt{text.removeprefix('ge')[:4]}",
    "string": lambda text: f"{text}x",
    "quantity": lambda text: "|".join([str(Decimal(text.split("|")[0]) + 1), *text.split("|")[1:]]),
    "reference": lambda text: f"{text}x",
    "number": lambda text: str(Decimal(text) + 1),
    "uri": lambda text: f"{text}x",
}

_PLAIN = {"token": "x", "date": "2026", "reference": "Device/x", "string": "x", "quantity": "1", "number": "1", "uri": "urn:x"}


def any_value(kind: ResourceType, name: str, search_type: str) -> str:
    """A value that a parameter of this type of search may have."""
    if search_type != "composite":
        return _PLAIN[search_type]
    parts = kind.search[name].of or kind.search[kind.search[name].any_of[0]].of
    return "$".join(_PLAIN[kind.search[part].type] for part in parts)


# What is asked, system and code of what is stored, whether it is found.
TOKENS = [
    ("http://loinc.org|99504-3", LOINC, "99504-3", True),
    ("http://loinc.org|99504-3", "http://other.org", "99504-3", False),
    ("http://loinc.org|99504-3", None, "99504-3", False),
    ("http://loinc.org|99504", LOINC, "99504-3", False),
    ("99504-3", LOINC, "99504-3", True),
    ("99504-3", None, "99504-3", True),
    ("99504", LOINC, "99504-3", False),
    ("|99504-3", None, "99504-3", True),
    ("|99504-3", LOINC, "99504-3", False),
    ("http://loinc.org|", LOINC, "99504-3", True),
    ("http://loinc.or|", LOINC, "99504-3", False),
    ("http://loinc.org|", "http://loinc.org/x", "99504-3", False),
    ("http://loinc.org|", None, "http://loinc.org", False),
    ("LOINC", LOINC, "loinc", False),
    # what separates, escaped, is content
    (r"a\,b", None, "a,b", True),
    ("a,b", None, "a,b", False),
    ("a,b", None, "b", True),
    ("a,b", None, "c", False),
    (r"urn:x|a\|b", "urn:x", "a|b", True),
    (r"urn:x|a\|b", "urn:x|a", "b", False),
    (r"urn:x\|a|b", "urn:x|a", "b", True),
    ("urn:x|a|b", "urn:x", "a|b", True),
    (r"a\|b", None, "a|b", True),
    (r"a\|b", "a", "b", False),
    (r"a\$b", None, "a$b", True),
    ("a$b", None, "a$b", True),
    (r"a\\b", None, r"a\b", True),
    (r"a\\,b", None, "a\\", True),
    (r"a\\,b", None, "b", True),
    (r"a\\|b", "a\\", "b", True),
    (r"a\b", None, r"a\b", True),
    ("a\\", None, "a\\", True),
]

# Name suffix and value of what is asked, what is stored, whether it is found.
STRINGS = [
    ("=lef", "Lefèvre", True),
    ("=LEFÈVRE", "Lefèvre", True),
    ("=lefe", "LEFEVRE", True),
    ("=evre", "Lefèvre", False),
    ("=  lefèvre ", "Lefèvre", True),
    ("=de  la", "De La Tour", True),
    ("=strass", "Straße", True),
    ("=straße", "STRASSE", True),
    ("=ﬁn", "Finn", True),
    ("=tel", "℡", True),
    ("=o'b", "O'Brien", True),
    (r"=a\,b", "A,B", True),
    ("=a,b", "A,B", True),
    ("=x,b", "A,B", False),
    (":exact=Lefèvre", "Lefèvre", True),
    (":exact=lefèvre", "Lefèvre", False),
    (":exact=Lefevre", "Lefèvre", False),
    (":exact=Lef", "Lefèvre", False),
    ("=.*", "Lefèvre", False),
    ("=^lef", "Lefèvre", False),
    ("=lef%", "Lefèvre", False),
]

# What is asked, the number of milligrams per decilitre that is stored, whether it is found.
QUANTITIES = [
    (f"104|{UCUM}|mg/dL", 104, True),
    (f"104|{UCUM}|mg/dL", 104.4, True),
    (f"104|{UCUM}|mg/dL", 104.5, False),
    (f"104|{UCUM}|mg/dL", 103.5, True),
    (f"104|{UCUM}|mmol/L", 104, False),
    ("104|urn:other|mg/dL", 104, False),
    ("104||mg/dL", 104, True),
    ("104||milligram per decilitre", 104, True),
    ("104||mmol/L", 104, False),
    ("104", 104, True),
    ("104.0", 104.04, True),
    ("104.0", 104.06, False),
    (f"gt104|{UCUM}|mg/dL", 104, False),
    ("gt104", 104.1, True),
    ("lt104", 104, False),
    ("lt104", 103.9, True),
    ("ge104", 104, True),
    ("le104", 104, True),
    ("ge104.1", 104, False),
    ("ne104", 104, False),
    ("ne104", 105, True),
    ("sa104", 104.4, False),
    ("sa104", 104.5, True),
    ("eb104", 103.5, False),
    ("eb104", 103.4, True),
    ("ap100", 109, True),
    ("ap100", 111, False),
    ("ap-100", -109, True),
    ("1,104", 104, True),
    ("eq104", 104, True),
]

_DATES = """
2026-11-20T08:30:00+01:00 | eq2026-11-20               | yes
2026-11-20T08:30:00+01:00 | 2026-11-20                 | yes
2026-11-20T08:30:00+01:00 | 2026-11                    | yes
2026-11-20T08:30:00+01:00 | 2026                       | yes
2026-11-20T08:30:00+01:00 | 2026-11-21                 | no
2026-11-20T08:30:00+01:00 | 2026-11-20T07:30Z          | yes
2026-11-20T08:30:00+01:00 | 2026-11-20T08:30+01:00     | yes
2026-11-20T08:30:00+01:00 | 2026-11-20T08:30           | no
2026-11-20T08:30:00+01:00 | 2026-11-20T07:30:00Z       | yes
2026-11-20T08:30:00+01:00 | 2026-11-20T07:30:00.000Z   | no
2026-11-20T08:30:00.250Z  | 2026-11-20T08:30:00Z       | yes
2026-11-20T08:30:00.250Z  | 2026-11-20T08:30:00.25Z    | yes
2026-11-20T08:30:00.250Z  | 2026-11-20T08:30:00.2Z     | yes
2026-11-20T08:30:00.250Z  | 2026-11-20T08:30:00.251Z   | no
2026-11-20T00:30:00+02:00 | 2026-11-20                 | no
2026-11-20T00:30:00+02:00 | 2026-11-19                 | yes
2026-11-19T23:30:00-02:00 | 2026-11-20                 | yes
2026-11-20                | 2026-11-20                 | yes
2026-11-20                | 2026-11                    | yes
2026-11-20                | 2026-11-20T10:00Z          | no
2026-11                   | 2026-11-20                 | no
2026                      | 2026-11                    | no
2026                      | 2026                       | yes
2026-11-20                | ne2026-11-20               | no
2026-11-20                | ne2026-11-21               | yes
2026-11                   | ne2026-11-20               | yes
2026-11-20                | gt2026-11-19               | yes
2026-11-20                | gt2026-11-20               | no
2026-11-20                | gt2026-11-20T10:00Z        | yes
2026-11-20T23:59:59Z      | gt2026-11-20               | no
2026-11-21T00:00:00Z      | gt2026-11-20               | yes
2026-11-20                | lt2026-11-21               | yes
2026-11-20                | lt2026-11-20               | no
2026-11-20                | lt2026-11-20T10:00Z        | yes
2026-11-20T00:00:00Z      | lt2026-11-20               | no
2026-11-20                | ge2026-11-20               | yes
2026-11-20                | ge2026-11-21               | no
2026-11-20                | ge2026                     | yes
2026-11-20                | ge2027                     | no
2026-11                   | ge2026-11-20               | yes
2026-11-20                | le2026-11-20               | yes
2026-11-20                | le2026-11-19               | no
2026-11-20                | le2026                     | yes
2026-11                   | le2026-11-20               | yes
2026-11-21                | sa2026-11-20               | yes
2026-11-20                | sa2026-11-20               | no
2026-11                   | sa2026-11-20               | no
2026-12                   | sa2026-11                  | yes
2026-11-19                | eb2026-11-20               | yes
2026-11-20                | eb2026-11-20               | no
2026-11                   | eb2026-11-20               | no
2026-11-19T23:59:59Z      | eb2026-11-20               | yes
2026-11-01/2026-11-20     | 2026-11                    | yes
2026-11-01/2026-11-20     | 2026-11-10                 | no
2026-11-01/2026-11-20     | ne2026-11-10               | yes
2026-11-01/2026-11-20     | gt2026-11-10               | yes
2026-11-01/2026-11-20     | lt2026-11-10               | yes
2026-11-01/2026-11-20     | ge2026-11-20               | no
2026-11-01/2026-11-20     | sa2026-10                  | yes
2026-11-01/2026-11-20     | sa2026-11-01               | no
2026-11-01/2026-11-20     | eb2026-11-21               | yes
2026-11-01/2026-11-20     | eb2026-11-20               | no
2026-11-01/               | gt2099                     | yes
2026-11-01/               | lt2026-11-01               | no
2026-11-01/               | eb2099                     | no
2026-11-01/               | sa2026-10                  | yes
2026-11-01/               | 2026                       | no
/2026-11-20               | lt1900                     | yes
/2026-11-20               | gt2026-11-20               | no
/2026-11-20               | eb2026-11-21               | yes
/2026-11-20               | sa1900                     | no
2026-11-24                | ap2026-11-24               | yes
2026-11-23                | ap2026-11-24               | yes
2026-11-22                | ap2026-11-24               | no
2026-10-01                | ap2026-10-03               | yes
2026-09-01                | ap2026-10-03               | no
2020-06-01                | ap2020                     | yes
2019-10-01                | ap2020                     | yes
2018-10-01                | ap2020                     | no
"""

# What is stored (a period is `start/end`), what is asked, whether it is found.
DATES = [
    (stored.strip(), asked.strip(), found.strip() == "yes")
    for stored, asked, found in (line.split("|") for line in _DATES.strip().splitlines())
]
