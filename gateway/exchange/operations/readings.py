"""Which observations are single readings of a sensor, and what one says.

Knows: LOINC 99504-3 and 105272-9 (HL7 CGM 1.0.0); that in France the first is also a mean over days, which an extension tells
and which is none of them; which of two for one instant counts. Must not know: HTTP, MongoDB, the mathematics.
"""

from typing import cast

import msgspec

from gateway.fhir.dates import read_span
from gateway.fhir.plausible import DOUBTFUL, FLAGS
from gateway.fhir.values import UCUM
from gateway.glucose.bands import Unit

DAYS = "https://interop.esante.gouv.fr/ig/fhir/mesures/StructureDefinition/mesures-number-of-days"
CODES = ("http://loinc.org|99504-3", "http://loinc.org|105272-9")
UNITS: tuple[Unit, ...] = ("mg/dL", "mmol/L")
_NO_READINGS = ("entered-in-error", "cancelled")
_SETTLED = ("final", "amended", "corrected")
_TO_THE_HOUR = len("2026-11-25T08")


class _Quantity(msgspec.Struct):
    value: msgspec.Raw = msgspec.Raw()
    system: str | None = None
    code: str | None = None


class _Extension(msgspec.Struct):
    url: str


class _Tag(msgspec.Struct):
    system: str | None = None
    code: str | None = None


class _Meta(msgspec.Struct):
    lastUpdated: str  # noqa: N815
    tag: list[_Tag] = []


class _Reference(msgspec.Struct):
    reference: str | None = None


class Reading(msgspec.Struct):
    """An Observation, as far as it tells of a reading."""

    id: str
    status: str
    meta: _Meta
    effectiveDateTime: str | None = None  # noqa: N815
    issued: str | None = None
    valueQuantity: _Quantity | None = None  # noqa: N815
    device: _Reference | None = None
    extension: list[_Extension] = []

    @property
    def is_reading(self) -> bool:
        """Whether it has a value in a unit that is known here, an instant, and is no mistake and no mean over days."""
        quantity, moment = self.valueQuantity, self.effectiveDateTime
        if quantity is None or not bytes(quantity.value) or quantity.system != UCUM or quantity.code not in UNITS:
            return False
        is_dated = moment is not None and len(moment) >= _TO_THE_HOUR
        return is_dated and self.status not in _NO_READINGS and not any(one.url == DAYS for one in self.extension)

    @property
    def text(self) -> str:
        """The value of a reading, with the digits that were sent."""
        return bytes(self.valueQuantity.value).decode() if self.valueQuantity is not None else ""

    @property
    def unit(self) -> Unit:
        """The unit of a reading."""
        return cast(Unit, self.valueQuantity.code if self.valueQuantity else None)

    @property
    def is_doubtful(self) -> bool:
        """Whether it hardly can be."""
        return any(tag.system == FLAGS and tag.code == DOUBTFUL for tag in self.meta.tag)

    @property
    def rank(self) -> tuple[bool, bool, bool, float, str]:
        """Of two for one instant the lower one counts: one that can be before a doubtful one, what is settled before what is
        not, what names its device before what does not, and then what was said last: by `issued`, or else when its version
        came. So a correction counts, whoever sent it. (Of what was said at one moment the id decides, always in the same way.)
        """
        is_nameless = self.device is None or self.device.reference is None
        said = read_span(self.issued or self.meta.lastUpdated).low.timestamp()
        return self.is_doubtful, self.status not in _SETTLED, is_nameless, -said, self.id


decode = msgspec.json.Decoder(Reading).decode
