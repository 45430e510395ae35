"""A rule of a specification, and the mark that ties a check to it.

Knows: what is said of a rule. Must not know: how it is checked.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import pytest

from gateway.conformance.verdicts import Strength

C = TypeVar("C", bound=Callable[..., Any])

R4 = "https://hl7.org/fhir/R4/"
LINKS = {
    "FHIR R4 http": R4 + "http.html",
    "FHIR R4 search": R4 + "search.html",
    "FHIR R4 bundle": R4 + "bundle.html",
    "FHIR R4 datatypes": R4 + "datatypes.html",
    "FHIR R4 json": R4 + "json.html",
    "IHE MHD": "https://profiles.ihe.net/ITI/MHD/",
    "IHE BALP": "https://profiles.ihe.net/ITI/BALP/",
    "HL7 CGM": "https://hl7.org/fhir/uv/cgm/",
    "HL7 SMART": "https://hl7.org/fhir/smart-app-launch/",
    "API Mesures 1.5.2": "https://github.com/nriss/interop-ig-fhir-mon-espace-sante",
    "ANS Mesures": "https://interop.esante.gouv.fr/ig/fhir/mesures/",
    "RFC 6749": "https://www.rfc-editor.org/rfc/rfc6749",
    "RFC 7662": "https://www.rfc-editor.org/rfc/rfc7662",
    "RFC 6750": "https://www.rfc-editor.org/rfc/rfc6750",
    "RFC 9110": "https://www.rfc-editor.org/rfc/rfc9110",
    "house": "",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a specification asks for. `id`: its number in the list; `source`: a key of LINKS; `where`: an anchor or page."""

    id: str
    strength: Strength
    text: str
    source: str
    where: str = ""

    @property
    def link(self) -> str:
        """The address of the paragraph."""
        return LINKS[self.source] + self.where


def rule(number: str, strength: Strength, text: str, source: str, where: str = "") -> Callable[[C], C]:
    """Mark a check as that of a rule. `text`: the rule in plain words, as the report shows it."""
    told = Rule(number, strength, text, source, where)

    def mark(check: C) -> C:
        marked: C = pytest.mark.rule(**asdict(told), link=told.link)(check)
        return marked

    return mark
