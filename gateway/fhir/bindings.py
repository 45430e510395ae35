"""The required bindings of `gateway.toml`: whether each binds something.

Knows: which elements take a code. Must not know: what the codes mean, how they are held against a resource.
"""

from collections.abc import Mapping
from pathlib import Path as FilePath

from gateway.fhir.types import Types, type_and_element
from gateway.schemas import SchemaError


def check_bindings(schemas: FilePath, types: Types, bindings: Mapping[str, list[str]]) -> None:
    """Refuse a binding of `gateway.toml` that binds nothing, by its key."""
    for path in bindings:
        type_name, name = type_and_element(path)
        try:
            types.struct(path.partition(".")[0])  # its backbone elements are known by name from then on
            found = [element.type for element in types.elements(type_name) if element.name == name]
        except KeyError:
            found = []
        if found != ["code"] or ".." in path:
            raise SchemaError(schemas / "gateway.toml", f"bindings.{path}", "is no element that takes a code")
