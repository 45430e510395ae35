"""The measures that are sent to and read from the partner face, and what an Observation of each must say.

Knows: `schemas/mesures.toml`; the texts in which API Mesures 1.5.2 (§2.2.8) says what is wrong with an Observation.
Must not know: HTTP, who is calling, stores.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from gateway.fhir.values import has_system, token_values
from gateway.problem import Issue
from gateway.schemas import SchemaError, read_schema

Presence = Literal["required", "forbidden", "optional"]

_VITAL_SIGNS = "http://terminology.hl7.org/CodeSystem/observation-category|vital-signs"


class _Measure(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    codes: list[str]
    units: list[str]
    components: list[str] = []
    computed: bool = False
    moment: Presence = "optional"
    days: Presence = "optional"


class _Extension(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    legacy: list[str]
    codes: list[str]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    page_default: int
    page_most: int
    moment: _Extension
    days: _Extension
    measure: list[_Measure]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure. `code` (`system|code`): what it is searched by; `components`: the codes of the values that it has in place
    of one; `is_computed`: whether it is never sent.
    """

    name: str
    code: str
    units: frozenset[str]
    components: tuple[str, ...]
    is_computed: bool
    moment: Presence
    days: Presence


class Measures:
    """All measures. `page_default`, `page_most`: how many of one come together."""

    def __init__(self, file: _File) -> None:
        self.page_default, self.page_most = file.page_default, file.page_most
        self._extensions: Mapping[str, _Extension] = {"moment": file.moment, "numberOfDays": file.days}
        self._current = {old: one.url for one in self._extensions.values() for old in one.legacy}
        self._by_token: dict[str, Measure] = {}
        for raw in file.measure:
            units, components = frozenset(raw.units), tuple(raw.components)
            measure = Measure(raw.name, raw.codes[0], units, components, raw.computed, raw.moment, raw.days)
            for code in raw.codes:
                self._by_token[code] = self._by_token[code.partition("|")[2]] = measure

    def find(self, token: str) -> Measure | None:
        """The measure of a code, with its system (`system|code`) or without."""
        return self._by_token.get(token)

    def modernize(self, observation: Any) -> None:
        """Write the extensions under the addresses that they have now; what they say stays as it was sent."""
        for extension in observation.extension or ():
            extension.url = self._current.get(extension.url, extension.url)

    def issues(self, observation: Any) -> Iterator[Issue]:
        """What is wrong with what an Observation says of its measure."""
        if not (observation.meta and observation.meta.profile):
            yield Issue("invalid", "Observation must provide meta.profile value.", "Observation.meta.profile")
        tokens = [token for one in observation.code.coding or () for token in token_values(one.system, one.code)[:1]]
        measure = next((self._by_token[token] for token in tokens if token in self._by_token), None)
        if measure is None:
            yield Issue("value", "Observation.code is not one of the measures.", "Observation.code")
            return
        if measure.is_computed:
            yield Issue("not-supported", "Bmi observation cannot be created.", "Observation.code")
            return
        categories = [c for one in observation.category or () for c in one.coding or ()]
        if _VITAL_SIGNS not in (token for c in categories for token in token_values(c.system, c.code)):
            yield Issue("invalid", "Observation.category must be vital-signs.", "Observation.category")
        if observation.effectiveDateTime is None:
            yield Issue("invalid", "Observation.effectiveDateTime is mandatory.", "Observation.effective")
        yield from _value_issues(measure, observation)
        for name, presence in (("moment", measure.moment), ("numberOfDays", measure.days)):
            yield from self._extension_issues(name, presence, observation)

    def _extension_issues(self, name: str, presence: Presence, observation: Any) -> Iterator[Issue]:
        spec, place = self._extensions[name], "Observation.extension"
        found = [one for one in observation.extension or () if self._current.get(one.url, one.url) == spec.url]
        if found and presence == "forbidden":
            yield Issue("invalid", f"Observation.extension.{name} cannot be added.", place)
        elif not found and presence == "required":
            yield Issue("incomplete", f"Observation.extension.{name} is mandatory.", place)
        elif found and presence == "required":
            codings = [c for one in found if one.valueCodeableConcept for c in one.valueCodeableConcept.coding or ()]
            if len(found) > 1 or not any(coding.code in spec.codes for coding in codings):
                yield Issue("value", f"Observation.extension.{name} is not one of its value set.", place)


def _value_issues(measure: Measure, observation: Any) -> Iterator[Issue]:
    missing = "Observation value quantity not provided."
    if not measure.components:
        yield from _quantity_issues(measure, observation.valueQuantity, "Observation.value", missing)
        return
    if observation.valueQuantity is not None:
        yield Issue("invalid", "Observation.value cannot be added: this measure has components.", "Observation.value")
    found: dict[str, Any] = {}
    for component in observation.component or ():
        codings = component.code.coding or ()
        found |= {token: component for c in codings for token in token_values(c.system, c.code)[:1]}
    for code in measure.components:
        quantity = found[code].valueQuantity if code in found else None
        yield from _quantity_issues(measure, quantity, "Observation.component", missing)


def _quantity_issues(measure: Measure, quantity: Any, place: str, missing: str) -> Iterator[Issue]:
    if quantity is None or quantity.value is None:
        yield Issue("value", missing, place)
    elif measure.units.isdisjoint(token_values(quantity.system, quantity.code)[:1]):
        yield Issue("value", f"the unit of this measure is {' or '.join(sorted(measure.units))}", place)


def read_measures(schemas: Path) -> Measures:
    """What `mesures.toml` says. Raises SchemaError naming the key."""
    file = schemas / "mesures.toml"
    raw = read_schema(file, _File)
    seen: set[str] = set()
    for n, measure in enumerate(raw.measure):
        if not measure.codes or not all(map(has_system, measure.codes)) or not measure.units:
            raise SchemaError(file, f"measure[{n}]", "has no codes as system|code, or no units")
        if not seen.isdisjoint(measure.codes):
            raise SchemaError(file, f"measure[{n}].codes", "are those of another measure")
        seen.update(measure.codes)
    if not 0 < raw.page_default <= raw.page_most:
        raise SchemaError(file, "page_default", "is not between 1 and page_most")
    return Measures(raw)
