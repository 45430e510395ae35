"""The data files say of search parameters and required bindings what the FHIR R4 (4.0.1) standard says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.fhir.registry import Registry
from gateway.fhir.search import implied_parameters
from gateway.fhir.types import Types
from gateway.schemas import find_schemas
from gateway.settings import read_gateway_file

BASE = "http://hl7.org/fhir/SearchParameter/"

# Standard parameters that no type here declares, and why.
LEFT_OUT = {
    "phonetic",  # no phonetic matching
    "deceased",  # whether an element exists is no value
    "order-detail",  # of no published R4; only in the copy at hand
}
# Of AuditEvents, which are kept compact, only what is indexed can be searched.
OF_AUDIT = {"action", "agent", "date", "outcome", "patient", "subtype"}


@pytest.fixture(scope="module")
def standard(specifications: Path) -> list[dict[str, Any]]:
    bundle = json.loads((specifications / "fhir-r4-core" / "search-parameters-subset.json").read_text("utf-8"))
    return [entry["resource"] for entry in bundle["entry"]]


def expected(standard: list[dict[str, Any]], type_name: str) -> dict[str, dict[str, Any]]:
    """The standard's parameters of one type, by name."""
    return {p["code"]: p for p in standard if type_name in p["base"]}


def test_each_declared_parameter_is_the_standards(registry: Registry, standard: list[dict[str, Any]]) -> None:
    known = {p["url"]: p for p in standard}
    for kind in registry.resource_types.values():
        for parameter in (*implied_parameters(kind), *kind.search.values()):
            if (parameter.definition or "").startswith("https:"):
                continue  # IHE's own
            url = BASE + (parameter.definition or f"{kind.name}-{parameter.name}")
            if url in known:  # (the copy at hand has the greater part of them)
                assert (known[url]["code"], known[url]["type"]) == (parameter.name, parameter.type), (kind.name, url)
                assert kind.name in known[url]["base"], (kind.name, url)
            else:
                assert kind.name in ("RelatedPerson", "MedicationStatement", "CareTeam"), (kind.name, url)


def test_each_standard_parameter_is_declared(registry: Registry, standard: list[dict[str, Any]]) -> None:
    for kind in registry.resource_types.values():
        declared = {p.name for p in implied_parameters(kind)} | set(kind.search)
        missing = set(expected(standard, kind.name)) - declared - LEFT_OUT
        assert not missing or (kind.name == "AuditEvent" and not missing & OF_AUDIT), (kind.name, missing)


def plain(expression: str, type_name: str) -> set[str]:
    """A standard expression as paths of this house: without the type's name, casts as `ofType`."""
    found = set()
    for part in expression.split(" | "):
        part = re.sub(r"^\((.*) as (\w+)\)", r"\1.ofType(\2)", part.strip())
        part = re.sub(r"\.where\(resolve\(\) is \w+\)", "", part)
        if part.startswith(f"{type_name}.") and "SampledData" not in part:
            found.add(part.removeprefix(f"{type_name}."))
    return found


def test_each_declared_path_is_the_standards(registry: Registry, standard: list[dict[str, Any]]) -> None:
    tomls = {file.stem: file.read_text("utf-8") for file in (find_schemas() / "resources").glob("*.toml")}
    for name, text in tomls.items():
        of_type = expected(standard, name)
        for section in re.split(r"(?m)^\[search\.", text)[1:]:
            parameter = section.partition("]")[0]
            line = re.search(r"(?m)^path = (.+)$", section)
            if line is None or parameter not in of_type or (name, parameter) == ("AuditEvent", "patient"):
                continue
            paths = {re.sub(r"\.ofType\(Reference\)", "", path) for path in re.findall(r'"([^"]+)"', line[1])}
            assert paths == plain(of_type[parameter]["expression"], name), (name, parameter)


def bound(types: Types, type_name: str) -> dict[str, set[str]]:
    """The elements of a type, nested ones included, that have a binding here: path and codes."""
    found: dict[str, set[str]] = {}
    pending = [(type_name, type_name)]
    seen = set()
    while pending:
        name, path = pending.pop()
        for element in types.elements(name):
            if element.codes:
                found[f"{path}.{element.name}"] = set(element.codes)
            elif not element.is_primitive and element.type.startswith(name) and element.type not in seen:
                seen.add(element.type)
                pending.append((element.type, f"{path}.{element.name}"))
    return found


# Value sets that are open or longer than a table should be.
UNBOUNDED = {"mimetypes", "languages", "all-types", "resource-types", "currencies", "ucum-units"}


def test_required_bindings_of_the_standard_are_ours(registry: Registry, specifications: Path) -> None:
    folder = specifications / "fhir-r4-core" / "structuredefinitions"
    for kind in registry.resource_types.values():
        file = folder / f"StructureDefinition-{kind.name}.json"
        if not file.is_file():
            continue
        elements = json.loads(file.read_text("utf-8"))["snapshot"]["element"]
        ours = bound(registry.types, kind.name)
        for element in elements:
            binding = element.get("binding", {})
            value_set = binding.get("valueSet", "").rpartition("/")[2].partition("|")[0]
            coded = [t["code"] for t in element.get("type", ())] == ["code"]
            if coded and binding.get("strength") == "required" and value_set not in UNBOUNDED:
                assert element["path"] in ours, (element["path"], value_set)


def test_each_binding_is_of_an_element_that_takes_codes() -> None:
    """A misspelt path in `gateway.toml` would bind nothing."""
    bindings = read_gateway_file(find_schemas()).bindings
    types = Types(bindings, 100)
    for path, codes in bindings.items():
        *parents, name = path.split(".")
        types.struct(parents[0])
        owner = "".join(part[0].upper() + part[1:] for part in parents)
        (element,) = (e for e in types.elements(owner) if e.name == name)
        assert (element.type, element.codes) == ("code", tuple(codes)), path
        assert len(set(codes)) == len(codes), path
