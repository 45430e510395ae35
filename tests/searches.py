"""How a value of a resource is written as a search value: the tests' own reading of the FHIR R4 search page.

Must not know: how the gateway spells index values.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import quote


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
