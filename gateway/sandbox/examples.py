"""One resource of every type that can be written (`schemas/examples`), as it belongs to the village.

Knows: that `Type/example` in a file stands for the example of that type, and `Patient/example` for whose record it is.
Must not know: who brings them, the gateway.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.schemas import find_schemas

OWNER = "ela"  # of the village: whose record the examples are in
CONTENT = "Binary"  # is read through what attaches it: a document of hers does
_REFERENCE = re.compile(r'"([A-Z][A-Za-z]+)/example"')


def name_of(type_name: str) -> str:
    """The name in the village of the example of a type."""
    return {"Patient": OWNER, CONTENT: f"{OWNER}-letter-content"}.get(type_name, f"example-{type_name.lower()}")


def read_examples(folder: Path | None = None) -> dict[str, str]:
    """The examples by type, as they lie in their files; what is referred to first."""
    files = sorted((folder or find_schemas() / "examples").glob("*.json"))
    texts = {file.stem: file.read_text("utf-8") for file in files}
    found: dict[str, str] = {}
    while waiting := [name for name in texts if name not in found]:
        ready = [name for name in waiting if not {*_REFERENCE.findall(texts[name])} & {*waiting} - {"Patient", name}]
        found |= {name: texts[name] for name in ready or waiting}
    return found


def example(text: str, ids: Mapping[str, str]) -> dict[str, Any]:
    """The example in this text as a resource of the village. `ids`: those there are so far, by name."""
    filled = _REFERENCE.sub(lambda found: f'"{found[1]}/{ids[name_of(found[1])]}"', text)
    resource: dict[str, Any] = json.loads(filled)
    return resource


def renamed(resource: dict[str, Any], suffix: str) -> dict[str, Any]:
    """The resource with business identifiers of its own: each ends with the suffix."""
    copy: dict[str, Any] = json.loads(json.dumps(resource))
    for identifier in (*copy.get("identifier", ()), *filter(None, [copy.get("masterIdentifier")])):
        identifier["value"] += suffix
    return copy
