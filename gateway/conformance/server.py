"""The server that is judged, as checks meet it: who may ask, what it says it can do, whose record is written in.

Knows: the CapabilityStatement; what makes a check not applicable. Must not know: what is right.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import httpx
import pytest

from gateway.conformance.target import Target
from gateway.conformance.wire import Caller, Record, place_of


def not_applicable(reason: str) -> None:
    """End the check: the rule says nothing about this server."""
    pytest.skip(reason)


@dataclass
class Server:
    """A server for the time of one check. `capability`: its CapabilityStatement, {} where it gives none.

    `system`: of the identifiers of what this check makes, so that it can be told from all else.
    """

    target: Target
    http: httpx.Client
    record: Record
    made: list[tuple[Caller, str]]
    capability: Mapping[str, Any]
    system: str = field(default_factory=lambda: f"https://kit.example/{uuid.uuid4()}")

    def caller(self, role: str) -> Caller:
        """Who acts as this role; not applicable where the kit was given no token for it."""
        token = self.target.tokens.get(role)
        if token is None and not self.target.is_open:
            not_applicable(f"the kit has no token for the role '{role}'")
        return Caller(self.http, self.target, token, self.record, self.made)

    def anonymous(self) -> Caller:
        """Who shows no token."""
        return Caller(self.http, self.target, None, self.record, self.made)

    def bearer(self, token: str) -> Caller:
        """Who shows this token."""
        return Caller(self.http, self.target, token, self.record, self.made)

    @cached_property
    def patient(self) -> str:
        """Id of the Patient whose record is written in; made where the server lets anybody make one."""
        if self.target.patient is not None:
            return self.target.patient
        if not self.target.is_open:
            not_applicable("the kit was told of no patient")
        self.needs("Patient", "create")
        answer = self.caller("owner").create({"resourceType": "Patient", "name": [{"family": "Kit"}]})
        assert answer.status_code == 201, "a Patient is created with 201"
        return place_of(answer.headers.get("location", "")).partition("/")[2] or str(answer.json()["id"])

    @property
    def stranger(self) -> str:
        """Id of a Patient whose record is closed to every role."""
        if self.target.stranger is None:
            not_applicable("the kit was told of no patient whose record is closed to it")
        return self.target.stranger or ""

    @cached_property
    def _rest(self) -> Mapping[str, Any]:
        return next(iter(self.capability.get("rest", [])), {})

    @cached_property
    def types(self) -> Mapping[str, Mapping[str, Any]]:
        """What is declared of each resource type."""
        return {told["type"]: told for told in self._rest.get("resource", [])}

    def declares(self, type_name: str, interaction: str) -> bool:
        """Whether the server declares this interaction of the type."""
        return interaction in {one["code"] for one in self.types.get(type_name, {}).get("interaction", [])}

    def needs(self, type_name: str, *interactions: str) -> None:
        """Not applicable where the server does not declare these interactions of the type."""
        missing = [one for one in interactions if not self.declares(type_name, one)]
        if missing or type_name not in self.types:
            not_applicable(f"the server does not declare {', '.join(missing) or 'anything'} of {type_name}")

    def needs_of_type(self, type_name: str, key: str) -> None:
        """Not applicable where `rest.resource` does not say true of this key (conditionalCreate, …)."""
        if not self.types.get(type_name, {}).get(key):
            not_applicable(f"the server does not declare {key} of {type_name}")

    def needs_of_system(self, interaction: str) -> None:
        """Not applicable where the server does not declare this interaction of the system (transaction, batch, …)."""
        if interaction not in {one["code"] for one in self._rest.get("interaction", [])}:
            not_applicable(f"the server does not declare {interaction}")

    def needs_operation(self, name: str, type_name: str | None = None) -> None:
        """Not applicable where the server does not declare the operation."""
        told = self._rest if type_name is None else self.types.get(type_name, {})
        if name not in {one["name"].lstrip("$") for one in told.get("operation", [])}:
            not_applicable(f"the server does not declare ${name}")

    def needs_tokens(self) -> None:
        """Not applicable where everybody may do everything."""
        if self.target.is_open:
            not_applicable("the server asks for no tokens")

    def heart_rate(self, value: float | int = 72, **other: Any) -> dict[str, Any]:
        """An Observation that every server can take: of the record the kit may write in, with an identifier of its own."""
        return {
            "resourceType": "Observation",
            "status": "final",
            "identifier": [{"system": self.system, "value": str(uuid.uuid4())}],
            "category": [
                {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}
            ],
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
            "subject": {"reference": f"Patient/{self.patient}"},
            "effectiveDateTime": moment(),
            "valueQuantity": {"value": value, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
        } | other

    def glucose(self, value: int = 104, **other: Any) -> dict[str, Any]:
        """One reading of a sensor in mg/dL."""
        quantity = {"value": value, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}
        code = {"coding": [{"system": "http://loinc.org", "code": "99504-3"}]}
        reading = self.heart_rate(code=code, valueQuantity=quantity) | other
        return {name: told for name, told in reading.items() if name != "category"}

    def count(self, caller: Caller) -> int:
        """How many Observations of this check's making there are."""
        answer = caller.get("Observation", patient=self.patient, identifier=f"{self.system}|", _summary="count")
        assert answer.status_code == 200, "a search is answered with 200"
        return int(answer.json()["total"])

    def made_by(self, caller: Caller, resource: dict[str, Any]) -> dict[str, Any]:
        """The resource as the server stored it."""
        answer = caller.create(resource, {"prefer": "return=representation"})
        assert answer.status_code == 201, f"a valid {resource['resourceType']} is created with 201"
        stored: dict[str, Any] = answer.json()
        return stored


def moment(days: float = 0.0) -> str:
    """The present moment, or so many days before, to the second."""
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def reference_of(resource: Mapping[str, Any]) -> str:
    """`Type/id`."""
    return f"{resource['resourceType']}/{resource['id']}"
