"""What an app on a phone does with readings: it sends them by the hour, late when it was offline, again when it is unsure, with
another value when it has calibrated anew, and from two phones at once.

Knows: the order of uploads, the same for the same seed; how a reading is written as an Observation. Must not know: HTTP.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gateway.sandbox.glucose import Sensor

SYSTEM = "urn:fhir-document-gateway:simulated"
_LONGEST = 1_000  # entries of a Bundle

Reading = tuple[datetime, int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Readings that are sent in one Bundle."""

    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Wearer:
    """A patient of the gateway who wears a virtual sensor. `sensor_id`: of the Device there, once it is known."""

    patient: str
    sensor: Sensor

    @property
    def serial(self) -> str:
        """What the sensor is called."""
        return f"{self.sensor.person.seed}-{self.sensor.person.number}-{self.sensor.minutes}min"

    def device(self) -> dict[str, Any]:
        """The sensor as a Device."""
        return {
            "resourceType": "Device",
            "identifier": [{"system": SYSTEM, "value": self.serial}],
            "status": "active",
            "deviceName": [{"name": f"Simulated sensor, {self.sensor.minutes} min", "type": "user-friendly-name"}],
            "patient": {"reference": f"Patient/{self.patient}"},
        }

    def observation(self, reading: Reading, device: str) -> dict[str, Any]:
        """A reading. `device`: a reference."""
        moment, value = reading
        return {
            "resourceType": "Observation",
            "meta": {"profile": ["http://hl7.org/fhir/uv/cgm/StructureDefinition/cgm-sensor-reading-mass-per-volume"]},
            "identifier": [{"system": SYSTEM, "value": f"{self.serial}-{moment:%Y%m%dT%H%M}"}],
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "99504-3"}]},
            "subject": {"reference": f"Patient/{self.patient}"},
            "effectiveDateTime": moment.isoformat(),
            "valueQuantity": {"value": value, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
            "device": {"reference": device},
        }


def uploads(wearer: Wearer, start: datetime, end: datetime, phone: int) -> Iterator[Batch]:
    """What a phone sends of this time, in its order."""
    dice = wearer.sensor.person.dice("phone", phone)
    waiting: list[Reading] = []
    sent: list[Batch] = []
    hour = start
    while hour < end:
        behind = min(end, hour + timedelta(hours=1))
        waiting += wearer.sensor.readings(hour, behind)
        hour = behind
        if waiting and (dice.random() < 0.85 or hour >= end):  # or it is offline
            for batch in batches(waiting):
                sent.append(batch)
                yield batch
            waiting = []
            if dice.random() < 0.3:  # it heard no answer, or forgot that it did
                yield dice.choice(sent[-24:])


def corrections(wearer: Wearer, start: datetime, end: datetime) -> Iterator[Batch]:
    """What is said anew when all was sent: some hours were calibrated wrongly."""
    dice = wearer.sensor.person.dice("corrections")
    day = start
    while day < end:
        if dice.random() < 0.4:
            begun = day + timedelta(hours=dice.randint(0, 23))
            shift = dice.choice((-6, -4, 5, 8))
            readings = [(moment, value + shift) for moment, value in wearer.sensor.readings(begun, begun + timedelta(hours=1))]
            yield from batches([one for one in readings if one[0] < end])
        day += timedelta(days=1)


def batches(readings: Sequence[Reading]) -> Iterator[Batch]:
    """The readings in Bundles that are not too long."""
    for first in range(0, len(readings), _LONGEST):
        yield Batch(tuple(readings[first : first + _LONGEST]))
