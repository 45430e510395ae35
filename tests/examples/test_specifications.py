"""Every example of a specification that is of a served type is read and kept as it is; the few that break R4 are listed."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.fhir.codec import Codec
from gateway.fhir.identity import Identities, business_key
from gateway.fhir.references import References
from gateway.fhir.registry import Registry
from gateway.problem import Problem

# The examples that break the standard they are made for: the element that does, and how.
BROKEN = {
    "ans-pdsm/examples/DocumentReference-doc-old.json": ("DocumentReference.contained[0].meta", "dom-4: a contained version"),
    "ans-pdsm/examples/DocumentReference-exemple-pdsm-documentreference.json":
        ("DocumentReference.contained[0].meta", "dom-4: a contained lastUpdated"),
    "ans-pdsm/examples/List-ExampleSubmissionSet.json": ("List.contained[0].meta", "dom-4: a contained version"),
    "mes-api/examples/observation-bp-fragment.json": ("Observation.code", "a fragment, cut out of a page"),
}  # fmt: skip


class Exact(str):
    """A number by its characters."""


def resources(file: Path, registry: Registry) -> Iterator[dict[str, Any]]:
    """The resources of served types in a file, those in a Bundle included."""
    found = json.loads(file.read_text("utf-8-sig"), parse_float=Decimal)
    if not isinstance(found, dict) or "resourceType" not in found:
        return
    entries = found.get("entry", ()) if found["resourceType"] == "Bundle" else ()
    for resource in (found, *(entry["resource"] for entry in entries if "resource" in entry)):
        if resource["resourceType"] in registry.resource_types:
            yield resource


def dump(resource: Any) -> bytes:
    """JSON that keeps the digits of decimals."""
    numbers: list[str] = []

    def mark(number: Decimal) -> str:
        numbers.append(str(number))
        return f"@@{len(numbers) - 1}@@"

    text = json.dumps(resource, default=mark, ensure_ascii=False)
    for n, number in enumerate(numbers):
        text = text.replace(f'"@@{n}@@"', number)
    return text.encode()


def test_every_example_is_read_and_kept(specifications: Path, registry: Registry, codec: Codec) -> None:
    identities, seen = Identities(registry), dict.fromkeys(registry.resource_types, 0)
    for file in sorted(specifications.rglob("*.json")):
        name = str(file.relative_to(specifications))
        for resource in resources(file, registry):
            if name in BROKEN:
                continue
            data, kind = dump(resource), registry[resource["resourceType"]]
            decoded = codec.decode(kind.name, data, calm=codec.check_body(data))
            kept = json.loads(codec.encode(decoded), parse_float=Exact, parse_int=Exact)
            assert kept == json.loads(data, parse_float=Exact, parse_int=Exact), name
            identity = identities.read(kind, data)
            assert business_key(kind, identity, "p", "s") == business_key(kind, decoded, "p", "s"), name
            seen[kind.name] += 1
    assert sum(seen.values()) > 200
    assert not [
        kind for kind in ("Patient", "Observation", "DocumentReference", "List", "AuditEvent", "Device") if seen[kind] < 5
    ]


def test_every_target_of_an_example_is_one_that_r4_allows(specifications: Path, registry: Registry, codec: Codec) -> None:
    references = References(registry.types, codec)
    for file in sorted(specifications.rglob("*.json")):
        for resource in resources(file, registry):
            if str(file.relative_to(specifications)) in BROKEN:
                continue
            decoded = codec.decode(resource["resourceType"], dump(resource))
            for place in references.find(decoded):
                target, slash, _ = (place.reference.reference or "").partition("/")
                if slash and target.isalpha() and place.targets and "Resource" not in place.targets:
                    assert target in place.targets, (file.name, place.expression)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_listed_as_broken_is(specifications: Path, registry: Registry, codec: Codec, name: str) -> None:
    expression, _ = BROKEN[name]
    found = []
    for resource in resources(specifications / name, registry):
        with pytest.raises(Problem) as caught:
            codec.decode(resource["resourceType"], dump(resource))
        found += [issue.expression for issue in caught.value.issues]
    assert expression in found


def test_the_elements_of_every_served_type_are_those_of_r4(specifications: Path, registry: Registry) -> None:
    """The StructureDefinitions of 4.0.1 against what is derived from R4B: names, cardinalities, targets, required bindings."""
    read = [json.loads(f.read_text()) for f in (specifications / "fhir-r4-core" / "structuredefinitions").glob("*.json")]
    definitions = {d["type"]: d for d in read if d["derivation"] == "specialization" and d["type"] in registry.resource_types}
    assert len(definitions) > 10
    for name, definition in definitions.items():
        for element in definition["snapshot"]["element"][1:]:
            if element["path"] != "Binary.url":  # (which the publisher of this copy added)
                _check_element(registry, name, element)


def _check_element(registry: Registry, name: str, element: dict[str, Any]) -> None:
    *parents, last = element["path"].split(".")
    derived = {e.name: e for e in registry.types.elements("".join(part[0].upper() + part[1:] for part in parents))}
    types = element.get("type", ())
    names = [last[:-3] + t["code"][0].upper() + t["code"][1:] for t in types] if last.endswith("[x]") else [last]
    for one in names:
        found = derived[one]
        is_choice = last.endswith("[x]")
        assert (found.choice_required if is_choice else found.required) == (element["min"] > 0), element["path"]
        assert found.many == (element["max"] != "1"), element["path"]
        if types and types[0]["code"] == "Reference" and not is_choice:
            targets = {profile.rsplit("/", 1)[-1] for profile in types[0].get("targetProfile", ())} - {"Resource"}
            targets -= {"Subscription", "Bot", "ClientApplication"}  # (which the publisher of this copy added)
            assert set(found.targets) - {"Resource"} == targets, element["path"]
        binding = element.get("binding", {})
        if types and types[0]["code"] == "code" and last != "contentType":
            is_required = binding.get("strength") == "required" and "mimetypes" not in binding.get("valueSet", "")
            assert bool(found.codes) == is_required, element["path"]
