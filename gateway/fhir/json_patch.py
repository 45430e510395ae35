"""JSON Patch (https://www.rfc-editor.org/rfc/rfc6902) over JSON trees.

Knows: the six operations and JSON Pointer (RFC 6901). Must not know: resources; whether what comes out is one.
An expression of its problems names the operation and its member, counted in the patch: `$this[2].path`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.fhir.tree import Copier, read_tree
from gateway.problem import Problem

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_BAD_ESCAPE = re.compile(r"~(?![01])")
_DEEPEST = 64  # tokens of a pointer

Pointer = tuple[str, ...]


class Operation(NamedTuple):
    """One operation; `source` is the `from` of copy and move."""

    op: str
    path: Pointer
    source: Pointer
    value: Any


class _Failure(Exception):
    """Why an operation cannot be done, and the member that says what."""

    def __init__(self, text: str, member: str = "path", code: str = "value", status: int = 422) -> None:
        super().__init__(text)
        self.text, self.member, self.code, self.status = text, member, code, status


def read_json_patch(body: bytes, most: int) -> list[Operation]:
    """The operations of a patch document. Raises Problem 400 where it is none, naming the operation."""
    document = read_tree(body)
    if not isinstance(document, list):
        raise Problem("structure", "a JSON Patch is a list of operations", "$this")
    if len(document) > most:
        raise Problem("too-costly", f"a patch has at most {most} operations here", "$this")
    operations = []
    for n, item in enumerate(document):
        try:
            operations.append(_read_operation(item))
        except _Failure as failure:
            raise Problem("structure", failure.text, f"$this[{n}]{failure.member}") from None
    return operations


def apply_json_patch(operations: list[Operation], tree: Any, copier: Copier) -> Any:
    """The tree with all operations done, one after the other; `tree` itself may be changed.

    Raises Problem naming the operation that cannot be done: 409 for a `test` that fails, 422 for any other.
    """
    for n, operation in enumerate(operations):
        try:
            tree = _OPERATIONS[operation.op](operation, tree, copier)
        except _Failure as failure:
            raise Problem(failure.code, failure.text, f"$this[{n}].{failure.member}", status=failure.status) from None
    return tree


def _read_operation(item: Any) -> Operation:
    if not isinstance(item, dict):
        raise _Failure("an operation is a JSON object", "")
    op = item.get("op")
    if not isinstance(op, str) or op not in _OPERATIONS:
        raise _Failure(f"an operation is one of {', '.join(_OPERATIONS)}", ".op")
    path = _read_pointer(item, "path")
    source = _read_pointer(item, "from") if op in ("copy", "move") else ()
    if op in ("add", "replace", "test") and "value" not in item:
        raise _Failure(f"the operation '{op}' needs a value", ".value")
    return Operation(op, path, source, item.get("value"))


def _read_pointer(item: Mapping[str, Any], member: str) -> Pointer:
    text = item.get(member)
    if not isinstance(text, str) or (text and not text.startswith("/")) or _BAD_ESCAPE.search(text):
        raise _Failure("a JSON Pointer is expected here", f".{member}")
    tokens = tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:])
    if len(tokens) > _DEEPEST:
        raise _Failure(f"a pointer has at most {_DEEPEST} steps here", f".{member}")
    return tokens


def _find(tree: Any, pointer: Pointer, member: str = "path") -> Any:
    """The value at a pointer."""
    for token in pointer:
        if isinstance(tree, dict) and token in tree:
            tree = tree[token]
        elif isinstance(tree, list):
            tree = tree[_position(token, len(tree) - 1, member)]
        else:
            raise _Failure("there is nothing at this place", member)
    return tree


def _position(token: str, last: int, member: str = "path") -> int:
    if not _INDEX.fullmatch(token) or int(token) > last:
        raise _Failure("the list has no such place", member)
    return int(token)


def _put(tree: Any, pointer: Pointer, value: Any) -> Any:
    """The tree with the value added at a pointer (RFC 6902 §4.1)."""
    if not pointer:
        return value
    parent, last = _find(tree, pointer[:-1]), pointer[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _position(last, len(parent)), value)
    else:
        raise _Failure("nothing can be added at this place")
    return tree


def _take(tree: Any, pointer: Pointer, member: str = "path") -> Any:
    """Remove and return the value at a pointer."""
    if not pointer:
        raise _Failure("the whole resource cannot be removed", member)
    parent, last = _find(tree, pointer[:-1], member), pointer[-1]
    if isinstance(parent, dict) and last in parent:
        return parent.pop(last)
    if isinstance(parent, list):
        return parent.pop(_position(last, len(parent) - 1, member))
    raise _Failure("there is nothing at this place", member)


def _add(operation: Operation, tree: Any, copier: Copier) -> Any:
    return _put(tree, operation.path, copier.copy(operation.value))


def _remove(operation: Operation, tree: Any, _: Copier) -> Any:
    _take(tree, operation.path)
    return tree


def _replace(operation: Operation, tree: Any, copier: Copier) -> Any:
    value = copier.copy(operation.value)
    if not operation.path:
        return value
    _find(tree, operation.path)
    parent, last = _find(tree, operation.path[:-1]), operation.path[-1]
    parent[int(last) if isinstance(parent, list) else last] = value
    return tree


def _move(operation: Operation, tree: Any, _: Copier) -> Any:
    source, path = operation.source, operation.path
    if path[: len(source)] == source and path != source:
        raise _Failure("nothing is moved into itself")
    if path == source:
        _find(tree, source, "from")
        return tree
    return _put(tree, path, _take(tree, source, "from"))


def _copy(operation: Operation, tree: Any, copier: Copier) -> Any:
    return _put(tree, operation.path, copier.copy(_find(tree, operation.source, "from")))


def _test(operation: Operation, tree: Any, _: Copier) -> Any:
    if not is_equal(_find(tree, operation.path), operation.value):
        raise _Failure("the test fails: the resource says something else", "value", "conflict", 409)
    return tree


def is_equal(one: Any, other: Any) -> bool:
    """Equality of JSON (RFC 6902 §4.6): true is not 1; numbers are compared by value."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


_OPERATIONS: Mapping[str, Callable[[Operation, Any, Copier], Any]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
