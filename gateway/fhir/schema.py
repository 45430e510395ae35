"""Resource types as JSON Schemas, as far as a description of the service needs them: the elements of a type, one level deep.

Knows: which JSON each element takes. Must not know: HTTP, profiles. What stands inside an element, the standard says
(https://hl7.org/fhir/R4/fhir.schema.json.zip), and a refusal names it.
"""

from typing import Any

from gateway.fhir.types import Element, Types

_JSON_OF_PRIMITIVES: dict[str, Any] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "unsignedInt": {"type": "integer", "minimum": 0},
    "positiveInt": {"type": "integer", "minimum": 1},
    "decimal": {"type": "number"},
    "date": {"type": "string", "format": "fhir-date"},
    "dateTime": {"type": "string", "format": "fhir-dateTime"},
    "instant": {"type": "string", "format": "date-time"},
    "id": {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"},
}


def resource_schema(types: Types, type_name: str) -> dict[str, Any]:
    """The schema of a resource type of R4."""
    elements = types.elements(type_name)
    return {
        "type": "object",
        "description": f"https://hl7.org/fhir/R4/{type_name.lower()}.html",
        "properties": {"resourceType": {"const": type_name}, **{e.name: _element(e) for e in elements}},
        "required": ["resourceType", *(e.name for e in elements if e.required and not e.is_primitive)],
        "additionalProperties": False,
    }


def _element(element: Element) -> dict[str, Any]:
    if not element.is_primitive:
        one: dict[str, Any] = {"type": "object", "minProperties": 1}
    elif element.codes:
        one = {"enum": list(element.codes)}
    else:
        one = _JSON_OF_PRIMITIVES.get(element.type, {"type": "string", "minLength": 1})
    return {"type": "array", "items": one, "minItems": 1} if element.many else one
