"""What the pages say, in each language: `schemas/texts/*.toml`.

Knows: that every language says the same things, and which one a person reads. Must not know: where a text stands on a page.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.schemas import SchemaError, read_schema

Texts = Mapping[str, str]

_PLACE = re.compile(r"\{[a-z_]+\}")
_RANGE = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]+)?\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?))?\s*")


def read_texts(schemas: Path) -> Mapping[str, Texts]:
    """The texts by language, each by its dotted key. Raises SchemaError where one language lacks what another says."""
    files = sorted((schemas / "texts").glob("*.toml"))
    found = {file.stem: dict(_flat(file, "", read_schema(file, dict[str, Any]))) for file in files}
    if "en" not in found:
        raise SchemaError(schemas / "texts" / "en.toml", "", "is missing")
    for language, texts in found.items():
        for other in found.values():
            for key in other.keys() - texts.keys():
                raise SchemaError(schemas / "texts" / f"{language}.toml", key, "is missing")
        for key, text in texts.items():
            if sorted(_PLACE.findall(text)) != sorted(_PLACE.findall(found["en"][key])):
                raise SchemaError(schemas / "texts" / f"{language}.toml", key, "names other things than the English text")
    return found


def choose_language(known: Mapping[str, Texts], wanted: str, accepted: str) -> str:
    """The language to speak. `wanted`: `ui_locales` (OpenID Connect §3.1.2.1); `accepted`: the header Accept-Language."""
    for tag in wanted.split():
        if tag.partition("-")[0].lower() in known:
            return tag.partition("-")[0].lower()
    ranges = [match for part in accepted[:500].split(",") if (match := _RANGE.fullmatch(part))]
    best = max((r for r in ranges if r[1].lower() in known), key=lambda r: float(r[2] or 1), default=None)
    return best[1].lower() if best is not None and float(best[2] or 1) > 0 else "en"


def _flat(file: Path, above: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(file, f"{above}{name}.", value)
        elif isinstance(value, str):
            yield above + name, value
        else:
            raise SchemaError(file, above + name, "is no text")
