"""`gateway import`: what it writes, what it refuses and tells of it, and that the same files again come to the same."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from gateway.provisioning.load import Counts
from gateway.provisioning.progress import Progress
from gateway.provisioning.run import import_files
from tests.process import environment, run
from tests.world import World, bundle, device, entry, observation, organization, patient, practitioner, related_person, unique

TYPES = ("Organization", "Practitioner", "PractitionerRole", "Patient", "RelatedPerson")


class Imports:
    """Imports into the shared gateway by an operator whom the audit knows by a name of their own."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.operator = unique("ana")
        self._folder = folder

    async def __call__(self, *files: Iterable[Mapping[str, Any]]) -> Counts:
        """Import these files of resources."""
        paths = []
        for resources in files:
            paths.append(self._folder / unique("file"))
            paths[-1].write_text("".join(json.dumps(one) + "\n" for one in resources), "utf-8")
        self.screen = io.StringIO()
        return await import_files(self.world.gateway, paths, self.operator, self._folder / "report", self.screen)

    @property
    def refusals(self) -> list[tuple[int, str | None, str]]:
        """Line, element and code of what the last import refused."""
        listed = map(json.loads, (self._folder / "report").read_text("utf-8").splitlines())
        return [(one["line"], one["issues"][0]["expression"], one["issues"][0]["code"]) for one in listed]

    async def stored(self, resource: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What is stored with the identifier of this resource."""
        identifier = resource["identifier"][0]
        token = f"{identifier['system']}|{identifier['value']}"
        return await self.world.stored(resource["resourceType"], **{"search.identifier": token})

    async def body(self, resource: Mapping[str, Any]) -> dict[str, Any]:
        """The one resource stored with the identifier of this one."""
        (found,) = await self.stored(resource)
        return dict(json.loads(found["body"]))

    async def events(self) -> list[dict[str, Any]]:
        """What the audit says of this operator, oldest first."""
        found = await self.world.stored("AuditEvent", **{"event.client": self.operator})
        return sorted(found, key=lambda one: one["n"])


@pytest.fixture
def imports(world: World, tmp_path: Path) -> Imports:
    return Imports(world, tmp_path)


async def test_what_is_new_is_created_and_the_same_file_again_writes_nothing(world: World, imports: Imports) -> None:
    files = [organization(), practitioner()], [patient(), device(), patient()]
    assert await imports(*files) == Counts(created=5)
    before = await world.fingerprint()
    assert await imports(*files) == Counts(known=5)
    assert await world.fingerprint() == before


async def test_what_says_something_else_becomes_a_new_version_and_what_it_was_too(imports: Imports) -> None:
    first = practitioner()
    second = {**first, "name": [{"family": "Martin-Roy"}]}
    assert await imports([first]) == Counts(created=1)
    for n, row in enumerate((second, first, second), start=2):
        assert await imports([row]) == Counts(updated=1)
        assert await imports([row]) == Counts(known=1)
        (found,) = await imports.stored(first)
        assert found["version"] == n
        assert json.loads(found["body"])["name"] == row["name"]


async def test_what_a_client_wrote_since_is_renewed(world: World, imports: Imports) -> None:
    row = patient(gender="female")
    await imports([row])
    stored = await imports.body(row)
    answer = await world.operator.put(f"Patient/{stored['id']}", {**stored, "gender": "male"})
    assert answer.status_code == 200
    assert await imports([row]) == Counts(updated=1)
    assert (await imports.body(row))["gender"] == "female"
    assert (await imports.body(row))["id"] == stored["id"]


async def test_a_merge_outlives_the_files_that_know_nothing_of_it(world: World, imports: Imports) -> None:
    old, new = patient(), patient()
    await imports([old, new])
    one, other = await imports.body(old), await imports.body(new)
    replaced = {**one, "active": False, "link": [{"other": {"reference": f"Patient/{other['id']}"}, "type": "replaced-by"}]}
    survivor = {**other, "link": [{"other": {"reference": f"Patient/{one['id']}"}, "type": "replaces"}]}
    survivor["identifier"] = other["identifier"] + one["identifier"]
    merging = bundle("transaction", *(entry("PUT", f"Patient/{b['id']}", b) for b in (replaced, survivor)))
    assert (await world.operator.post("", merging)).status_code == 200
    renewed = {**new, "identifier": survivor["identifier"], "gender": "female"}
    assert await imports([old, renewed]) == Counts(updated=1, refused=1)
    assert imports.refusals == [(1, "Patient.identifier", "business-rule")]
    (found,) = await world.stored("Patient", _id=other["id"])
    assert json.loads(found["body"])["link"] == survivor["link"]
    assert await imports([renewed]) == Counts(known=1)


async def test_the_same_row_twice_is_one_and_another_with_its_identifier_is_refused(imports: Imports) -> None:
    row = practitioner()
    assert await imports([row, row], [row, {**row, "gender": "male"}]) == Counts(created=1, known=2, refused=1)
    assert imports.refusals == [(2, "Practitioner.identifier", "duplicate")]
    assert "gender" not in await imports.body(row)


async def test_links_between_rows_lead_to_what_became_of_them(imports: Imports) -> None:
    """By the ids they have in the files, forwards and backwards, over transactions; by fullUrl; by identifier."""
    chain = [organization(id=f"o{n}", partOf={"reference": f"Organization/o{n + 1}"}) for n in range(210)]
    chain.append(organization(id="o210"))
    doctor, person, owner = practitioner(id="1"), practitioner(), patient(id="77")
    role = {
        "resourceType": "PractitionerRole",
        "identifier": [{"system": "urn:role", "value": unique("role")}],
        "practitioner": {"reference": "Practitioner/1"},
        "organization": {"reference": "Organization/o205"},
    }
    mother = related_person("77", identifier=[{"system": "urn:rp", "value": unique("rp")}])
    by_identifier = {**mother, "identifier": [{"system": "urn:rp", "value": unique("rp")}]}
    by_identifier["patient"] = {"identifier": owner["identifier"][0]}
    owner["generalPractitioner"] = [{"reference": "urn:uuid:doctor"}]
    brought = bundle("transaction", entry("POST", "Practitioner", person, "urn:uuid:doctor"))
    files: list[list[dict[str, Any]]] = [[role, mother, by_identifier], chain, [doctor, owner], [brought]]
    assert await imports(*files) == Counts(created=217)
    stored = {n: await imports.body(chain[n]) for n in (0, 1, 199, 200, 205)}
    for n in (0, 199):
        assert stored[n]["partOf"] == {"reference": f"Organization/{stored[n + 1]['id']}"}
    found = await imports.body(role)
    assert found["practitioner"]["reference"] == f"Practitioner/{(await imports.body(doctor))['id']}"
    assert found["organization"]["reference"] == f"Organization/{stored[205]['id']}"
    named = await imports.body(owner)
    assert named["generalPractitioner"] == [{"reference": f"Practitioner/{(await imports.body(person))['id']}"}]
    for one in (mother, by_identifier):
        assert [d["patient"] for d in await imports.stored(one)] == [named["id"]]
    assert await imports(*files) == Counts(known=217)


@pytest.mark.parametrize(
    ("row", "element", "code"),
    [
        (practitioner(identifier=[{"value": "1"}]), "Practitioner.identifier", "required"),
        (practitioner(gender="unsure"), "Practitioner.gender", "code-invalid"),
        (practitioner(nmae=[]), "Practitioner.nmae", "structure"),
        (practitioner(birthDate="31.12.1970"), "Practitioner.birthDate", "value"),
        (patient(generalPractitioner=[{"reference": "Practitioner/9"}]), "Patient.generalPractitioner[0]", "not-found"),
        (related_person("9", identifier=[{"system": "urn:rp", "value": "9"}]), "RelatedPerson.patient", "not-found"),
        (observation("9"), "Observation", "forbidden"),
        ({"resourceType": "Basic", "identifier": [{"system": "urn:b", "value": "1"}]}, "Resource", "not-supported"),
        (
            {"resourceType": "Bundle", "entry": [{"request": {"method": "DELETE"}}]},
            "Bundle.entry.request.method",
            "not-supported",
        ),
        ({"name": "Durand"}, None, "structure"),
    ],
    ids=lambda value: value.get("resourceType", "none") if isinstance(value, dict) else None,
)
async def test_a_row_that_is_refused_is_told_with_its_element_and_keeps_no_other_out(
    imports: Imports, row: dict[str, Any], element: str | None, code: str
) -> None:
    others = [practitioner(), patient(), organization()]
    assert await imports([*others[:2], row, others[2]]) == Counts(created=3, refused=1)
    ((line, expression, said),) = imports.refusals
    assert (line, said) == (3, code)
    assert (expression or "").startswith(element or "")
    events = [one["event"] for one in await imports.events() if one["event"]["outcome"] != "0"]
    assert [(one["interaction"], one["kind"]) for one in events] == [("create", "operator")]
    assert await imports([*others[:2], row, others[2]]) == Counts(known=3, refused=1)


async def test_no_value_of_a_person_is_in_a_report_or_on_the_screen(imports: Imports, tmp_path: Path) -> None:
    secret = "Zyxwvut"
    rows = [
        practitioner(gender=secret),
        practitioner(name=[{"family": secret, "period": secret}]),
        patient(identifier=[{"system": "urn:x", "value": secret}], birthDate=secret),
        patient(generalPractitioner=[{"reference": f"Practitioner/{secret}", "display": secret}]),
        {"resourceType": secret},
        practitioner(**{secret.lower(): secret}),
    ]
    assert (await imports(rows)).refused == 6
    assert secret not in (tmp_path / "report").read_text("utf-8") + imports.screen.getvalue()
    events = await imports.events()
    assert len(events) == 6
    assert secret not in str(events)


async def test_the_audit_names_who_imported_and_patients_see_it(world: World, imports: Imports) -> None:
    row = patient()
    await imports([row, practitioner()])
    (found,) = await imports.stored(row)
    owner = await world.patient_actor(found["_id"])
    (event,) = await owner.search("AuditEvent")
    assert event["action"] == "C"
    assert event["agent"][0]["who"]["identifier"]["value"] == imports.operator
    assert f"Patient/{found['_id']}" in [one["what"].get("reference") for one in event["entity"]]
    assert {one["event"]["kind"] for one in await imports.events()} == {"operator"}


def families(url: str, name: str) -> dict[str, list[tuple[str, int, str]]]:
    """What is stored, by type, ids left out: key, version, and what it says, links by the identifiers of their targets."""
    with MongoClient[dict[str, Any]](url) as client:
        documents = [(kind, one) for kind in TYPES for one in client[name][kind].find()]
        assert not [one for kind in TYPES for one in client[name][f"{kind}_history"].find()]
        patients = {head["_id"] for head in client[name]["heads"].find() if head["_id"] not in TYPES}
        assert patients == {one["_id"] for kind, one in documents if kind == "Patient"}
    said: dict[str, list[tuple[str, int, str]]] = {kind: [] for kind in TYPES}
    keys = {f"{kind}/{one['_id']}": str(one["search"]["identifier"][0]) for kind, one in documents}
    for kind, one in documents:
        body = json.loads(one["body"])
        del body["id"], body["meta"]
        text = json.dumps(body)
        for reference, key in keys.items():
            if f'"{reference}"' in text:
                text = text.replace(reference, key)
        said[kind].append((keys[f"{kind}/{one['_id']}"], one["version"], text))
    return {kind: sorted(found) for kind, found in said.items()}


def write_population(folder: Path) -> list[str]:
    """Directories and patients in three files, some of them referring to what comes later."""
    places = [organization(id=f"o{n}", partOf={"reference": f"Organization/o{n + 1}"} if n % 3 else None) for n in range(99)]
    places = [{name: value for name, value in one.items() if value} for one in [*places, organization(id="o99")]]
    doctors = [practitioner(id=f"d{n}") for n in range(300)]
    people = [patient(id=f"p{n}", managingOrganization={"reference": f"Organization/o{n % 100}"}) for n in range(900)]
    mothers = [related_person(f"p{n}", identifier=[{"system": "urn:rp", "value": f"{n}"}]) for n in range(0, 900, 10)]
    (folder / "people").write_text("".join(json.dumps(one) + "\n" for one in [*mothers, *people]), "utf-8")
    (folder / "doctors").write_text(
        json.dumps(bundle("batch", *(entry("POST", "", one) for one in doctors)), indent=1), "utf-8"
    )
    (folder / "places").write_text("".join(json.dumps(one) + "\n" for one in places), "utf-8")
    return [str(folder / name) for name in ("doctors", "places", "people")]


def count(env: Mapping[str, str], kind: str) -> int:
    with MongoClient[dict[str, Any]](env["GATEWAY_MONGO_URL"]) as client:
        return client[env["GATEWAY_MONGO_DATABASE"]][kind].count_documents({})


def number(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def test_an_import_that_is_killed_and_run_again_comes_to_the_same_as_one_run(mongo_url: str, tmp_path: Path) -> None:
    files = write_population(tmp_path)
    once, killed = environment(mongo_url), environment(mongo_url)
    ended = run("import", *files, "--operator", "ana", env=once)
    assert ended.returncode == 0, ended
    assert "1 390 created, 0 updated, 0 known, 0 refused" in ended.stderr

    command = [sys.executable, "-m", "gateway", "import", *files, "--operator", "ana"]
    process = subprocess.Popen(command, env=killed, stderr=subprocess.DEVNULL)
    while process.poll() is None and count(killed, "Patient") < 150:
        time.sleep(0.005)  # it is another process that is waited for
    process.kill()
    assert process.wait() == -signal.SIGKILL
    brought = sum(count(killed, kind) for kind in TYPES)
    assert 550 <= brought < 1_390

    ended = run("import", *files, "--operator", "ana", env=killed)
    assert ended.returncode == 0, ended
    assert f"{number(1_390 - brought)} created, 0 updated, {number(brought)} known, 0 refused" in ended.stderr
    assert families(mongo_url, killed["GATEWAY_MONGO_DATABASE"]) == families(mongo_url, once["GATEWAY_MONGO_DATABASE"])
    assert run("audit", "verify", env=killed).returncode == 0


def test_the_command_says_what_it_did_and_ends_with_1_where_something_was_refused(mongo_url: str, tmp_path: Path) -> None:
    env, file = environment(mongo_url), tmp_path / "rows"
    rows = [practitioner(), *(practitioner(gender="unsure") for _ in range(12))]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
    ended = run("import", str(file), "--operator", "ana", env=env)
    assert (ended.returncode, ended.stdout) == (1, "")
    said = ended.stderr.splitlines()
    assert said[0] == f"{file}:2: Practitioner.gender: the code is not in the required value set"
    assert said[10] == "and 2 more: --report FILE lists them all"
    assert said[11].startswith("13 rows in ")
    assert said[11].endswith(" rows/s): 1 created, 0 updated, 0 known, 12 refused")
    ended = run("import", str(file), "--operator", "ana", "--report", str(tmp_path / "report"), env=env)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    listed = [json.loads(line) for line in (tmp_path / "report").read_text("utf-8").splitlines()]
    assert [one["line"] for one in listed] == [*range(2, 14)]
    assert listed[0]["issues"][0]["expression"] == "Practitioner.gender"


class Terminal(io.StringIO):
    """A screen that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("screen", "told"),
    [
        (Terminal(), "\r[############............]  50%  1 200 rows, 1 200 rows/s, 3 refused\x1b[K"),
        (io.StringIO(), "50%  1 200 rows, 100 rows/s, 3 refused\n"),
    ],
    ids=["terminal", "file"],
)
def test_a_terminal_gets_a_bar_and_a_file_now_and_then_a_line(screen: io.StringIO, told: str) -> None:
    seconds = [0.0]
    progress = Progress(screen, 1_000, lambda: seconds[0])
    progress.show(Counts(), 0)
    assert screen.getvalue() == ""
    seconds[0] = 1.0 if screen.isatty() else 12.0
    for _ in range(2):
        progress.show(Counts(created=1_197, refused=3), 500)
    assert screen.getvalue() == told
