"""FHIRPath Patch (https://hl7.org/fhir/R4/fhirpatch.html) over JSON trees.

Knows: how a Parameters resource says operations, and the five of them. Must not know: whether what comes out is valid.
A primitive and its twin (`_name`) are one element and go together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.fhir.patch_path import PatchPathError, Spot, Step, elements_named, find_spots, parse_patch_path
from gateway.fhir.types import Element, Types
from gateway.problem import Problem

_PARTS: Mapping[str, tuple[str, ...]] = {  # what each operation has beside type and path
    "add": ("name", "value"),
    "insert": ("index", "value"),
    "delete": (),
    "replace": ("value",),
    "move": ("source", "destination"),
}
_KINDS: Mapping[str, str] = {
    "type": "valueCode",
    "path": "valueString",
    "name": "valueString",
    "index": "valueInteger",
    "source": "valueInteger",
    "destination": "valueInteger",
}

Pair = tuple[Any, Any]  # a value and its twin


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, and the expression by which its problems name it. `parts`: their positions, for that."""

    type: str
    steps: tuple[Step, ...]
    expression: str
    arguments: Mapping[str, Any]
    positions: Mapping[str, int] = field(default_factory=dict)

    def refuse(self, text: str, part: str = "path") -> Problem:
        """The problem of one of its parts."""
        return Problem("value", text, f"{self.expression}.part[{self.positions[part]}]")


def read_fhirpath_patch(resource_type: str, parameters: Mapping[str, Any], most: int) -> list[Operation]:
    """The operations in the tree of a valid Parameters resource. Raises Problem 422 naming the parameter."""
    found = parameters.get("parameter", [])
    if len(found) > most:
        raise Problem("too-costly", f"a patch has at most {most} operations here", "Parameters.parameter")
    return [_read_operation(resource_type, item, f"Parameters.parameter[{n}]") for n, item in enumerate(found)]


def apply_fhirpath_patch(types: Types, operations: list[Operation], resource: dict[str, Any]) -> dict[str, Any]:
    """The tree with all operations done, in place. Raises Problem 422 naming the parameter of one that cannot be done."""
    for operation in operations:
        try:
            _OPERATIONS[operation.type](types, operation, resource)
        except PatchPathError as error:
            raise operation.refuse(str(error)) from None
    return resource


def _read_operation(resource_type: str, item: Mapping[str, Any], expression: str) -> Operation:
    if item.get("name") != "operation":
        raise Problem("value", "a FHIRPath Patch has parameters named 'operation' alone", f"{expression}.name")
    arguments: dict[str, Any] = {}
    positions: dict[str, int] = {}
    for n, part in enumerate(item.get("part", ())):
        name, where = part.get("name"), f"{expression}.part[{n}]"
        if name in positions or (name != "value" and name not in _KINDS):
            raise Problem("value", "there is no such part of an operation, or it stands twice", where)
        if name != "value" and _KINDS[name] not in part:
            raise Problem("value", f"this part is given as {_KINDS[name]}", where)
        positions[name] = n
        arguments[name] = part if name == "value" else part[_KINDS[name]]
    for name in ("type", "path"):
        if name not in arguments:
            raise Problem("required", f"an operation has a part '{name}'", f"{expression}.part")
    kind = arguments["type"]
    if kind not in _PARTS:
        text = f"an operation is one of {', '.join(_PARTS)}"
        raise Problem("value", text, f"{expression}.part[{positions['type']}]")
    for name in _PARTS[kind]:
        if name not in arguments:
            raise Problem("required", f"the operation '{kind}' has a part '{name}'", f"{expression}.part")
    try:
        steps = parse_patch_path(resource_type, arguments["path"])
    except PatchPathError as error:
        raise Problem("value", str(error), f"{expression}.part[{positions['path']}]") from None
    return Operation(kind, steps, expression, arguments, positions)


def _one(types: Types, operation: Operation, resource: dict[str, Any], steps: tuple[Step, ...]) -> Spot:
    spots = find_spots(types, resource, steps)
    if len(spots) != 1:
        raise operation.refuse("there is nothing at this path" if not spots else "the path names several elements")
    return spots[0]


def _add(types: Types, operation: Operation, resource: dict[str, Any]) -> None:
    spot = _one(types, operation, resource, operation.steps)
    holder, name = spot.value, operation.arguments["name"]
    if not isinstance(holder, dict):
        raise operation.refuse("nothing can be added to a primitive")
    kind = str(holder.get("resourceType") or spot.type)
    _append(types, operation, holder, elements_named(types, kind, name), operation.arguments["value"])


def _append(types: Types, operation: Operation, holder: dict[str, Any], named: list[Element], part: Mapping[str, Any]) -> None:
    """Add the value of a part to an object, as a new item or as the one value of an element that is not there yet."""
    element, pair = _typed(types, operation, named, part)
    if element.many:
        _write(holder, element.name, [*_read(holder, element.name), pair])
        return
    if any(f"{mark}{e.name}" in holder for e in named for mark in ("", "_")):
        raise operation.refuse("the element is there already, and is no list", "value")
    _set(holder, element.name, pair)


def _insert(types: Types, operation: Operation, resource: dict[str, Any]) -> None:
    holder, element = _list_at(types, operation, resource)
    pairs, index = _read(holder, element.name), operation.arguments["index"]
    if not 0 <= index <= len(pairs):
        raise operation.refuse("the list has no such place", "index")
    _, pair = _typed(types, operation, [element], operation.arguments["value"])
    pairs.insert(index, pair)
    _write(holder, element.name, pairs)


def _delete(types: Types, operation: Operation, resource: dict[str, Any]) -> None:
    if not operation.steps:
        raise operation.refuse("a patch does not delete the resource")
    spots = find_spots(types, resource, operation.steps)
    if len(spots) > 1:
        raise operation.refuse("the path names several elements")
    for spot in spots:
        _drop(spot)


def _drop(spot: Spot) -> None:
    if spot.index is None:
        _set(spot.holder, spot.key, (None, None))
        return
    pairs = _read(spot.holder, spot.key)
    del pairs[spot.index]
    _write(spot.holder, spot.key, pairs)


def _replace(types: Types, operation: Operation, resource: dict[str, Any]) -> None:
    if not operation.steps:
        raise operation.refuse("a patch does not replace the whole resource")
    spot = _one(types, operation, resource, operation.steps)
    owner = next((e for e in _siblings(types, operation, resource) if e.name == spot.key), None)
    if owner is None:
        raise operation.refuse("there is nothing at this path")
    named = [e for e in _siblings(types, operation, resource) if (e.choice or e.name) == (owner.choice or owner.name)]
    element, pair = _typed(types, operation, named, operation.arguments["value"])
    if spot.index is None:
        _set(spot.holder, spot.key, (None, None))
        _set(spot.holder, element.name, pair)
    else:
        pairs = _read(spot.holder, spot.key)
        pairs[spot.index] = pair
        _write(spot.holder, spot.key, pairs)


def _siblings(types: Types, operation: Operation, resource: dict[str, Any]) -> list[Element]:
    """The elements that the last named step of the path can mean."""
    last = max(n for n, (kind, _) in enumerate(operation.steps) if kind in ("name", "extension"))
    parents = find_spots(types, resource, operation.steps[:last])
    kind, argument = operation.steps[last]
    name = argument if kind == "name" else "extension"
    return [e for parent in parents[:1] for e in elements_named(types, _type_of(parent), name)]


def _type_of(spot: Spot) -> str:
    value = spot.value
    return str(value.get("resourceType") or spot.type) if isinstance(value, dict) else spot.type


def _move(types: Types, operation: Operation, resource: dict[str, Any]) -> None:
    holder, element = _list_at(types, operation, resource)
    pairs = _read(holder, element.name)
    for name in ("source", "destination"):
        if not 0 <= operation.arguments[name] < len(pairs):
            raise operation.refuse("the list has no such place", name)
    pairs.insert(operation.arguments["destination"], pairs.pop(operation.arguments["source"]))
    _write(holder, element.name, pairs)


def _list_at(types: Types, operation: Operation, resource: dict[str, Any]) -> tuple[dict[str, Any], Element]:
    """The object that holds the list which the path names, and the list's element."""
    if not operation.steps or operation.steps[-1][0] != "name":
        raise operation.refuse("the path of a list is expected here")
    parent = _one(types, operation, resource, operation.steps[:-1])
    (element, *_) = elements_named(types, _type_of(parent), operation.steps[-1][1])
    if not element.many or not isinstance(parent.value, dict):
        raise operation.refuse("the path of a list is expected here")
    return parent.value, element


def _typed(types: Types, operation: Operation, named: list[Element], part: Mapping[str, Any]) -> tuple[Element, Pair]:
    """Which of these elements the value of a part is for, and the value with its twin."""
    key = next((name.lstrip("_") for name in part if name.lstrip("_").startswith("value")), None)
    if key is None and not named[0].choice:
        return named[0], (_build(types, operation, named[0].type, part.get("part", ())), None)
    suffix = (key or "").removeprefix("value")
    element = next((e for e in named if not e.choice or e.name == f"{e.choice}{suffix}"), None)
    if element is None or key is None:
        raise operation.refuse("the element takes no value of this type", "value")
    value, twin = part.get(key), part.get(f"_{key}")
    if (twin is not None or not isinstance(value, dict)) != element.is_primitive:
        raise operation.refuse("the element takes no value of this type", "value")
    return element, (value, twin)


def _build(types: Types, operation: Operation, type_name: str, parts: Any) -> dict[str, Any]:
    """An element without a name of its own for its type, given part by part."""
    built: dict[str, Any] = {}
    for part in parts:
        _append(types, operation, built, elements_named(types, type_name, part["name"]), part)
    if not built:
        raise operation.refuse("the value is missing", "value")
    return built


def _read(holder: Mapping[str, Any], name: str) -> list[Pair]:
    values, twins = holder.get(name) or [], holder.get(f"_{name}") or []
    length = max(len(values), len(twins))
    filled = ([*part, *[None] * (length - len(part))] for part in (values, twins))
    return list(zip(*filled, strict=True))


def _write(holder: dict[str, Any], name: str, pairs: list[Pair]) -> None:
    for key, items in ((name, [value for value, _ in pairs]), (f"_{name}", [twin for _, twin in pairs])):
        if any(item is not None for item in items):
            holder[key] = items
        else:
            holder.pop(key, None)


def _set(holder: dict[str, Any], name: str, pair: Pair) -> None:
    for key, item in ((name, pair[0]), (f"_{name}", pair[1])):
        if item is None:
            holder.pop(key, None)
        else:
            holder[key] = item


_OPERATIONS: Mapping[str, Callable[[Types, Operation, dict[str, Any]], None]] = {
    "add": _add,
    "insert": _insert,
    "delete": _delete,
    "replace": _replace,
    "move": _move,
}
