"""JSON Patch does what RFC 6902 says, keeps every digit, and names the operation that cannot be done."""

import json
from decimal import Decimal
from typing import Any

import pytest

from gateway.fhir.json_patch import apply_json_patch, read_json_patch
from gateway.fhir.tree import Copier, prune, read_tree, write_tree
from gateway.problem import Problem

pytestmark = pytest.mark.requirement("CORE-07")


def patched(document: str, *operations: Any, most: int = 1_000) -> str:
    tree = apply_json_patch(read_json_patch(json.dumps(operations).encode(), 10), read_tree(document.encode()), Copier(most))
    return write_tree(tree).decode()


def op(name: str, path: str, value: Any = ..., source: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"op": name, "path": path}
    return found | ({} if value is ... else {"value": value}) | ({} if source is None else {"from": source})


DONE = [
    # https://www.rfc-editor.org/rfc/rfc6902#appendix-A, by its numbers
    ("A.1", '{"foo":"bar"}', [op("add", "/baz", "qux")], '{"foo":"bar","baz":"qux"}'),
    ("A.2", '{"foo":["bar","baz"]}', [op("add", "/foo/1", "qux")], '{"foo":["bar","qux","baz"]}'),
    ("A.3", '{"baz":"qux","foo":"bar"}', [op("remove", "/baz")], '{"foo":"bar"}'),
    ("A.4", '{"foo":["bar","qux","baz"]}', [op("remove", "/foo/1")], '{"foo":["bar","baz"]}'),
    ("A.5", '{"baz":"qux","foo":"bar"}', [op("replace", "/baz", "boo")], '{"baz":"boo","foo":"bar"}'),
    ("A.6", '{"foo":{"waldo":"x"},"qux":{}}', [op("move", "/qux/t", source="/foo/waldo")], '{"foo":{},"qux":{"t":"x"}}'),
    ("A.7", '{"foo":["a","b","cows","eat"]}', [op("move", "/foo/3", source="/foo/1")], '{"foo":["a","cows","eat","b"]}'),
    ("A.8", '{"baz":"qux","foo":["a",2]}', [op("test", "/baz", "qux"), op("test", "/foo/1", 2)], '{"baz":"qux","foo":["a",2]}'),
    ("A.10", '{"foo":"bar"}', [op("add", "/child", {"grandchild": {}})], '{"foo":"bar","child":{"grandchild":{}}}'),
    ("A.11", '{"foo":"bar"}', [op("add", "/baz", "qux") | {"xyz": 123}], '{"foo":"bar","baz":"qux"}'),
    ("A.14", '{"/":9,"~1":10}', [op("test", "/~01", 10)], '{"/":9,"~1":10}'),
    ("A.16", '{"foo":["bar"]}', [op("add", "/foo/-", ["abc", "def"])], '{"foo":["bar",["abc","def"]]}'),
    ("copy", '{"a":{"b":1}}', [op("copy", "/c", source="/a"), op("replace", "/c/b", 2)], '{"a":{"b":1},"c":{"b":2}}'),
    ("whole", '{"a":1}', [op("replace", "", {"b": 2})], '{"b":2}'),
    ("itself", '{"a":1}', [op("move", "/a", source="/a")], '{"a":1}'),
    ("to the end", '{"a":[1,2]}', [op("add", "/a/2", 3)], '{"a":[1,2,3]}'),
    ("equal numbers", '{"a":1.0}', [op("test", "/a", 1)], '{"a":1.0}'),
]


@pytest.mark.parametrize(("before", "operations", "after"), [case[1:] for case in DONE], ids=[case[0] for case in DONE])
def test_what_each_operation_does(before: str, operations: list[Any], after: str) -> None:
    assert patched(before, *operations) == after


REFUSED = [
    ("A.9: a test that fails", [op("test", "/a", "bar")], 409, "conflict", "$this[0].value"),
    ("A.12: no such parent", [op("test", "/a", 1), op("add", "/b/c", 1)], 422, "value", "$this[1].path"),
    ("A.15: text is no number", [op("test", "/a", "1")], 409, "conflict", "$this[0].value"),
    ("true is not one", [op("test", "/a", True)], 409, "conflict", "$this[0].value"),
    ("nothing to remove", [op("remove", "/b")], 422, "value", "$this[0].path"),
    ("nothing to replace", [op("replace", "/b", 1)], 422, "value", "$this[0].path"),
    ("nothing to copy", [op("copy", "/b", source="/c")], 422, "value", "$this[0].from"),
    ("nothing to move", [op("move", "/b", source="/list/9")], 422, "value", "$this[0].from"),
    ("into itself", [op("move", "/o/x", source="/o")], 422, "value", "$this[0].path"),
    ("beyond the list", [op("add", "/list/3", 1)], 422, "value", "$this[0].path"),
    ("a leading zero", [op("remove", "/list/00")], 422, "value", "$this[0].path"),
    ("behind the end", [op("remove", "/list/-")], 422, "value", "$this[0].path"),
    ("below a number", [op("add", "/a/b", 1)], 422, "value", "$this[0].path"),
    ("the whole", [op("remove", "")], 422, "value", "$this[0].path"),
    ("no operation", [op("append", "/a", 1)], 400, "structure", "$this[0].op"),
    ("no object", ["x"], 400, "structure", "$this[0]"),
    ("no pointer", [op("remove", "a")], 400, "structure", "$this[0].path"),
    ("no escape", [op("remove", "/~2")], 400, "structure", "$this[0].path"),
    ("no value", [op("add", "/b")], 400, "structure", "$this[0].value"),
    ("no source", [op("move", "/b")], 400, "structure", "$this[0].from"),
    ("too deep", [op("add", "/a" * 65, 1)], 400, "structure", "$this[0].path"),
    ("too many", [op("test", "/a", 1)] * 11, 422, "too-costly", "$this"),
]


@pytest.mark.parametrize(("operations", "status", "code", "place"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED])
def test_what_cannot_be_done_is_named(operations: list[Any], status: int, code: str, place: str) -> None:
    with pytest.raises(Problem) as caught:
        patched('{"a":1,"list":[1,2],"o":{"x":1}}', *operations)
    assert (caught.value.status, caught.value.code, caught.value.issues[0].expression) == (status, code, place)


@pytest.mark.parametrize("body", [b'{"op":"test"}', b"[", b'[{"op":"add","op":"test"}]', b"\xff", b"[NaN]"])
def test_what_is_no_patch_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read_json_patch(body, 10)
    assert (caught.value.status, caught.value.code) == (400, "structure")


@pytest.mark.requirement("CORE-18")
@pytest.mark.parametrize("number", ["5.10", "0.00", "1234567890.123456789012345", "1E+2", "-7", "98765432109876543210"])
def test_no_digit_is_lost(number: str) -> None:
    tree = apply_json_patch(read_json_patch(b'[{"op":"add","path":"/b","value":%s}]' % number.encode(), 1), {}, Copier(99))
    assert write_tree(tree).decode() == f'{{"b":{number}}}'
    assert patched(f'{{"a":{number}}}', op("copy", "/c", source="/a")) == f'{{"a":{number},"c":{number}}}'
    assert read_tree(f"[{number}]".encode())[0] == Decimal(number)


def test_copies_of_copies_come_to_an_end() -> None:
    doubling = [op("copy", f"/a/{n}", source="") for n in "0123456789"]
    with pytest.raises(Problem, match="copies more") as caught:
        patched('{"a":{}}', *doubling, most=200)
    assert caught.value.status == 422


def test_lists_without_items_are_left_out() -> None:
    tree = read_tree(b'{"a":[],"b":{"c":[],"d":[{"e":[]},1]}}')
    prune(tree)
    assert write_tree(tree) == b'{"b":{"d":[{},1]}}'
