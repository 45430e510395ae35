"""Resources of every type, made from the derived types: valid ones, and ones that are broken in one known way."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from gateway.fhir.types import Element, Types

Json = dict[str, Any]

DIV = '<div xmlns="http://www.w3.org/1999/xhtml"><p>read it</p></div>'
_TEXTS = (
    "glucose",
    "Ève “Müller”",
    'say "no"',
    "back\\slash",
    "two\nlines\tand a tab",
    "null",
    "{}[",
    "1e-4",
    "😀 名前",
    "_E+1",
    " ",
)
_SAMPLES: dict[str, tuple[Any, ...]] = {
    "boolean": (True, False),
    "integer": (-(2**31), -1, 0, 7, 2**31 - 1),
    "unsignedInt": (0, 1, 2**31 - 1),
    "positiveInt": (1, 2, 2**31 - 1),
    "decimal": tuple("0 5.10 -0.50 105.5 0.000 1e-3 1e-7 2.5E3 12345678901234567.8".split()),
    "string": _TEXTS,
    "markdown": _TEXTS,
    "xhtml": (DIV,),
    "code": ("final", "a b", "mg/dL"),
    "id": ("a", "A-1.b", "x" * 64),
    "uri": ("http://example.org/a?b=c#d", "urn:oid:1.2.3", "relative/é"),
    "url": ("https://example.org/x", "mailto:a@example.org"),
    "canonical": ("http://example.org/q|1.0", "#inside"),
    "oid": ("urn:oid:1.2.250.1", "urn:oid:0.0"),
    "uuid": ("urn:uuid:0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0",),
    "date": ("2026", "2026-02", "2024-02-29"),
    "dateTime": ("2026", "2026-02", "2024-02-29", "2026-11-24T08:30:00+01:00", "2026-11-24T08:30:00.120Z"),
    "instant": ("2026-11-24T08:30:00.120-11:30", "2026-11-24T08:30:00Z"),
    "time": ("08:30:00", "23:59:59.5"),
    "base64Binary": tuple(base64.b64encode(b).decode() for b in (b"a", b"ab", b"abc", b"\x00\xff" * 40)),
}
_LIKELY = (0.3, 0.15, 0.05)  # how likely an optional element is, by depth


@dataclass(frozen=True)
class Number:
    """A number by the characters it is written with."""

    text: str


def dump(resource: Any) -> bytes:
    """JSON in which each Number stands as it is written, and a key marked `@@twice` a second time."""
    numbers: list[str] = []

    def mark(it: Any) -> str:
        numbers.append(it.text)
        return f"@@{len(numbers) - 1}@@"

    text = json.dumps(resource, ensure_ascii=False, default=mark)
    for n, number in enumerate(numbers):
        text = text.replace(f'"@@{n}@@"', number)
    return text.replace('@@twice"', '"').encode()


class Maker:
    """Makes valid resources, each of one sequence of random numbers."""

    def __init__(self, types: Types, random: Random) -> None:
        self.types, self.random = types, random

    def resource(self, name: str) -> Json:
        """A valid resource, now and then with another one inside."""
        made = {"resourceType": name, **self.struct(name, 0)}
        if self.random.random() < 0.2 and any(e.name == "contained" for e in self.types.elements(name)):
            kind = self.random.choice(("Patient", "Organization", "Device", "Medication"))
            inner = {"resourceType": kind, **self.struct(kind, 1), "id": "inside"}
            inner.pop("meta", None)
            made["contained"] = [inner]
        return made

    def struct(self, name: str, depth: int) -> Json:
        """The elements of a valid value of any type."""
        if name == "Extension":
            return self._extension(depth)
        made: Json = {}
        for element in self._chosen(name, depth):
            self._add(made, element, depth)
        _FIXES.get(name, _nothing)(made)
        if not made.keys() - {"id"}:
            made["extension"] = [self._extension(depth + 2)]
        return made

    def _extension(self, depth: int) -> Json:
        if depth < 2 and self.random.random() < 0.2:
            return {"url": "http://example.org/outer", "extension": [self._extension(depth + 1)]}
        values = [e for e in self.types.elements("Extension") if e.choice and (depth < 2 or e.is_primitive)]
        made: Json = {"url": "http://example.org/extension"}
        self._add(made, self.random.choice([e for e in values if e.type != "FHIRPrimitiveExtension"]), depth, twins=False)
        return made

    def _chosen(self, name: str, depth: int) -> Iterator[Element]:
        likely = _LIKELY[depth] if depth < len(_LIKELY) else 0.0
        groups: dict[str, list[Element]] = {}
        for element in self.types.elements(name):
            if element.type in ("Resource", "FHIRPrimitiveExtension"):
                continue
            if element.choice:
                groups.setdefault(element.choice, []).append(element)
            elif element.required or self.random.random() < (likely / 4 if element.type == "Extension" else likely):
                yield element
        for members in groups.values():
            if members[0].choice_required or self.random.random() < likely * 2:
                yield self.random.choice(members)

    def _add(self, made: Json, element: Element, depth: int, *, twins: bool = True) -> None:
        count = self.random.choice((1, 1, 2, 3)) if element.many else 1
        values = [self._value(element, depth) for _ in range(count)]
        twin = [self._twin() for _ in range(count)] if self._wants_twin(element, twins) else None
        if twin is not None and self.random.random() < 0.4:
            values[-1] = None
        if any(value is not None for value in values):
            made[element.name] = values if element.many else values[0]
        if twin is not None:
            made[f"_{element.name}"] = twin if element.many else twin[0]

    def _wants_twin(self, element: Element, twins: bool) -> bool:
        return twins and element.is_primitive and element.name not in ("id", "div") and self.random.random() < 0.08

    @staticmethod
    def _twin() -> Json:
        return {"extension": [{"url": "http://example.org/why", "valueCode": "unknown"}]}

    def _value(self, element: Element, depth: int) -> Any:
        if not element.is_primitive:
            return self.struct(element.type, depth + 1)
        value = self.random.choice(element.codes or _SAMPLES[element.type])
        return Number(value) if element.type == "decimal" else value


def _nothing(_: Json) -> None: ...


def _drop(made: Json, *names: str) -> None:
    for name in names:
        made.pop(name, None)
        made.pop(f"_{name}", None)


def _has(made: Json, name: str) -> bool:
    return name in made or f"_{name}" in made


def _measure(made: Json) -> None:
    _drop(made, "value", "code", "system")
    made.update(value=Number("5.10"), system="http://unitsofmeasure.org", code="mg")


def _no_home(made: Json) -> None:
    made["name"] = "Hospital"
    for item in (*made.get("address", ()), *made.get("telecom", ())):
        item["use"] = "work"


def _observation(made: Json) -> None:
    values = [name for name in made if name.lstrip("_").startswith("value")]
    if values:
        _drop(made, "dataAbsentReason", "component")


def _audit_entity(made: Json) -> None:
    _drop(made, "query") if _has(made, "name") else None


def _list(made: Json) -> None:
    made["mode"] = "changes"
    _drop(made, "emptyReason") if "entry" in made else None


def _repeat(made: Json) -> None:
    _drop(made, *"duration durationMax durationUnit period periodMax periodUnit count countMax offset timeOfDay".split())
    made.update(period=Number("1"), periodUnit="d")


# What random elements need so that they keep the invariants of their type.
_FIXES: dict[str, Callable[[Json], None]] = {
    **dict.fromkeys(("Age", "Count", "Distance", "Duration", "Quantity"), _measure),
    "Attachment": lambda made: made.update(contentType="application/pdf"),
    "AuditEventEntity": _audit_entity,
    "Consent": lambda made: made.update(policyRule={"text": "rule"}),
    "ContactPoint": lambda made: made.update(system="phone"),
    "Expression": lambda made: made.update(expression="true"),
    "List": _list,
    "Observation": _observation,
    "ObservationReferenceRange": lambda made: made.update(text="3 to 5"),
    "Organization": _no_home,
    "PatientContact": lambda made: made.update(name={"text": "A friend"}),
    "Period": lambda made: _drop(made, "end") or made.update(start="2026-01"),
    "Range": lambda made: _drop(made, "high") or made.update(low={"value": Number("1.0")}),
    "Ratio": lambda made: made.update(numerator={"value": Number("1")}, denominator={"value": Number("2.0")}),
    "ServiceRequest": lambda made: made.update(code={"text": "order"}),
    "TimingRepeat": _repeat,
}
