"""The invariants of FHIR R4 that both validators leave out, by the type that carries them.

Knows: rules of https://hl7.org/fhir/R4 that one resource can break on its own, as plain checks over typed values.
Must not know: profiles, other resources, stores.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from gateway.fhir.dates import read_span
from gateway.fhir.narrative import check_div
from gateway.fhir.values import UCUM

Check = Callable[[Any], str | None]


def _att_1(it: Any) -> str | None:
    missing = it.data is not None and it.contentType is None and it.contentType__ext is None
    return "att-1: an attachment with data says its contentType" if missing else None


def _has(it: Any, name: str) -> bool:
    """Whether a primitive element exists: by its value or by the extension that stands for it."""
    return getattr(it, name) is not None or getattr(it, f"{name}__ext") is not None


def _has_choice(it: Any) -> bool:
    """Whether `value[x]` exists, of whichever type."""
    return any(getattr(it, name) is not None for name in it.__struct_fields__ if name.startswith("value"))


def _cpt_2(it: Any) -> str | None:
    broken = _has(it, "value") and not _has(it, "system")
    return "cpt-2: a contact point with a value says its system" if broken else None


def _exp_1(it: Any) -> str | None:
    return None if _has(it, "expression") or _has(it, "reference") else "exp-1: an expression is given or referred to"


def _ext_1(it: Any) -> str | None:
    if _has_choice(it) == bool(it.extension):
        return "ext-1: an extension has either extensions or a value, not both and not neither"
    return None


def _lst_2(it: Any) -> str | None:
    broken = it.mode != "changes" and any(_has(entry, "deleted") for entry in it.entry or ())
    return "lst-2: an entry is deleted only in a list of mode changes" if broken else None


def _lst_1(it: Any) -> str | None:
    return "lst-1: an empty reason only where there is no entry" if it.emptyReason and it.entry else None


def _obs_3(it: Any) -> str | None:
    return None if it.low or it.high or it.text or it.text__ext else "obs-3: a range has a low, a high or a text"


def _obs_6(it: Any) -> str | None:
    if it.dataAbsentReason is not None and _has_choice(it):
        return "obs-6: dataAbsentReason only where there is no value"
    return None


def _obs_7(it: Any) -> str | None:
    if it.component and _has_choice(it):
        codes = _codes(it)
        if any(codes & _codes(part) for part in it.component):
            return "obs-7: a component with the code of the observation cannot stand beside its value"
    return None


def _codes(it: Any) -> set[tuple[str | None, str]]:
    return {(coding.system, coding.code) for coding in it.code.coding or () if coding.code is not None}


def _org_1(it: Any) -> str | None:
    return None if it.identifier or _has(it, "name") else "org-1: an organization has an identifier or a name"


def _org_2(it: Any) -> str | None:
    broken = any(address.use == "home" for address in it.address or ())
    return "org-2: an organization has no address of use home" if broken else None


def _org_3(it: Any) -> str | None:
    broken = any(telecom.use == "home" for telecom in it.telecom or ())
    return "org-3: an organization has no telecom of use home" if broken else None


def _pat_1(it: Any) -> str | None:
    has_detail = it.name or it.telecom or it.address or it.organization
    return None if has_detail else "pat-1: a contact has a name, a telecom, an address or an organization"


def _per_1(it: Any) -> str | None:
    if it.start and it.end and read_span(it.start).low >= read_span(it.end).high:
        return "per-1: a period starts before it ends"
    return None


def _ppc_1(it: Any) -> str | None:
    return None if it.policy or it.policyRule else "ppc-1: a consent names a policy or a policyRule"


def _qty_3(it: Any) -> str | None:
    if it.code is None or it.system is not None:
        return None
    return None if _has(it, "system") else "qty-3: a unit code says its system"


def _needs_ucum(rule: str) -> Check:
    """age-1, cnt-3, dis-1 and drt-1: a value has a code, and the system of a code is UCUM."""

    def check(it: Any) -> str | None:
        if _has(it, "value") and not _has(it, "code"):
            return f"{rule}: a value has the code of its unit"
        if it.system is not None and it.system != UCUM:
            return f"{rule}: the unit is of UCUM"
        if rule == "age-1" and it.value is not None and it.value.is_finite() and it.value <= 0:
            return f"{rule}: an age is positive"
        return None

    return check


def _rat_1(it: Any) -> str | None:
    if (it.numerator is None) != (it.denominator is None):
        return "rat-1: a ratio has both a numerator and a denominator"
    if it.numerator is None and not it.extension:
        return "rat-1: a ratio has a numerator and a denominator, or an extension"
    return None


def _rng_2(it: Any) -> str | None:
    low, high = it.low, it.high
    if low is None or high is None or low.value is None or high.value is None:
        return None
    if not (low.value.is_finite() and high.value.is_finite()):
        return None  # (no numbers: the codec will say so)
    broken = (low.system, low.code) == (high.system, high.code) and low.value > high.value
    return "rng-2: the low of a range is not above its high" if broken else None


# What may not stand alone in a repetition: tim-1, 2, 6, 7 and 8.
_TOGETHER = (
    ("tim-1", "duration", "durationUnit"),
    ("tim-2", "period", "periodUnit"),
    ("tim-6", "periodMax", "period"),
    ("tim-7", "durationMax", "duration"),
    ("tim-8", "countMax", "count"),
)
_MEALS = frozenset({"C", "CM", "CD", "CV"})


def _is_negative(value: Decimal | None) -> bool:
    return value is not None and value.is_finite() and value < 0


def _tim(it: Any) -> str | None:
    for rule, name, needed in _TOGETHER:
        if _has(it, name) and not _has(it, needed):
            return f"{rule}: {name} only together with {needed}"
    if _is_negative(it.duration):
        return "tim-4: a duration is not negative"
    if _is_negative(it.period):
        return "tim-5: a period is not negative"
    when = [code for code in it.when or () if code is not None]
    if _has(it, "offset") and (not when or _MEALS.intersection(when)):
        return "tim-9: an offset only together with when, and not at meals themselves"
    if it.timeOfDay and when:
        return "tim-10: timeOfDay or when, not both"
    return None


def _prr_1(it: Any) -> str | None:
    return "prr-1: orderDetail only where there is a code" if it.orderDetail and it.code is None else None


def _txt(it: Any) -> str | None:
    return None if it.div is None else check_div(it.div)


def _sev_1(it: Any) -> str | None:
    return "sev-1: an entity has a name or a query, not both" if it.name and it.query else None


INVARIANTS: Mapping[str, tuple[Check, ...]] = {
    "Age": (_qty_3, _needs_ucum("age-1")),
    "Attachment": (_att_1,),
    "AuditEventEntity": (_sev_1,),
    "Consent": (_ppc_1,),
    "ContactPoint": (_cpt_2,),
    "Count": (_qty_3, _needs_ucum("cnt-3")),
    "Distance": (_qty_3, _needs_ucum("dis-1")),
    "Duration": (_qty_3, _needs_ucum("drt-1")),
    "Expression": (_exp_1,),
    "Extension": (_ext_1,),
    "List": (_lst_1, _lst_2),
    "Narrative": (_txt,),
    "Observation": (_obs_6, _obs_7),
    "ObservationReferenceRange": (_obs_3,),
    "Organization": (_org_1, _org_2, _org_3),
    "PatientContact": (_pat_1,),
    "Period": (_per_1,),
    "Quantity": (_qty_3,),
    "Range": (_rng_2,),
    "Ratio": (_rat_1,),
    "ServiceRequest": (_prr_1,),
    "TimingRepeat": (_tim,),
}
