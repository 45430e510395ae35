"""By which identifiers a resource of a type is known again.

Knows: `unique` of a type's file: token parameters, or paths of Identifiers. Must not know: stores, how a key is made of them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.fhir.path import Branch, PathError, compile_path
from gateway.fhir.type_file import TypeFile
from gateway.fhir.types import Types
from gateway.fhir.values import CONVERTERS, Convert
from gateway.schemas import SchemaError

Key = tuple[Branch, Convert]


def read_keys(
    types: Types, raw: TypeFile, search: Mapping[str, Any], refuse: Callable[[str, str], SchemaError]
) -> tuple[Key, ...]:
    """Where these identifiers stand, and how they are read. `search`: the parameters; raises what `refuse` makes."""
    return tuple(key for name in raw.unique for key in _read(types, raw.type, name, search, refuse))


def _read(
    types: Types, type_name: str, name: str, search: Mapping[str, Any], refuse: Callable[[str, str], SchemaError]
) -> Iterator[Key]:
    if name in search:
        if search[name].type != "token" or search[name].any_of:
            raise refuse("unique", f"'{name}' is not a token parameter of this type")
        yield from search[name].readers
        return
    try:
        branches = compile_path(types, type_name, name)
    except PathError:
        branches = ()
    if not branches or any(branch.type != "Identifier" for branch in branches):
        raise refuse("unique", f"'{name}' is not a token parameter of this type, nor an Identifier")
    for branch in branches:
        yield branch, CONVERTERS["token"]["Identifier"]
