"""The CapabilityStatement: computed from the registry, so that it cannot promise what is not there.

Knows: https://hl7.org/fhir/R4/capabilitystatement.html. Must not know: who asks.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from gateway import __version__
from gateway.fhir.include import declared_includes, declared_revincludes
from gateway.fhir.operations import Operation
from gateway.fhir.registry import COMMON_PARAMETERS, Registry, ResourceType, SearchParameter
from gateway.fhir.search import implied_parameters, modifiers_of

_DEFINITIONS = "http://hl7.org/fhir/SearchParameter"
FHIR_JSON, FHIR_XML = "application/fhir+json", "application/fhir+xml"
JSON_PATCH = "application/json-patch+json"
PATCH_FORMATS = (JSON_PATCH, FHIR_JSON, FHIR_XML)

_SECURITY = "http://terminology.hl7.org/CodeSystem/restful-security-service"
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_RELEASED = "2026-11-24"

Guidance = Mapping[str, tuple[str, Any]]
_NO_GUIDANCE: Guidance = {}
_GUIDANCE = "urn:fhir-document-gateway:StructureDefinition/submission-guidance"
_HISTORY = (
    "Years of readings: oldest first, one Bundle at a time, `entries` in each. At once `burst` readings are taken, then so many"
    " `per-second`; what is known counts as the part `known` of one. RateLimit and RateLimit-Policy (headers) say what is left,"
    " 429 with Retry-After when to go on, and Observation/$submission-status how far it came."
)


def build_capability_statement(
    registry: Registry, base_url: str, security_uris: Mapping[str, str], guidance: Guidance = _NO_GUIDANCE
) -> dict[str, Any]:
    """The statement of this service, as JSON-ready FHIR. `security_uris`: where tokens are had (`token`, `authorize` …);
    `guidance`: what is said of operations that take Bundles, by name an element and its value.
    """
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": _RELEASED,
        "kind": "instance",
        **_instantiates(registry),
        "software": {"name": "fhir-document-gateway", "version": __version__},
        "implementation": {"description": "FHIR document exchange gateway", "url": base_url},
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON, FHIR_XML, "json", "xml"],
        "patchFormat": list(PATCH_FORMATS),
        "rest": [
            {
                "mode": "server",
                "documentation": "POST and PATCH take an Idempotency-Key: what is sent again with it is done once.",
                "security": _security(security_uris),
                "resource": [*(_resource(registry, kind) for kind in registry.resource_types.values()), *_others(registry)],
                "interaction": [_interaction(code) for code in _system_interactions(registry)],
                "searchParam": [{"name": "_type", "type": "special"}, *_common()],
                **_system_operations(registry, guidance),
            }
        ],
    }


def _security(uris: Mapping[str, str]) -> dict[str, Any]:
    """https://hl7.org/fhir/smart-app-launch/conformance.html#using-cs."""
    listed = [{"url": word, "valueUri": uri} for word, uri in uris.items()]
    return {
        **({"extension": [{"url": _OAUTH_URIS, "extension": listed}]} if listed else {}),
        "cors": True,
        "service": [{"coding": [{"system": _SECURITY, "code": "SMART-on-FHIR"}]}],
        "description": "Bearer tokens with SMART on FHIR scopes; the patient's Consent is checked on every call.",
    }


def _resource(registry: Registry, kind: ResourceType) -> dict[str, Any]:
    is_searched = "search-type" in kind.interactions
    resource: dict[str, Any] = {
        "type": kind.name,
        "interaction": [_interaction(code) for code in sorted(kind.interactions)],
        "versioning": "versioned",
        "readHistory": "vread" in kind.interactions,
        "updateCreate": False,
        "conditionalCreate": "create" in kind.interactions and not kind.is_raw,
        "conditionalRead": "full-support",
        "conditionalUpdate": "update" in kind.interactions,
        "conditionalDelete": "single" if "delete" in kind.interactions else "not-supported",
        "referencePolicy": ["literal", "logical", "enforced"],
        "searchInclude": declared_includes(registry, kind) if is_searched else [],
        "searchRevInclude": declared_revincludes(registry, kind) if is_searched else [],
        "searchParam": _parameters(kind) if is_searched else [],
    }
    if kind.profiles:
        resource["supportedProfile"] = list(kind.profiles)
    declared = {name: value for name, value in resource.items() if value != []}
    return declared | _operations(registry, kind.name)


def _interaction(code: str) -> dict[str, str]:
    return {"code": code} | ({"documentation": "For operators."} if code in ("history-type", "history-system") else {})


def _system_interactions(registry: Registry) -> list[str]:
    keeps_history = any("history-type" in kind.interactions for kind in registry.resource_types.values())
    return ["transaction", "batch", "search-system", *(["history-system"] if keeps_history else [])]


def _others(registry: Registry) -> list[dict[str, Any]]:
    """The types that are not stored here, and of which operations can be asked all the same."""
    names = dict.fromkeys(name for operation in registry.operations.values() for name in operation.types)
    return [{"type": name, **_operations(registry, name)} for name in names if registry.find(name) is None]


def _operations(registry: Registry, type_name: str) -> dict[str, Any]:
    return _listed(operation for operation in registry.operations.values() if type_name in operation.types)


def _listed(offered: Iterable[Operation]) -> dict[str, Any]:
    listed = [{"name": operation.code, "definition": operation.definition} for operation in offered]
    return {"operation": listed} if listed else {}


def _system_operations(registry: Registry, guidance: Guidance) -> dict[str, Any]:
    """The operations of the whole system; of those that take Bundles, how much they take and how fast."""
    offered = [operation for operation in registry.operations.values() if operation.is_offered("", "system")]
    declared = _listed(offered)
    listed = [{"url": name, element: value} for name, (element, value) in guidance.items()]
    for operation, found in zip(offered, declared.get("operation", ()), strict=True):
        if operation.entries and listed:
            found["extension"] = [{"url": _GUIDANCE, "extension": listed}]
            found["documentation"] = _HISTORY
    return declared


def _instantiates(registry: Registry) -> dict[str, Any]:
    """The statements of others that this service keeps, by the types it serves and the operations it offers."""
    urls = [url for kind in registry.resource_types.values() for url in kind.instantiates]
    urls += [operation.instantiates for operation in registry.operations.values() if operation.instantiates]
    return {"instantiates": urls} if urls else {}


def _parameters(kind: ResourceType) -> list[dict[str, Any]]:
    """The parameters of all types, then the type's own by name."""
    own = sorted((*implied_parameters(kind), *kind.search.values()), key=lambda p: p.name)
    listed = [_parameter(parameter, f"{kind.name}-{parameter.name}") for parameter in own]
    others = [_parameter(kind.search[name], f"{kind.name}-{name}") | {"name": alias} for alias, name in kind.aliases.items()]
    return [*_common(), *listed, *sorted(others, key=lambda p: str(p["name"]))]


def _common() -> list[dict[str, Any]]:
    return [
        _parameter(SearchParameter(name, kind), f"Resource-{name.removeprefix('_')}")
        for name, kind in COMMON_PARAMETERS.items()
    ]


def _parameter(parameter: SearchParameter, named: str) -> dict[str, Any]:
    """A parameter with its modifiers, for which R4 has no element. `named`: its definition, where its file names none."""
    is_elsewhere = (parameter.definition or "").startswith("https:")
    return {
        "name": parameter.name,
        "definition": parameter.definition if is_elsewhere else f"{_DEFINITIONS}/{parameter.definition or named}",
        "type": parameter.type,
        "documentation": f"Modifiers: {', '.join(modifiers_of(parameter))}",
    }
