"""The CapabilityStatement is valid R4 and says what the registry says, no more."""

import msgspec
import pytest
from fhir.resources.R4B.capabilitystatement import CapabilityStatement

from gateway import __version__
from gateway.fhir.capability import build_capability_statement
from gateway.fhir.codec import Codec
from gateway.fhir.registry import Registry

BASE = "https://gateway.example/fhir"


@pytest.fixture(scope="module")
def encoded(registry: Registry) -> bytes:
    return msgspec.json.encode(build_capability_statement(registry, BASE, {}))


@pytest.mark.requirement("CORE-01")
def test_it_is_valid_for_both_validators(codec: Codec, encoded: bytes) -> None:
    statement = CapabilityStatement.model_validate_json(encoded)
    assert statement.kind == "instance"
    codec.decode("CapabilityStatement", encoded)


@pytest.mark.requirement("CORE-01")
def test_what_it_says_of_the_service(registry: Registry) -> None:
    statement = build_capability_statement(registry, BASE, {})
    (rest,) = statement.pop("rest")
    assert rest["mode"] == "server"
    assert [i["code"] for i in rest["interaction"]] == ["transaction", "batch", "search-system", "history-system"]
    assert [p["name"] for p in rest["searchParam"]] == ["_type", "_id", "_lastUpdated", "_security"]
    assert statement["fhirVersion"] == "4.0.1"
    assert statement["software"] == {"name": "fhir-document-gateway", "version": __version__}
    assert statement["implementation"]["url"] == BASE
    # Nothing is claimed that is not wholly there (test_transactions_of_ihe.py, test_submit_cgm_bundle.py).
    assert {url.rpartition("/")[2] for url in statement["instantiates"]} == {
        "IHE.MHD.DocumentRecipient",
        "IHE.MHD.DocumentRecipient.Comprehensive",
        "IHE.MHD.DocumentRecipient.Fdoc",
        "IHE.MHD.DocumentRecipient.Generate",
        "IHE.MHD.DocumentRecipient.Simplified",
        "IHE.MHD.DocumentRecipient.UnContained",
        "IHE.MHD.DocumentResponder",
        "PDSm-GestionnaireDePartageDeDocuments",
        "cgm-data-receiver",
    }


@pytest.mark.requirement("CORE-02")
def test_each_type_is_declared_as_its_file_says(registry: Registry) -> None:
    (rest,) = build_capability_statement(registry, BASE, {})["rest"]
    declared = {resource["type"]: resource for resource in rest["resource"]}
    assert {name for name, resource in declared.items() if "interaction" in resource} == set(registry.resource_types)
    assert declared["Bundle"] == {"type": "Bundle", "operation": declared["Observation"]["operation"][-1:]}
    for name, kind in registry.resource_types.items():
        resource = declared[name]
        assert {i["code"] for i in resource["interaction"]} == kind.interactions
        if kind.is_raw:  # it is not searched
            assert not {"searchParam", "searchInclude", "searchRevInclude"} & resource.keys()
            assert not resource["conditionalCreate"]
            continue
        parameters = {p["name"]: p for p in resource["searchParam"]}
        assert len(parameters) == len(resource["searchParam"])
        wanted = {"_id", "_lastUpdated", "_security", *kind.search, *kind.aliases, *(["patient"] if kind.patient else [])}
        assert set(parameters) == wanted
        assert all(parameters[p.name]["type"] == p.type for p in kind.search.values())
        assert resource.get("supportedProfile", []) == list(kind.profiles)


@pytest.mark.parametrize(
    ("type_name", "name", "definition"),
    [
        ("Observation", "_id", "Resource-id"),
        ("Observation", "_lastUpdated", "Resource-lastUpdated"),
        ("Observation", "patient", "clinical-patient"),
        ("Observation", "code", "clinical-code"),
        ("Observation", "encounter", "clinical-encounter"),
        ("Observation", "category", "Observation-category"),
        ("DocumentReference", "type", "clinical-type"),
        ("DocumentReference", "date", "DocumentReference-date"),
        ("Consent", "patient", "clinical-patient"),
        ("Consent", "date", "clinical-date"),
        ("Device", "patient", "Device-patient"),
        ("RelatedPerson", "patient", "RelatedPerson-patient"),
        ("RelatedPerson", "address-city", "individual-address-city"),
        ("AuditEvent", "patient", "AuditEvent-patient"),
        ("Provenance", "patient", "Provenance-patient"),
        ("Patient", "name", "Patient-name"),
        ("Patient", "family", "individual-family"),
        ("Organization", "address-city", "Organization-address-city"),
        ("MedicationStatement", "status", "medications-status"),
        ("MedicationStatement", "medication", "medications-medication"),
        ("MedicationStatement", "effective", "MedicationStatement-effective"),
    ],
)
def test_definitions_are_the_standards(registry: Registry, type_name: str, name: str, definition: str) -> None:
    (rest,) = build_capability_statement(registry, BASE, {})["rest"]
    (resource,) = (r for r in rest["resource"] if r["type"] == type_name)
    (parameter,) = (p for p in resource["searchParam"] if p["name"] == name)
    assert parameter["definition"] == f"http://hl7.org/fhir/SearchParameter/{definition}"
