"""The rules of the house that a machine can see: sizes, first lines, what lies at the top, words of unfinished work."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "gateway").rglob("*.py"))
MOST_LINES, MOST_LINES_OF_FUNCTION = 400, 50
TOP = {"gateway", "schemas", "tests", "docker-compose.yml", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}

# What the specifications ask of what is there so far.
REQUIREMENTS = (
    [f"CORE-{n:02}" for n in range(1, 20)]
    + [f"BUN-{n:02}" for n in range(1, 12)]
    + [f"SRCH-{n:02}" for n in range(1, 14)]
    + [f"AUD-{n:02}" for n in range(1, 9) if n != 6]
    + [f"SEC-{n:03}" for n in (*range(1, 32), *range(40, 49))]
    + ["SEC-07", "ID-01", "ID-02", "ID-03", "CON-001", "CON-010", "CON-014", "CON-015"]
    + [f"EXT-{n:02}" for n in (1, 2, 4, 5, 6, 7, 8)]
    + [*(f"CGM-{n:02}" for n in (1, 2, 3, 4, 5, 7, 9, 11)), "OPS-01", "CONF-01"]
    + [f"MES-{n:02}" for n in range(1, 13)]
    + [*(f"SEC-{n:02}" for n in range(1, 7)), "CON-007", "CON-008", "CON-009"]
    + [f"DOC-{n:02}" for n in (3, 4, 12, 13, 14, 15, 19, 24)]
    + ["DOC-21", "DOC-22"]
    + [f"REL-{n:03}" for n in (1, 2, 7, 10)]
)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_says_what_it_knows_and_stays_livable(file: Path) -> None:
    text = file.read_text("utf-8")
    tree = ast.parse(text)
    first = ast.get_docstring(tree) or ""
    is_endpoint = file.parent.name in ("api", "oauth") and re.match(r"(?:GET|POST|PUT|PATCH|DELETE) ", first)
    if file.name == "__init__.py" or is_endpoint:  # the package says it for all its endpoints
        assert first
    else:
        assert "Knows: " in first
        assert "ust not know: " in first
    assert len(text.splitlines()) <= MOST_LINES
    long = [f.name for f in functions(tree) if (f.end_lineno or 0) - f.lineno + 1 > MOST_LINES_OF_FUNCTION]
    assert long == []


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return listed.stdout.splitlines()


def test_the_readme_fits_a_screen_and_leads_to_what_is_there() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert [line for line in text.splitlines() if len(line) > 128] == []
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines() if line[:1] == "#"
    }
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", text) if link not in headings] == []
    files = [str(path.relative_to(ROOT)) for folder in ("gateway", "schemas", "tests") for path in (ROOT / folder).rglob("*.*")]
    named = {word for quoted in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[\w/.-]+\.(?:py|toml)\b", quoted)}
    assert [
        name
        for name in sorted(named - {"pyproject.toml", "server.toml"})
        if not any(f"/{f}".endswith(f"/{name}") for f in files)
    ] == []


def test_only_the_agreed_things_lie_at_the_top() -> None:
    if not tracked():
        pytest.skip("not a checkout")
    others = {name.split("/")[0] for name in tracked()} - TOP
    assert {name for name in others if not name.startswith(".")} == set()
    assert not [name for name in tracked() if re.search(r"(?:^|/)(?:uv|poetry|pdm|package|yarn|pnpm)[-.]lock", name)]


def test_nothing_is_left_unfinished() -> None:
    marks = "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "NotImplemented" + "Error", "x" + "fail"))
    for file in [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]:
        assert not re.search(rf"\b(?:{marks})\b", file.read_text("utf-8")), file


def test_every_requirement_is_named_by_a_test() -> None:
    named = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        for call in re.findall(r"\.requirement\(([^)]*)\)", file.read_text("utf-8")):
            named.update(re.findall(r"[A-Z]+-[0-9]+", call))
    assert [name for name in REQUIREMENTS if name not in named] == []
