"""The village of the demo: each call of each case gives what its table says; everybody has the same id at every start."""

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from gateway.app import build_gateway, read_schemas, running
from gateway.sandbox import rows
from gateway.sandbox.people import SECRET, NamedIds, People, bring_people
from gateway.sandbox.resources import glucose
from gateway.sandbox.rows import AskedCall, Case, fill, read_village
from gateway.schemas import SchemaError, find_schemas
from gateway.settings import Settings
from tests.world import unique

VILLAGE = read_village()


async def brought(mongo_url: str) -> People:
    """The village in a database of its own."""
    settings = Settings(
        mongo_url=mongo_url,
        mongo_database=unique("village"),
        mongo_driver="motor",
        base_url="http://127.0.0.1/fhir",
        secret=SECRET,
        trusted_proxies="",
        log_level="warning",
        schemas=find_schemas(),
    )
    ids = NamedIds(SECRET)
    async with running(build_gateway(settings, read_schemas(settings.schemas), ids)) as gateway:
        return await bring_people(gateway, ids)


@pytest.fixture(scope="module")
async def people(mongo_url: str) -> People:
    return await brought(mongo_url)


def send(site: str, call: AskedCall, people: People) -> httpx.Response:
    headers = {"Authorization": f"Bearer {people.tokens[call.token]}"}
    url = f"{site}/fhir/{fill(call.path, people.ids)}"
    if call.reading is None:
        return httpx.get(url, headers=headers)
    body = glucose(people.ids[call.reading], unique("case"), datetime.now(UTC).isoformat(timespec="seconds"), 104)
    return httpx.post(url, headers=headers | {"Content-Type": "application/fhir+json"}, json=body)


@pytest.mark.requirement("CONF-01")
@pytest.mark.parametrize("case", VILLAGE.case, ids=lambda case: case.title)
def test_each_call_of_a_case_shows_what_its_sentence_says(site: str, people: People, case: Case) -> None:
    for call in case.call:
        answer = send(site, call, people)
        assert answer.status_code == call.status, (call, answer.text)
        if call.total is not None:
            assert answer.json()["total"] == call.total, call
        if call.shows is not None:
            assert fill(call.shows, people.ids) in answer.text, call


async def test_ids_and_tokens_are_the_same_at_every_start(people: People, mongo_url: str) -> None:
    assert await brought(mongo_url) == people
    assert people.ids["camille"] == "8ba-camille"
    assert {name: one for name, one in people.ids.items() if not re.fullmatch(f"[0-9a-f]{{3}}-{name}", one)} == {}
    assert len(set(people.tokens.values())) == len(VILLAGE.token) == len(people.tokens)


def test_every_confidentiality_and_every_state_of_a_service_lives_there() -> None:
    labels = {code for row in VILLAGE.document for code in row.labels}
    policy = tomllib.loads((find_schemas() / "policy.toml").read_text("utf-8"))
    # What is masked to some professionals is masked to all here, as MASQUE_PS is shown to be.
    assert {code for rule in policy["label"] for code in rule["codes"]} - labels == {"MASQUE_PSOCIAL", "MASQUE_PT"}
    assert {row.states[-1] if row.states else "draft" for row in VILLAGE.service} == {"draft", "referenced", "suspended"}
    assert {row.relation for row in VILLAGE.care} == {"care-team", "consultation"}
    assert {row.profession for row in VILLAGE.practitioner} >= {"10", "21", "60", "70"}
    shown = " ".join(call.path for case in VILLAGE.case for call in case.call)
    assert [
        row.name for row in VILLAGE.document if row.labels[:1] != ["N"] and row.labels and f"{{{row.name}}}" not in shown
    ] == []


def test_a_token_speaks_for_somebody_who_is_there(people: People) -> None:
    named: set[str] = set()
    for table in ("token", "care", "consent", "document", "reading", "stream", "account"):
        for row in getattr(VILLAGE, table):
            named |= set(re.findall(r"\{([a-z0-9-]+)\}", str(row)))
    assert named - people.ids.keys() == set()


def test_a_mistake_in_a_table_names_file_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tour.toml").write_text('[[patient]]\nname = "x"\nfamly = "y"\n', "utf-8")
    monkeypatch.setattr(rows, "FOLDER", tmp_path)
    with pytest.raises(SchemaError, match=r"tour\.toml: patient\[0\]"):
        read_village(("tour",))
