"""The filter that a search becomes, bounded by an index as closely as can be.

Knows: what the records searched hold that other filters find. Must not know: who asks, in which order things are wanted.
"""

from gateway.access.access import Access, Record
from gateway.fhir.clause import Any as AnyOf
from gateway.fhir.clause import Clause, Test, parameters_of, parts_of
from gateway.fhir.registry import ResourceType
from gateway.store.filter import to_filter
from gateway.store.mongo import Document


def search_filter(access: Access, kind: ResourceType, clause: Clause) -> Document:
    """The filter of a search.

    Nearly all records hold only moments and days, which are found by where they begin. Where a record also holds longer
    periods, the filter is the exact one. (Looking for those few apart would look at as many, and tell by a second call that
    there are some, to whom they are hidden as well.)
    """
    records = _records_searched(access, clause)
    has_dates = any(p.type == "date" and p.name in parameters_of(clause) for p in kind.search.values())
    is_common = bool(records) and has_dates and not any(kind.name in record.wide for record in records)
    return to_filter(clause, common_spans=is_common)


def _records_searched(access: Access, clause: Clause) -> list[Record]:
    """The records of the one person in whose data the search stays; none where it does not, or they are not known."""
    patients: set[str] = set()
    for part in parts_of(clause):
        tests = part.of if isinstance(part, AnyOf) else (part,)
        named = {t.value for t in tests if isinstance(t, Test) and (t.parameter, t.op) == ("patient", "is")}
        if named and len(named) == len(tests):
            patients = patients & named or named
    known = all(patient in access.records and patients <= {*access.ids_of(patient)} for patient in patients)
    return [access.records[patient] for patient in patients] if known else []
