"""Patching: the new version of a resource, made from the old one.

Knows: both languages of https://hl7.org/fhir/R4/http.html#patch, and what no patch may touch. What comes out is then checked
like the body of an update. Must not know: HTTP, MongoDB.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.exchange.call import Call
from gateway.exchange.gateway import Gateway
from gateway.fhir.fhirpath_patch import apply_fhirpath_patch, read_fhirpath_patch
from gateway.fhir.json_patch import apply_json_patch, read_json_patch
from gateway.fhir.registry import ResourceType
from gateway.fhir.tree import Copier, prune, read_tree, write_tree
from gateway.problem import Issue, Problem

Patch = Callable[[Any], Any]  # from the tree of the old version to that of the new one

# What the service says of a resource, by the way to it.
_OURS = (
    ("resourceType",),
    ("id",),
    ("_id",),
    *(("meta", name) for name in ("versionId", "_versionId", "lastUpdated", "_lastUpdated")),
)


def read_patch(gateway: Gateway, kind: ResourceType, call: Call) -> Patch:
    """The patch that a call brings. Raises Problem where it is none; its expressions begin at the patch itself."""
    body, most = call.body or b"", gateway.limits.patch_operations
    if call.patch == "json":
        gateway.codec.check_body(body)
        operations = read_json_patch(body, most)
        return lambda tree: apply_json_patch(operations, tree, Copier(gateway.limits.body_bytes))
    if gateway.codec.peek_type(body) != "Parameters":
        raise Problem("invalid", "a FHIRPath Patch is a Parameters resource", "Parameters")
    gateway.codec.decode("Parameters", body, calm=call.calm)
    named = read_fhirpath_patch(kind.name, read_tree(body), most)
    return lambda tree: apply_fhirpath_patch(gateway.registry.types, named, tree)


def apply_patch(patch: Patch, former: bytes) -> Any:
    """The tree of the new version. Raises Problem where an operation cannot be done; its expression begins at the patch."""
    tree = patch(read_tree(former))
    prune(tree)
    return tree


def make_version(gateway: Gateway, kind: ResourceType, former: bytes, tree: Any) -> tuple[bytes, Any]:
    """The patched resource, as bytes and decoded.

    Raises Problem where it is none of this type, or says what is not the client's to say; its expressions begin at the
    resource.
    """
    before = read_tree(former)
    for way in _OURS:
        if not isinstance(tree, dict) or _at(tree, way) != _at(before, way):
            expression = ".".join((kind.name, *(name.lstrip("_") for name in way)))
            raise _unsound([Issue("business-rule", "this element is set by this service alone", expression)])
    body = write_tree(tree)
    if len(body) > gateway.limits.body_bytes:
        raise _unsound([Issue("too-long", f"a resource has at most {gateway.limits.body_bytes} bytes here", kind.name)])
    try:
        resource = gateway.codec.decode(kind.name, body, calm=gateway.codec.check_body(body))
    except Problem as problem:
        raise _unsound(problem.issues) from None
    return body, resource


def _at(tree: Any, way: tuple[str, ...]) -> Any:
    for name in way:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _unsound(issues: Iterable[Issue]) -> Problem:
    """What comes out of the patch cannot be stored: 422 whatever is wrong with it."""
    return Problem.of(issues, status=422)
