"""Files of an import: every resource with its line, however the file is laid out, in memory that does not grow with it."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from gateway.provisioning import rows
from gateway.provisioning.rows import Row, read_rows

MOST = 100_000
ORGANIZATION: dict[str, Any] = {"resourceType": "Organization", "name": 'Lilas "{[" \\ ]}', "alias": ['\\"', "é{"]}
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "extension": [{"url": "entry", "valueString": '"entry":['}],
    "active": True,
}
BOTH = [ORGANIZATION, PATIENT]


def bundle(*resources: dict[str, Any], **elements: Any) -> dict[str, Any]:
    entries = [{"fullUrl": f"urn:uuid:{n}", "resource": one, "search": {"mode": "match"}} for n, one in enumerate(resources)]
    return {"resourceType": "Bundle", "id": "[", "type": "collection", **elements, "entry": entries, "link": [{"url": "{"}]}


def lines(*values: Any) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def read(folder: Path, text: str | bytes) -> list[Row]:
    file = folder / "file"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = [row for row, _ in read_rows(file, MOST)]
    assert {row.file for row in found} <= {str(file)}
    return found


def late(value: dict[str, Any]) -> dict[str, Any]:
    """The same with its type at its end."""
    return {**{name: element for name, element in value.items() if name != "resourceType"}, "resourceType": "Bundle"}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (lines(*BOTH), [1, 2]),
        (lines(*BOTH).replace("\n", "\r\n\r\n").rstrip(), [1, 3]),
        ("\ufeff" + lines(*BOTH), [1, 2]),
        (lines(bundle(*BOTH)), [1, 1]),
        (pretty(bundle(*BOTH)), [6, 20]),
        (lines(bundle(ORGANIZATION), bundle(PATIENT)), [1, 2]),
        (lines(bundle(ORGANIZATION), PATIENT), [1, 2]),
        (lines(ORGANIZATION, bundle(PATIENT)), [1, 2]),
        (lines(bundle(), late(bundle(ORGANIZATION)), PATIENT), [2, 3]),
        ("\n" + pretty(ORGANIZATION) + "\n" + pretty(PATIENT), [2, 10]),
        (pretty(ORGANIZATION) + pretty(bundle(PATIENT)), [1, 13]),
        ("", []),
    ],
)
@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 262_144])
def test_each_resource_is_found_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, where: list[int], chunk: int
) -> None:
    monkeypatch.setattr(rows, "_CHUNK", max(chunk, 32))  # the first look at a file takes in a line
    found = read(tmp_path, text)
    monkeypatch.setattr(rows, "_CHUNK", chunk)
    assert [row.problem for row in found] == [None] * len(where)
    assert [json.loads(row.body) for row in found] == BOTH[: len(where)]
    assert [row.line for row in found] == where


@pytest.mark.parametrize("chunk", range(1, 40))
def test_values_are_split_alike_wherever_a_chunk_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    file = tmp_path / "file"
    file.write_text(pretty(bundle(*BOTH)) + lines(bundle(PATIENT), ORGANIZATION), "utf-8")
    monkeypatch.setattr(rows, "_CHUNK", chunk)
    with file.open("rb") as opened:
        found = list(rows._values(opened, "file", MOST))
    assert [json.loads(row.body) for row in found] == [*BOTH, PATIENT, ORGANIZATION]
    assert [(row.line, row.url) for row in found] == [(6, "urn:uuid:0"), (20, "urn:uuid:1"), (42, "urn:uuid:0"), (43, None)]


@pytest.mark.parametrize(
    ("text", "code", "line", "sound"),
    [
        (pretty(bundle(*BOTH))[:-40], "structure", 36, 2),  # cut off
        (lines(bundle(ORGANIZATION)) + "]" + lines(PATIENT), "structure", 2, 1),
        (lines(bundle(ORGANIZATION)) + "nonsense" + lines(PATIENT), "structure", 2, 1),
        ("{\n" + '"name": "' + "x" * 500_000 + '"}', "too-long", 1, 0),
        (lines(ORGANIZATION, {"name": "x" * MOST}, PATIENT), "too-long", 2, 2),
        (lines({"resourceType": "Bundle", "entry": [{"request": {"method": "GET"}}]}), "not-supported", 1, 0),
        (lines({"resourceType": "Bundle", "entry": [{"request": {"method": "POST"}}]}), "required", 1, 0),
        (lines({"resourceType": "Bundle", "entry": [{"resource": None}]}), "required", 1, 0),
        (lines({"resourceType": "Bundle", "entry": [{"fullUrl": 7}]}), "structure", 1, 0),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, text: str, code: str, line: int, sound: int) -> None:
    found = read(tmp_path, text)
    assert [(row.problem.code, row.line) for row in found if row.problem is not None] == [(code, line)]
    assert len([row for row in found if row.problem is None]) == sound


@pytest.mark.parametrize("as_bundle", [True, False])
def test_a_large_file_takes_little_memory(tmp_path: Path, as_bundle: bool) -> None:
    file = tmp_path / "large"
    resource = json.dumps({**PATIENT, "language": "x" * 2_000})
    with file.open("w", encoding="utf-8") as out:
        out.write('{"resourceType": "Bundle", "entry": [{}' if as_bundle else "")
        for _ in range(10_000):
            out.write(f', {{"resource": {resource}}}' if as_bundle else f"{resource}\n")
        out.write("]}" if as_bundle else "")
    tracemalloc.start()
    try:
        read_bytes = [done for _, done in read_rows(file, MOST)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(read_bytes) >= 10_000
    assert read_bytes[-1] == file.stat().st_size > 20_000_000
    assert peak < 3_000_000
