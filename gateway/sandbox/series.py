"""Invented glucose readings that look like real ones: pure, and the same every time.

Knows: the HL7 CGM profile of a sensor reading. Must not know: who pushes them, where they go.
"""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

STEP = timedelta(minutes=5)
READINGS_A_DAY = 288
PROFILE = "http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-mass-per-volume"
_MEALS = (7.5, 12.5, 19.5)  # hours of the day


def glucose_at(moment: datetime) -> int:
    """A plausible sensor value in mg/dL: a night dip, three meals, and a wave of days."""
    hour = moment.hour + moment.minute / 60
    meals = sum(70 * math.exp(-(((hour - meal - 1) % 24) ** 2) / 1.2) for meal in _MEALS)
    days = 12 * math.sin(moment.timetuple().tm_yday * 1.7)
    night = -14 * math.exp(-((hour - 3.5) ** 2) / 3)
    flutter = 5 * math.sin(moment.timestamp() / 997)
    return max(45, min(320, round(112 + meals + days + night + flutter)))


def day_of_readings(patient: str, device: str, start: datetime) -> dict[str, Any]:
    """A transaction Bundle of one day: 288 Observations of a sensor. `patient` and `device` are references."""
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": f"urn:uuid:00000000-0000-4000-8000-{int(moment.timestamp()):012d}",
                "resource": reading(patient, device, moment),
                "request": {"method": "POST", "url": "Observation"},
            }
            for moment in _moments(start)
        ],
    }


def reading(patient: str, device: str, moment: datetime) -> dict[str, Any]:
    """One sensor reading as an Observation of the HL7 CGM profile."""
    return {
        "resourceType": "Observation",
        "meta": {"profile": [PROFILE]},
        "identifier": [{"system": "https://glucoapp.example/readings", "value": f"{moment:%Y%m%dT%H%M%S}"}],
        "status": "final",
        "category": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}
        ],
        "code": {"coding": [{"system": "http://loinc.org", "code": "99504-3"}]},
        "subject": {"reference": patient},
        "effectiveDateTime": moment.isoformat(),
        "valueQuantity": {
            "value": glucose_at(moment),
            "unit": "mg/dL",
            "system": "http://unitsofmeasure.org",
            "code": "mg/dL",
        },
        "device": {"reference": device},
    }


def _moments(start: datetime) -> Iterator[datetime]:
    return (start + n * STEP for n in range(READINGS_A_DAY))
