"""The links by which one Patient takes the place of another (https://hl7.org/fhir/R4/patient.html#links).

Knows: which links say that, and what a Patient that is replaced still says. Must not know: stores, who links.
"""

from collections.abc import Iterator
from typing import Any

from gateway.problem import Issue

MERGING = ("replaced-by", "replaces")
OPPOSITE = {"replaced-by": "replaces", "replaces": "replaced-by"}


def merging_links(patient: Any) -> list[tuple[str, str]]:
    """The links of a Patient that merge: type, and id of the other one."""
    found: list[tuple[str, str]] = []
    for link in patient.link or ():
        type_name, _, identifier = (link.other.reference or "").partition("/")
        if link.type in MERGING and type_name == "Patient":
            found.append((link.type, identifier))
    return found


def link_issues(patient: Any) -> Iterator[Issue]:
    """What is wrong with the links of a Patient as far as it says itself."""
    kinds = [link.type for link in patient.link or ()]
    for n, link in enumerate(patient.link or ()):
        place = f"Patient.link[{n}].other"
        target = link.other.reference or ""
        is_local = target.count("/") == 1 or target.startswith(("urn:", "http"))
        if link.type in MERGING and (not is_local or target.startswith("RelatedPerson/")):
            yield Issue("value", "one Patient takes the place of another by a literal reference to it", place)
        if target and patient.id is not None and target == f"Patient/{patient.id}":
            yield Issue("business-rule", "a Patient has no link to itself", place)
        if target and any(other.other.reference == target for other in (patient.link or ())[:n]):
            yield Issue("business-rule", "of two Patients one link says what they are to each other", place)
    if kinds.count("replaced-by") > 1:
        yield Issue("business-rule", "a Patient is replaced by one other", "Patient.link")
    if "replaced-by" in kinds and "replaces" in kinds:
        text = "a Patient that is replaced replaces none: the others are replaced by the same one, too"
        yield Issue("business-rule", text, "Patient.link")
    if "replaced-by" in kinds and patient.active is not False:
        yield Issue("business-rule", "a Patient that is replaced is not active", "Patient.active")


def is_replaced(patient: Any) -> bool:
    """Whether another Patient stands in place of this one."""
    return any(kind == "replaced-by" for kind, _ in merging_links(patient))
