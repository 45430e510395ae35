"""What shapes the answer of a search or a read and selects nothing: how many, in which order, how much of each.

Knows: https://hl7.org/fhir/R4/search.html#return. Must not know: HTTP, MongoDB, who asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.exchange.gateway import Gateway
from gateway.exchange.parameters import PRESENTATION, Pairs, read_number
from gateway.fhir.registry import ResourceType
from gateway.fhir.search import clip
from gateway.fhir.subset import Subset
from gateway.problem import Problem
from gateway.store.order import Key, Order

CONTROLS = ("_count", "_cursor", "_elements", "_format", "_pretty", "_sort", "_summary", "_total")
_PARTS = ("true", "text", "data")


@dataclass(frozen=True, slots=True)
class Control:
    """How a search is answered. `only_total`: no resources are asked for, only how many match; `subset`: how much of each."""

    count: int
    order: Order
    accurate: bool
    only_total: bool
    subset: Subset | None


def read_control(gateway: Gateway, kind: ResourceType, pairs: Pairs) -> Control:
    """The controls among the parameters of a search. Raises Problem naming one that is wrong."""
    values = _single(pair for pair in pairs if pair[0] in CONTROLS)
    count = _read_count(values.get("_count"), gateway.limits.page_default, gateway.limits.page_most)
    total = _choice(values, "_total", ("none", "estimate", "accurate"), "none")
    order = _read_order(kind, values.get("_sort"))
    only_total = values.get("_summary") == "count" or count == 0
    subset = _read_subset(gateway, kind, values, ("count",))
    return Control(count, order, total != "none", only_total, subset)


def read_subset(gateway: Gateway, kind: ResourceType, pairs: Pairs) -> Subset | None:
    """How much of a resource a read asks for, None for all. Raises Problem where anything else is asked for."""
    if not pairs:
        return None
    for name, _ in pairs:
        if name not in PRESENTATION and name not in ("_summary", "_elements"):
            raise Problem("not-supported", f"there is no parameter '{clip(name)}' here", clip(name), status=400)
    return _read_subset(gateway, kind, _single(pairs), ())


def _single(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise Problem("invalid", f"'{name}' stands twice", name)
        values[name] = value
    return values


def _read_subset(gateway: Gateway, kind: ResourceType, values: dict[str, str], more: tuple[str, ...]) -> Subset | None:
    summary = _choice(values, "_summary", ("false", *_PARTS, *more), "false")
    elements = values.get("_elements")
    if elements is not None and summary != "false":
        raise Problem("invalid", "'_elements' and '_summary' are not asked for together", "_elements")
    if elements is not None:
        return gateway.subsets.elements(kind.name, elements.split(","))
    return gateway.subsets.summary(kind.name, summary) if summary in _PARTS else None


def _read_count(value: str | None, default: int, most: int) -> int:
    if value is None:
        return default
    count = read_number(value, 9)
    if count is None:
        raise Problem("invalid", "the value of '_count' is not a number", "_count")
    return min(count, most)


def _choice(values: dict[str, str], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = values.get(name, default)
    if value not in allowed:
        raise Problem("not-supported", f"'{name}' takes {', '.join(allowed)} here", name, status=400)
    return value


def _read_order(kind: ResourceType, value: str | None) -> Order:
    """`_sort`; without it, what is newest by the type's first sort parameter comes first."""
    if value is None:
        return Order((Key(kind.sort[0], descending=True),))
    keys = tuple(Key(part.removeprefix("-"), descending=part.startswith("-")) for part in value.split(","))
    names = [key.parameter for key in keys]
    if any(name not in kind.sort and name != "_id" for name in names):
        allowed = ", ".join((*kind.sort, "_id"))
        raise Problem("not-supported", f"{kind.name} is sorted by {allowed}", "_sort", status=400)
    if len(names) > len(set(names)):
        raise Problem("invalid", "'_sort' names a parameter twice", "_sort")
    # An id is nobody else's: what stands behind it sorts nothing.
    return Order(keys[: names.index("_id") + 1] if "_id" in names else keys)
