"""The invariants of FHIR R4 that both validators leave out, by the type that carries them.

Knows: rules of https://hl7.org/fhir/R4 that one resource can break on its own, as plain checks over typed values.
Must not know: profiles, other resources, stores.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.fhir.dates import read_span

Check = Callable[[Any], str | None]


def _att_1(it: Any) -> str | None:
    missing = it.data is not None and it.contentType is None and it.contentType__ext is None
    return "att-1: an attachment with data says its contentType" if missing else None


def _cpt_2(it: Any) -> str | None:
    return "cpt-2: a contact point with a value says its system" if it.value and not it.system else None


def _ext_1(it: Any) -> str | None:
    has_value = any(getattr(it, name) is not None for name in it.__struct_fields__ if name.startswith("value"))
    if has_value == bool(it.extension):
        return "ext-1: an extension has either extensions or a value, not both and not neither"
    return None


def _lst_2(it: Any) -> str | None:
    broken = it.mode != "changes" and any(entry.deleted for entry in it.entry or ())
    return "lst-2: an entry is deleted only in a list of mode changes" if broken else None


def _lst_1(it: Any) -> str | None:
    return "lst-1: an empty reason only where there is no entry" if it.emptyReason and it.entry else None


def _obs_3(it: Any) -> str | None:
    return None if it.low or it.high or it.text or it.text__ext else "obs-3: a range has a low, a high or a text"


def _value_fields(it: Any) -> list[str]:
    return [n for n in it.__struct_fields__ if n.startswith("value") and getattr(it, n) is not None]


def _obs_6(it: Any) -> str | None:
    if it.dataAbsentReason is not None and _value_fields(it):
        return "obs-6: dataAbsentReason only where there is no value"
    return None


def _obs_7(it: Any) -> str | None:
    if it.component and _value_fields(it):
        codes = {(c.system, c.code) for c in it.code.coding or ()}
        if any(codes & {(c.system, c.code) for c in part.code.coding or ()} for part in it.component):
            return "obs-7: a component with the code of the observation cannot stand beside its value"
    return None


def _org_1(it: Any) -> str | None:
    return None if it.identifier or it.name else "org-1: an organization has an identifier or a name"


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
    return "qty-3: a unit code says its system" if it.code is not None and it.system is None else None


def _prr_1(it: Any) -> str | None:
    return "prr-1: orderDetail only where there is a code" if it.orderDetail and it.code is None else None


def _sev_1(it: Any) -> str | None:
    return "sev-1: an entity has a name or a query, not both" if it.name and it.query else None


INVARIANTS: Mapping[str, tuple[Check, ...]] = {
    "Age": (_qty_3,),
    "Attachment": (_att_1,),
    "AuditEventEntity": (_sev_1,),
    "Consent": (_ppc_1,),
    "ContactPoint": (_cpt_2,),
    "Count": (_qty_3,),
    "Distance": (_qty_3,),
    "Duration": (_qty_3,),
    "Extension": (_ext_1,),
    "List": (_lst_1, _lst_2),
    "Observation": (_obs_6, _obs_7),
    "ObservationReferenceRange": (_obs_3,),
    "Organization": (_org_1,),
    "PatientContact": (_pat_1,),
    "Period": (_per_1,),
    "Quantity": (_qty_3,),
    "ServiceRequest": (_prr_1,),
}
