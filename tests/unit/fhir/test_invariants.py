"""The invariants of R4 that a resource can break on its own: kept, broken, and met by an extension in place of a value."""

import json
from typing import Any

import pytest

from gateway.fhir.codec import Codec
from gateway.fhir.invariants import INVARIANTS
from gateway.fhir.registry import Registry
from gateway.problem import Problem

WHY = {"extension": [{"url": "http://example.org/why", "valueCode": "unknown"}]}
UCUM = "http://unitsofmeasure.org"
CODE = {"coding": [{"system": "http://loinc.org", "code": "a"}]}
AGENT = [{"requestor": True}]
EVENT = {"type": {"code": "a"}, "recorded": "2026-01-01T00:00:00Z", "agent": AGENT, "source": {"observer": {"display": "a"}}}
NEEDED: dict[str, dict[str, Any]] = {
    "AuditEvent": EVENT,
    "Consent": {"status": "active", "scope": {"text": "a"}, "category": [{"text": "a"}], "policyRule": {"text": "a"}},
    "DocumentReference": {"status": "current"},
    "List": {"status": "current", "mode": "changes"},
    "Observation": {"status": "final", "code": CODE},
    "Organization": {"name": "a"},
    "ServiceRequest": {"status": "active", "intent": "order", "subject": {"display": "a"}},
}


def quantity(value: float, unit: str = "mg") -> dict[str, Any]:
    return {"value": value, "system": UCUM, "code": unit}


def when(**repeat: Any) -> dict[str, Any]:
    return {"occurrenceTiming": {"repeat": repeat}}


def extended(**value: Any) -> dict[str, Any]:
    return {"extension": [{"url": "a", **value}]}


ENTRY = [{"item": {"display": "a"}}]
DELETED = [{"item": {"display": "a"}, "deleted": False}]
OTHER = {"coding": [{"system": "http://loinc.org", "code": "b"}]}

# Rule, type, what keeps it, what breaks it, and the element that is named.
TABLE: list[tuple[str, str, list[dict[str, Any]], list[dict[str, Any]], str]] = [
    ("att-1", "DocumentReference", [{"content": [{"attachment": {"data": "AAAA", "contentType": "a/b"}}]},
      {"content": [{"attachment": {"data": "AAAA", "_contentType": WHY}}]}],
     [{"content": [{"attachment": {"data": "AAAA"}}]}], "content[0].attachment"),
    ("sev-1", "AuditEvent", [{"entity": [{"name": "a"}]}, {"entity": [{"query": "AAAA"}]}],
     [{"entity": [{"name": "a", "query": "AAAA"}]}], "entity[0]"),
    ("ppc-1", "Consent", [{"policyRule": {"text": "a"}}], [{"policyRule": None}], ""),
    ("cpt-2", "Patient", [{"telecom": [{"value": "a", "system": "phone"}]}, {"telecom": [{"value": "a", "_system": WHY}]}],
     [{"telecom": [{"value": "a"}]}, {"telecom": [{"_value": WHY}]}], "telecom[0]"),
    ("ext-1", "Patient", [extended(valueString="a"), extended(_valueString=WHY), extended(**extended(valueString="a"))],
     [extended(), extended(valueString="a", **extended(valueString="a"))], "extension[0]"),
    ("exp-1", "Patient", [extended(valueExpression={"language": "a", "expression": "b"})],
     [extended(valueExpression={"language": "a"})], "extension[0].valueExpression"),
    ("lst-1", "List", [{"emptyReason": {"text": "a"}}, {"entry": ENTRY}], [{"emptyReason": {"text": "a"}, "entry": ENTRY}], ""),
    ("lst-2", "List", [{"entry": DELETED}, {"mode": "working", "entry": ENTRY}], [{"mode": "working", "entry": DELETED}], ""),
    ("obs-3", "Observation", [{"referenceRange": [{"text": "a"}]}, {"referenceRange": [{"_text": WHY}]},
      {"referenceRange": [{"low": {"value": 1}}]}],
     [{"referenceRange": [{"appliesTo": [{"text": "a"}]}]}], "referenceRange[0]"),
    ("obs-6", "Observation", [{"dataAbsentReason": {"text": "a"}}], [{"dataAbsentReason": {"text": "a"}, "valueString": "a"},
      {"dataAbsentReason": {"text": "a"}, "_valueString": WHY}], ""),
    ("obs-7", "Observation", [{"valueString": "a", "component": [{"code": OTHER}]}, {"component": [{"code": CODE}]},
      {"code": {"coding": [{"display": "a"}]}, "valueString": "a", "component": [{"code": {"coding": [{"display": "b"}]}}]}],
     [{"valueString": "a", "component": [{"code": OTHER}, {"code": CODE}]}], ""),
    ("org-1", "Organization", [{"name": None, "identifier": [{"value": "a"}]}, {"name": None, "_name": WHY}],
     [{"name": None, "active": True}], ""),
    ("org-2", "Organization", [{"address": [{"use": "work"}]}], [{"address": [{"use": "work"}, {"use": "home"}]}], ""),
    ("org-3", "Organization", [{"telecom": [{"use": "work"}]}], [{"telecom": [{"use": "home"}]}], ""),
    ("pat-1", "Patient", [{"contact": [{"name": {"text": "a"}}]}, {"contact": [{"organization": {"display": "a"}}]}],
     [{"contact": [{"gender": "male"}]}], "contact[0]"),
    ("per-1", "Patient", [{"name": [{"period": {"start": "2026", "end": "2026"}}]},
      {"name": [{"period": {"start": "2026-02", "end": "2026"}}]}, {"name": [{"period": {"end": "2026"}}]},
      {"name": [{"period": {"start": "9999-12-31T23:59:59Z", "end": "9999-12-31T23:59:59Z"}}]}],
     [{"name": [{"period": {"start": "2026-02", "end": "2026-01"}}]},
      {"name": [{"period": {"start": "2026-01-01T00:00:00+01:00", "end": "2025-12-31T22:00:00Z"}}]}], "name[0].period"),
    ("qty-3", "Observation", [{"valueQuantity": quantity(1)}, {"valueQuantity": {"code": "mg", "_system": WHY}}],
     [{"valueQuantity": {"value": 1, "code": "mg"}}], "valueQuantity"),
    *[(rule, "Patient", [extended(**{name: quantity(1, "a")}), extended(**{name: {"unit": "a"}})],
       [extended(**{name: {"value": 1}}), extended(**{name: {"value": 1, "code": "a", "system": "http://example.org"}})],
       f"extension[0].{name}")
      for rule, name in (("age-1", "valueAge"), ("cnt-3", "valueCount"),
                         ("dis-1", "valueDistance"), ("drt-1", "valueDuration"))],
    ("age-1", "Patient", [], [extended(valueAge=quantity(0, "a")),
      extended(valueAge=quantity(-1, "a"))], "extension[0].valueAge"),
    ("prr-1", "ServiceRequest", [{"orderDetail": [{"text": "a"}], "code": {"text": "a"}}],
     [{"orderDetail": [{"text": "a"}]}], ""),
    ("rat-1", "Observation", [{"valueRatio": {"numerator": quantity(1), "denominator": quantity(2)}}, {"valueRatio": WHY}],
     [{"valueRatio": {"numerator": quantity(1)}}, {"valueRatio": {"denominator": quantity(1)}}], "valueRatio"),
    ("rng-2", "Observation", [{"valueRange": {"low": quantity(1), "high": quantity(1)}}, {"valueRange": {"low": quantity(1)}},
      {"valueRange": {"low": quantity(2), "high": quantity(1, "g")}}],
     [{"valueRange": {"low": quantity(2), "high": quantity(1)}}], "valueRange"),
    *[(rule, "ServiceRequest", [when(**kept)], [when(**broken)], "occurrenceTiming.repeat")
      for rule, kept, broken in (
        ("tim-1", {"duration": 1, "durationUnit": "h"}, {"duration": 1}),
        ("tim-2", {"period": 1, "periodUnit": "d"}, {"period": 1}),
        ("tim-4", {"duration": 0, "durationUnit": "h"}, {"duration": -1, "durationUnit": "h"}),
        ("tim-5", {"period": 0, "periodUnit": "d"}, {"period": -1, "periodUnit": "d"}),
        ("tim-6", {"period": 1, "periodMax": 2, "periodUnit": "d"}, {"periodMax": 2, "periodUnit": "d"}),
        ("tim-7", {"duration": 1, "durationMax": 2, "durationUnit": "h"}, {"durationMax": 2}),
        ("tim-8", {"count": 1, "countMax": 2}, {"countMax": 2}),
        ("tim-9", {"offset": 1, "when": ["AC"]}, {"offset": 1}),
        ("tim-9", {"when": ["C"]}, {"offset": 1, "when": ["CM"]}),
        ("tim-10", {"timeOfDay": ["08:00:00"]}, {"timeOfDay": ["08:00:00"], "when": ["AC"]}),
      )],
]  # fmt: skip


def decode(codec: Codec, name: str, elements: dict[str, Any]) -> None:
    made = {"resourceType": name, **NEEDED.get(name, {}), **elements}
    codec.decode(name, json.dumps({key: value for key, value in made.items() if value is not None}).encode())


@pytest.mark.parametrize(("rule", "name", "kept", "broken", "place"), TABLE, ids=[row[0] for row in TABLE])
def test_the_rule(codec: Codec, rule: str, name: str, kept: list[Any], broken: list[Any], place: str) -> None:
    for elements in kept:
        decode(codec, name, elements if name != "DocumentReference" else {"content": [], **elements})
    for elements in broken:
        with pytest.raises(Problem) as caught:
            decode(codec, name, elements)
        issue = caught.value.issues[0]
        assert (issue.code, issue.text.partition(":")[0]) == ("invariant", rule), elements
        assert issue.expression == (f"{name}.{place}" if place else name)
        assert caught.value.status == 422


def test_every_rule_belongs_to_a_type_of_r4(registry: Registry) -> None:
    for name in registry.resource_types:
        registry.types.struct(name)
    for name in INVARIANTS:
        assert registry.types.elements(name), name
