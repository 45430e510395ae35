"""Data files are read strictly: whatever is wrong with one is said by file and key."""

import shutil
from pathlib import Path

import msgspec
import pytest

from gateway.app import check_system, read_schemas
from gateway.schemas import SchemaError, convert, find_schemas, read_schema


class Part(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    numbers: list[int] = msgspec.field(default_factory=list)


class Whole(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    part: Part
    parts: list[Part] = msgspec.field(default_factory=list)


SOUND = 'title = "t"\n[part]\nname = "n"\n'


def test_a_sound_file_becomes_its_shape(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(SOUND)
    assert read_schema(tmp_path / "x.toml", Whole) == Whole("t", Part("n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[part]\nname = "n"', "title: is missing"),
        (f"extra = 1\n{SOUND}", "extra: is not a key here"),
        ('title = 1\n[part]\nname = "n"', "title: Expected `str`, got `int`"),
        ('title = "t"\npart = 1', "part: Expected `object`, got `int`"),
        ('title = "t"\n[part]', "part.name: is missing"),
        (f"{SOUND}other = 1", "part.other: is not a key here"),
        (f"{SOUND}numbers = [1, 'a']", "part.numbers[1]: Expected `int`, got `str`"),
        (f"{SOUND}[[parts]]\nname = 'a'\n[[parts]]\nnom = 'b'", "parts[1].nom: is not a key here"),
        ("title = ", "Invalid value"),
        (f"{SOUND}{SOUND}", "Cannot declare"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(SchemaError) as refused:
        read_schema(file, Whole)
    assert str(refused.value).startswith(f"{file}: {said}")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    with pytest.raises(SchemaError, match=r"x\.toml: No such file or directory"):
        read_schema(file, Whole)
    file.write_bytes(b'title = "\xff"')
    with pytest.raises(SchemaError, match=r"x\.toml: is not UTF-8"):
        read_schema(file, Whole)


def test_a_value_is_named_by_the_key_it_stands_under() -> None:
    with pytest.raises(SchemaError, match=r"^f: search\.code\.name: is missing$"):
        convert(Path("f"), "search.code", {}, Part)
    with pytest.raises(SchemaError, match=r"^f: search\.code: Expected `object`"):
        convert(Path("f"), "search.code", 7, Part)


def test_the_packaged_files_are_found() -> None:
    assert (find_schemas() / "gateway.toml").is_file()


async def test_the_check_names_file_and_key(tmp_path: Path) -> None:
    lines, sound = await check_system({}, create_indexes=False)
    assert sound
    assert lines[0].startswith("schemas: 17 types")
    with pytest.raises(SchemaError, match=r"gateway\.toml: No such file"):
        await check_system({"GATEWAY_SCHEMAS": str(tmp_path)}, create_indexes=False)


@pytest.mark.parametrize(
    ("file", "sound", "mistake", "said"),
    [
        ("gateway.toml", '"Patient.gender"', '"Patient.gendre"', "bindings.Patient.gendre: is no element that takes a code"),
        ("resources/Device.toml", 'path = "modelNumber"', 'path = "model"', "search.model.path: Device has no element 'model'"),
        ("policy.toml", 'direction = "read"', 'direction = "look"', "base[0].direction: Invalid enum value 'look'"),
        ("policy.toml", 'code = "consultation"', 'code = "care-team"', "relation[3].code: 'care-team' stands twice"),
        ("policy.toml", 'professions = ["10"]', 'professions = ["11"]', "relation[0].professions: '11' is no profession"),
        ("policy.toml", 'unknown = "R"', 'unknown = "X"', "labels.unknown: is none of labels.levels"),
        ("entitlements.toml", '95 = ["summaries"', '95 = ["sums"', "professions.95: 'sums' is no category"),
        (
            "entitlements.toml",
            'Report = "code"',
            'Report = "date"',
            "parameters.DiagnosticReport: 'date' is no token parameter",
        ),
    ],
)
async def test_one_wrong_word_in_any_file_stops_the_start(
    tmp_path: Path, file: str, sound: str, mistake: str, said: str
) -> None:
    folder = tmp_path / "schemas"
    shutil.copytree(find_schemas(), folder)
    text = (folder / file).read_text("utf-8")
    assert sound in text
    (folder / file).write_text(text.replace(sound, mistake, 1), "utf-8")
    with pytest.raises(SchemaError) as refused:
        await check_system({"GATEWAY_SCHEMAS": str(folder)}, create_indexes=False)
    with pytest.raises(SchemaError) as also:
        read_schemas(folder)
    assert str(refused.value) == str(also.value)
    assert str(refused.value).startswith(f"{folder / file}: {said}")
