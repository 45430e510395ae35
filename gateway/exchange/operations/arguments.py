"""What an operation is asked with: parameters of its URL, a Parameters resource, or a resource alone.

Knows: https://hl7.org/fhir/R4/operations.html#request. Must not know: HTTP, what an operation does with its parameters.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import PRESENTATION, Pairs
from gateway.fhir.dates import Span, read_span
from gateway.fhir.operations import SEVERAL, Operation
from gateway.fhir.search import clip
from gateway.fhir.values import token_values
from gateway.problem import Problem

# As which elements of `Parameters.parameter` the values of each type may come.
_ELEMENTS: Mapping[str, tuple[str, ...]] = {
    "uri": ("valueUri", "valueCanonical", "valueUrl", "valueString"),
    "code": ("valueCode", "valueString"),
    "codes": ("valueCode", "valueString"),
    "string": ("valueString",),
    "id": ("valueId", "valueString"),
    "boolean": ("valueBoolean",),
    "date": ("valueDate", "valueDateTime"),
    "dateTime": ("valueDateTime", "valueDate", "valueInstant"),
    "instant": ("valueInstant", "valueDateTime"),
    "Coding": ("valueCoding", "valueString"),
    "positiveInt": ("valuePositiveInt", "valueInteger"),
    "Identifier": ("valueIdentifier", "valueString"),
}


def read_arguments(gateway: Gateway, operation: Operation, pairs: Pairs, body: bytes) -> tuple[Pairs, bytes | None]:
    """The values of an operation's parameters, and the resource it is given. Raises Problem naming what is none of them.

    `pairs`: those of the URL; a body that is no Parameters resource is the operation's one resource.
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in PRESENTATION:
            if name in operation.parameters and name not in operation.public_parameters:
                raise Problem("invalid", "this is sent in a body: addresses are written to logs", clip(name))
            _put(operation, values, name, value, clip(name))
    if not body:
        return tuple(values.items()), None
    if gateway.codec.peek_type(body) != "Parameters":
        if operation.resource_parameter is None:
            raise Problem("invalid", "a Parameters resource is expected here", "Parameters")
        return tuple(values.items()), body
    resource: bytes | None = None
    parameters = gateway.codec.decode("Parameters", body).parameter or ()
    for n, parameter in enumerate(parameters):
        place = f"Parameters.parameter[{n}]"
        if parameter.resource is None or parameter.name != operation.resource_parameter:
            _put(operation, values, parameter.name or "", _value(operation, parameter, place), place)
        elif resource is not None:
            raise Problem("invalid", "this parameter stands twice", place)
        else:
            resource = bytes(parameter.resource)
    return tuple(values.items()), resource


def _put(operation: Operation, values: dict[str, str], name: str, value: str, place: str) -> None:
    if operation.parameters.get(name, "Resource") == "Resource":
        raise Problem("not-supported", f"${operation.code} has no such parameter here", place, status=400)
    if name in values and operation.parameters[name] not in SEVERAL:
        raise Problem("invalid", "this parameter stands twice", place)
    values[name] = f"{values[name]},{value}" if name in values else value


def _value(operation: Operation, parameter: Any, place: str) -> str:
    kind = operation.parameters.get(parameter.name or "", "")
    said = msgspec.structs.asdict(parameter)
    found = next((said[name] for name in _ELEMENTS.get(kind, ()) if said.get(name) is not None), None)
    if found is None and kind in _ELEMENTS:
        raise Problem("value", f"this parameter takes a {_ELEMENTS[kind][0]}", place, status=400)
    if kind == "Coding" and found is not None and not isinstance(found, str):
        return _escaped(token_values(found.system, found.code)[:1], place)
    if isinstance(found, bool):
        return str(found).lower()
    return _token(found, place) if kind == "Identifier" else str(found)


def _escaped(tokens: tuple[str, ...], place: str) -> str:
    """A token as a search value; a Coding without a code says nothing."""
    if not tokens:
        raise Problem("value", "a Coding here has a code", place, status=400)
    return tokens[0].replace(",", "\\,")


def read_day(name: str, value: str) -> Span:
    """A date or time that an operation is asked with. Raises Problem naming the parameter."""
    try:
        if not value[:1].isdigit():
            raise ValueError
        return read_span(value.replace(" ", "+"))  # an unescaped + of a zone arrives as a space
    except ValueError:
        raise Problem("value", f"'{name}' is a date or a time", name, status=400) from None


def _token(identifier: Any, place: str) -> str:
    """An Identifier, or its text, as `system|value`. Raises Problem where it is not exactly one of a known system."""
    if isinstance(identifier, str):
        system, _, value = identifier.partition("|")
    else:
        system, value = identifier.system or "", identifier.value or ""
    if not system or not value or any(mark in system + value for mark in "|,\\*"):
        raise Problem("value", "exactly one identifier is needed, with its system: system|value", place)
    return token_values(system, value)[0]
