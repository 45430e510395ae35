"""The body mass index, computed when it is read: of each body weight, with the body height of its time.

Knows: kg/m² and what an Observation of it says (LOINC 39156-5). Must not know: stores, HTTP, who is calling.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

import msgspec

from gateway.fhir.dates import read_span
from gateway.fhir.values import UCUM

WEIGHT, HEIGHT = "http://loinc.org|29463-7", "http://loinc.org|8302-2"
PROFILE = "https://fhir.monespacesante.fr/ref/mesure/StructureDefinition/mes-observation-bmi"
_KILOGRAMS = {"kg": Decimal(1), "g": Decimal("0.001"), "[lb_av]": Decimal("0.45359237")}
_METRES = {"m": Decimal(1), "cm": Decimal("0.01"), "[in_i]": Decimal("0.0254")}


class Found(NamedTuple):
    """A resource of a searchset as JSON. `mode`: match or include."""

    body: bytes
    mode: str


class _Quantity(msgspec.Struct):
    value: Decimal | None = None
    system: str | None = None
    code: str | None = None


class _Measured(msgspec.Struct):
    id: str
    effectiveDateTime: str | None = None  # noqa: N815
    valueQuantity: _Quantity | None = None  # noqa: N815


_decode = msgspec.json.Decoder(_Measured).decode


def body_mass_indexes(weights: Sequence[Found], heights: Sequence[Found]) -> list[Found]:
    """The index of each of these weights that can be compared with a height; what was included with them stays.

    The height is the last one known at the time of the weight or, before any was known, the first one.
    """
    known = sorted(measure for one in heights if (measure := _amount(_decode(one.body), _METRES)) is not None)
    found: list[Found] = []
    for one in weights:
        if one.mode != "match":
            found.append(one)
            continue
        measured = _decode(one.body)
        weight = _amount(measured, _KILOGRAMS)
        if weight is not None and known:
            before = [height for height in known if height[0] <= weight[0]]
            found.append(Found(_index(measured, weight[1], before[-1] if before else known[0]), "match"))
    return found


def _amount(measured: _Measured, units: dict[str, Decimal]) -> tuple[datetime, Decimal, str] | None:
    """When it was measured, how much in the first of these units, and which resource says so."""
    quantity = measured.valueQuantity
    if quantity is None or quantity.value is None or quantity.system != UCUM or measured.effectiveDateTime is None:
        return None
    factor = units.get(quantity.code or "")
    amount = None if factor is None else quantity.value * factor
    return None if not amount or amount < 0 else (read_span(measured.effectiveDateTime).low, amount, measured.id)


def _index(weight: _Measured, kilograms: Decimal, height: tuple[datetime, Decimal, str]) -> bytes:
    value = (kilograms / height[1] ** 2).quantize(Decimal("0.1"), ROUND_HALF_UP)
    category = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}
    built: dict[str, Any] = {
        "resourceType": "Observation",
        "meta": {"profile": [PROFILE]},
        "status": "final",
        "category": [{"coding": [category]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "39156-5", "display": "Body mass index"}]},
        "subject": {},
        "effectiveDateTime": weight.effectiveDateTime,
        "valueQuantity": {"value": msgspec.Raw(str(value).encode()), "unit": "kg/m2", "system": UCUM, "code": "kg/m2"},
        "derivedFrom": [{"reference": f"Observation/{weight.id}"}, {"reference": f"Observation/{height[2]}"}],
    }
    return msgspec.json.encode(built)
