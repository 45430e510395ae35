"""The query parameters of each type, as its OpenAPI description lists them.

Knows: which parameters shape an answer and what values they take. Must not know: how they are read.
"""

from collections.abc import Iterable
from typing import Any, Literal

from gateway.exchange.control import CONTROLS
from gateway.exchange.parameters import PRESENTATION
from gateway.fhir.include import declared_includes, declared_revincludes
from gateway.fhir.registry import COMMON_PARAMETERS, Registry, ResourceType
from gateway.fhir.search import implied_parameters
from gateway.settings import Limits

QueryKind = Literal["search", "criteria", "history", "histories", "read", "system"]


def query_parameters(registry: Registry, limits: Limits, kind: ResourceType, of: QueryKind) -> list[dict[str, Any]]:
    """The parameters of a search, of criteria, of a history or of a read of this type, without what all addresses have."""
    controls = _controls(limits, kind.sort)
    if of == "read":
        return [_parameter(name, controls[name]) for name in ("_elements", "_summary")]
    if of == "histories":
        return history_parameters()
    if of == "history":
        before = {"type": "integer", "minimum": 1}
        return [_parameter("_count", {"type": "integer", "minimum": 1}), _parameter("_before", before)]
    selected = {**COMMON_PARAMETERS, **{p.name: p.type for p in (*implied_parameters(kind), *kind.search.values())}}
    selected |= {alias: kind.search[name].type for alias, name in kind.aliases.items()}
    found = [_parameter(name, _SEVERAL, f"search parameter of type {type_}") for name, type_ in sorted(selected.items())]
    if of == "criteria":
        return found
    found += [_parameter(name, schema) for name, schema in sorted(controls.items()) if name not in PRESENTATION]
    for name, values in (
        ("_include", declared_includes(registry, kind)),
        ("_revinclude", declared_revincludes(registry, kind)),
    ):
        if values:
            found.append(_parameter(name, {"type": "array", "items": {"enum": values}}))
    return found


def history_parameters() -> list[dict[str, Any]]:
    """The parameters of a history of more than one resource."""
    since = _parameter("_since", {"type": "string", "format": "date-time"})
    return [_parameter("_count", {"type": "integer", "minimum": 1}), since, _parameter("_cursor", {"type": "string"})]


def system_parameters(registry: Registry, limits: Limits) -> list[dict[str, Any]]:
    """The parameters of a search over several types that any of them have."""
    types = [name for name, kind in registry.resource_types.items() if "search-type" in kind.interactions]
    found = [{**_parameter("_type", {"type": "array", "items": {"enum": types}}), "style": "form", "explode": False}]
    found += [_parameter(name, _SEVERAL, f"search parameter of type {type_}") for name, type_ in COMMON_PARAMETERS.items()]
    controls = _controls(limits, ("_lastUpdated",))
    return found + [_parameter(name, schema) for name, schema in sorted(controls.items()) if name not in PRESENTATION]


_SEVERAL: dict[str, Any] = {"type": "array", "items": {"type": "string", "minLength": 1}}


def _parameter(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
    return found | ({"description": description} if description else {})


def _controls(limits: Limits, sort: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What shapes the answer of a search, by name."""
    keys = [key for name in (*sort, "_id") for key in (name, f"-{name}")]
    known: dict[str, dict[str, Any]] = {
        "_count": {"type": "integer", "minimum": 0, "maximum": limits.page_most},
        "_cursor": {"type": "string"},
        "_elements": {"type": "string"},
        "_sort": {"type": "string", "examples": keys},
        "_summary": {"enum": ["true", "text", "data", "count", "false"]},
        "_total": {"enum": ["none", "estimate", "accurate"]},
    }
    return {name: known.get(name, {"type": "string"}) for name in CONTROLS}
