"""Reading the data files under `schemas/`, strictly.

Knows: where the files are (in a clone and in an installed wheel) and how to name the file and key of a mistake.
Must not know: what the data means.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_FIELD = re.compile(r"Object (missing required|contains unknown) field `([^`]+)`")


class SchemaError(Exception):
    """A data file that cannot be used: the message is `file: key: what is wrong`."""

    def __init__(self, file: Path | str, key: str, text: str) -> None:
        super().__init__(f"{file}: {key}: {text}" if key else f"{file}: {text}")


def find_schemas() -> Path:
    """The folder of data files: packaged inside `gateway` in a wheel, beside it in a clone."""
    here = Path(__file__).resolve().parent
    packaged = here / "schemas_data"
    return packaged if packaged.is_dir() else here.parent / "schemas"


def read_schema(file: Path, shape: type[T]) -> T:
    """The TOML file as `shape`. Raises SchemaError naming file and key for anything missing, unknown or mistyped."""
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SchemaError(file, "", error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise SchemaError(file, "", "is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(file, "", str(error)) from error
    return convert(file, "", data, shape)


def convert(file: Path, key: str, data: Any, shape: type[T]) -> T:
    """What stands under `key` of a file as `shape`; the key is empty for the whole file. Raises SchemaError."""
    try:
        return msgspec.convert(data, shape)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `")
        key += place.rpartition("$")[2].rstrip("`")  # of a key itself it says where the table is
        if field := _FIELD.match(text):
            key, text = f"{key}.{field[2]}", "is missing" if field[1] == "missing required" else "is not a key here"
        raise SchemaError(file, key.lstrip("."), text) from error
