"""One realistic resource of every served type, and how to bring it into a running gateway with all it refers to.

In the files `Type/example` stands for the example of that type, and `Patient/example` for the patient whose record it is.
"""

import json
import re
from typing import Any

from gateway.fhir.registry import ResourceType
from gateway.schemas import find_schemas
from tests.world import Actor, World, unique

FOLDER = find_schemas() / "examples"
CONTENT = ("Binary",)  # is not searched, and read through what attaches it: `tests/documents` are its suites
TYPES = tuple(sorted(file.stem for file in FOLDER.glob("*.json") if file.stem not in CONTENT))

_REFERENCE = re.compile(r'"([A-Z][A-Za-z]+)/example"')


def read_example(type_name: str) -> dict[str, Any]:
    """The example as it lies in its file."""
    return dict(json.loads((FOLDER / f"{type_name}.json").read_text("utf-8")))


def writer_of(world: World, kind: ResourceType, owner: Actor) -> Actor:
    """Who may write this type: the patient, or the operator for identities and directories."""
    return world.operator if kind.group in ("identity", "directory") else owner


async def prepare(world: World, type_name: str, owner: Actor) -> dict[str, Any]:
    """The example as it can be sent for this patient: what it refers to is there, its business identifiers are its own."""
    text = (FOLDER / f"{type_name}.json").read_text("utf-8")
    for target in sorted(set(_REFERENCE.findall(text))):
        found = owner.patient if target == "Patient" else (await bring(world, target, owner))["id"]
        text = text.replace(f'"{target}/example"', f'"{target}/{found}"')
    resource = dict(json.loads(text))
    for identifier in (*resource.get("identifier", ()), *filter(None, [resource.get("masterIdentifier")])):
        identifier["value"] = unique(identifier["value"])
    return resource


def a_change(kind: ResourceType) -> dict[str, Any]:
    """An element that every writer may change in the example of this type."""
    return {"status": "superseded"} if kind.lifecycle is not None else {"language": "fr"}


async def bring(world: World, type_name: str, owner: Actor) -> dict[str, Any]:
    """The example stored for this patient, as the gateway answered it."""
    kind = world.gateway.registry[type_name]
    return await writer_of(world, kind, owner).create(await prepare(world, type_name, owner))
