"""Ways to break a valid resource: each breaks it in one place, and says in which."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from gateway.fhir.types import Element, Types
from tests.unit.fhir.generate import Json, Number


@dataclass(frozen=True)
class Place:
    """An element that is present: the object that holds it, what the standard says of it, and its FHIRPath."""

    holder: Json
    element: Element
    path: str

    @property
    def name(self) -> str:
        return self.element.name

    @property
    def value(self) -> Any:
        value = self.holder[self.name]
        return value[0] if self.element.many else value

    def put(self, value: Any) -> str:
        """Replace the element's (first) value. Returns where it is."""
        if self.element.many:
            self.holder[self.name][0] = value
            return f"{self.path}[0]"
        self.holder[self.name] = value
        return self.path


def places(types: Types, kind: str, holder: Json, path: str) -> Iterator[Place]:
    """Every element that is present, at every depth; contained resources left out."""
    for element in types.elements(kind):
        if element.name not in holder or element.type == "Resource":
            continue
        yield Place(holder, element, f"{path}.{element.name}")
        if element.is_primitive:
            continue
        items = holder[element.name] if element.many else [holder[element.name]]
        for n, item in enumerate(items):
            if item is not None:
                where = f"{path}.{element.name}[{n}]" if element.many else f"{path}.{element.name}"
                yield from places(types, element.type, item, where)


def primitive(*kinds: str) -> Callable[[Place], bool]:
    """Elements of these primitive types (any, where none is named) that have a value first."""
    return lambda p: p.element.is_primitive and (not kinds or p.element.type in kinds) and p.value is not None


def any_of(_: Place) -> bool:
    return True


def is_complex(place: Place) -> bool:
    return not place.element.is_primitive


def in_types(*kinds: str) -> Callable[[Place], bool]:
    return lambda p: p.element.type in kinds


def _put(value: Any) -> Callable[[Place], str]:
    return lambda place: place.put(value)


def _set(value: Any) -> Callable[[Place], str]:
    def change(place: Place) -> str:
        place.holder[place.name] = value
        return place.path

    return change


def _add(name: str, value: Any) -> Callable[[Place], str]:
    def change(place: Place) -> str:
        if place.element.many:
            place.value[name] = value
            return f"{place.path}[0].{name}"
        place.holder[place.name][name] = value
        return f"{place.path}.{name}"

    return change


def _as_text(place: Place) -> str:
    value = place.value
    return place.put(value.text if isinstance(value, Number) else str(value))


def _no_list(place: Place) -> str:
    place.holder[place.name] = place.value
    return place.path


def _a_list(place: Place) -> str:
    place.holder[place.name] = [place.value]
    return place.path


def _drop(place: Place) -> str:
    place.holder.pop(place.name)
    place.holder.pop(f"_{place.name}", None)
    return place.path


def _repeat(place: Place) -> str:
    place.holder[f"{place.name}@@twice"] = place.holder[place.name]
    return place.path


def _second_choice(place: Place) -> str:
    others = {"deceased": ("Boolean", "DateTime"), "effective": ("DateTime", "Instant"), "value": ("String", "Boolean")}
    values = {"Boolean": True, "DateTime": "2026", "Instant": "2026-11-24T08:30:00Z", "String": "x"}
    group = place.element.choice or ""
    kind = next(kind for kind in others[group] if place.name != f"{group}{kind}")
    place.holder[f"{group}{kind}"] = values[kind]
    return f"{place.path.removesuffix(place.name)}{group}"


def _twin_too_long(place: Place) -> str:
    why = {"extension": [{"url": "http://example.org/why", "valueCode": "unknown"}]}
    place.holder[f"_{place.name}"] = [why] * (len(place.holder[place.name]) + 1)
    return place.path.removesuffix(place.name)


@dataclass(frozen=True)
class Breaking:
    """One kind of mistake: where it can be made, and how."""

    kind: str
    where: Callable[[Place], bool]
    make: Callable[[Place], str]


def _required(place: Place) -> bool:
    return place.element.required


def _in_list(place: Place) -> bool:
    return place.element.many


def _single(place: Place) -> bool:
    return not place.element.many


def _bound(place: Place) -> bool:
    return bool(place.element.codes) and place.value is not None


def _has_other_value(place: Place) -> bool:
    return place.element.type == "Extension" and "valueMarkdown" not in place.value and "extension" not in place.value


def _has_parts(place: Place) -> bool:
    return place.element.type == "Extension" and "extension" in place.value


def _add_markdown(place: Place) -> str:
    """Give an extension another value. The mistake is the extension's own, not that of the value."""
    return _add("valueMarkdown", "x")(place).rpartition(".")[0]


def _plain_list(place: Place) -> bool:
    return place.element.many and place.element.is_primitive and f"_{place.name}" not in place.holder


BREAKINGS: tuple[Breaking, ...] = (
    Breaking("unknown element", is_complex, _add("nonsense", 1)),
    Breaking(
        "unknown element beside", any_of, lambda p: p.holder.update(nonsense=1) or f"{p.path.rpartition('.')[0]}.nonsense"
    ),
    Breaking("missing required", _required, _drop),
    Breaking("null", any_of, _set(None)),
    Breaking("null in a list", _in_list, lambda p: p.holder[p.name].append(None) or f"{p.path}"),
    Breaking("empty list", any_of, _set([])),
    Breaking("empty object", is_complex, _put({})),
    Breaking("id alone", lambda p: is_complex(p) and not p.name.startswith("_"), _put({"id": "alone"})),
    Breaking("empty text", primitive("string", "code", "uri", "id", "markdown", "dateTime"), _put("")),
    Breaking("text for an object", is_complex, _put("text")),
    Breaking("object for a text", primitive(), _put({"a": 1})),
    Breaking("number for a text", primitive("string", "code", "uri", "date", "dateTime", "markdown"), _put(1)),
    Breaking("number as text", primitive("decimal", "integer", "positiveInt", "unsignedInt"), _as_text),
    Breaking("boolean as text", primitive("boolean"), _as_text),
    Breaking("number for a boolean", primitive("boolean"), _put(1)),
    Breaking("fraction for an integer", primitive("integer", "positiveInt", "unsignedInt"), _put(Number("1.0"))),
    Breaking("integer out of range", primitive("integer", "positiveInt", "unsignedInt"), _put(Number("2147483648"))),
    Breaking("list for one", _single, _a_list),
    Breaking("one for a list", _in_list, _no_list),
    Breaking("key twice", any_of, _repeat),
    Breaking("NaN", primitive("decimal"), _put(Number("NaN"))),
    Breaking("NaN as text", primitive("decimal"), _put("NaN")),
    Breaking("Infinity as text", primitive("decimal"), _put("-Infinity")),
    Breaking("huge exponent", primitive("decimal"), _put(Number("1e999"))),
    Breaking("tiny exponent", primitive("decimal"), _put(Number("1e-999"))),
    Breaking("huge number", primitive("decimal"), _put(Number("9" * 5_000))),
    Breaking("code of no binding", _bound, _put("nonsense")),
    Breaking("code with two blanks", primitive("code"), _put("a  b")),
    Breaking("two values of a choice", lambda p: p.element.choice in ("value", "effective", "deceased"), _second_choice),
    Breaking("day of no calendar", primitive("date", "dateTime"), _put("2025-02-29")),
    Breaking("time without zone", primitive("dateTime", "instant"), _put("2026-11-24T08:30:00")),
    Breaking("time of no clock", primitive("dateTime", "instant"), _put("2026-11-24T24:30:00Z")),
    Breaking("control character", primitive("string", "markdown", "code", "uri"), _put("a\bc")),
    Breaking("lone surrogate", primitive("string", "markdown"), _put(Number('"\\ud800"'))),
    Breaking("bad base64", primitive("base64Binary"), _put("A===")),
    Breaking("blank in a uri", primitive("uri", "url", "canonical"), _put("http://a b")),
    Breaking("bad id", lambda p: p.element.type == "id", _put("a/b")),
    Breaking("twin longer than its list", _plain_list, _twin_too_long),
    Breaking("two values in an extension", _has_other_value, _add_markdown),
    Breaking("value beside the parts of an extension", _has_parts, _add_markdown),
    Breaking("script in the narrative", in_types("xhtml"), _put('<div xmlns="http://www.w3.org/1999/xhtml"><script/>x</div>')),
)


def break_one(types: Types, random: Random, resource: Json, breaking: Breaking) -> str | None:
    """Break a resource in place. Returns the FHIRPath of where, None where it has no place for this mistake."""
    kind = resource["resourceType"]
    found = [place for place in places(types, kind, resource, kind) if breaking.where(place)]
    return breaking.make(random.choice(found)) if found else None
