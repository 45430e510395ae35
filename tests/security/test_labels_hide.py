"""Labels hide by every route, from whom the table says, and what is hidden answers and costs as what never was (SEC-01…05)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.documents.papers import deposited, pdf
from tests.world import Actor, World, bundle, consent, document, entry, label, unique

VISIBILITY = "https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument"
A08 = "https://mos.esante.gouv.fr/NOS/TRE_A08-HL7Confidentiality/FHIR/TRE-A08-HL7Confidentiality"
ALL = {"patient", "proxy", "app", "service", "author", "member", "treating", "consulted", "permitted"}
PROFESSIONALS = {"author", "member", "treating", "consulted", "permitted"}
CONSENTED = {"app", "service"}

LABELS: dict[str, tuple[list[dict[str, str]], set[str]]] = {
    "none": ([], ALL),
    "N": ([label("N")], ALL),
    "R": ([label("R")], ALL - CONSENTED),
    "R of TRE_A08": ([label("R", A08)], ALL - CONSENTED),
    "unknown": ([label("X", "https://labels.example")], ALL - CONSENTED),
    "V": ([label("V")], {"patient", "author"}),
    "masked": ([label("MASQUE_PS", VISIBILITY)], ALL - {"member", "consulted", "permitted"}),
    "masked to some": ([label("MASQUE_PSOCIAL", VISIBILITY)], ALL - (PROFESSIONALS - {"author"})),
    "not yet for the patient": ([label("INVISIBLE_PATIENT", VISIBILITY)], PROFESSIONALS),
    "not for parents": ([label("INVISIBLE_REPRESENTANTS_LEGAUX", VISIBILITY)], ALL - {"proxy"}),
    "R and masked": ([label("R"), label("MASQUE_PS", VISIBILITY)], {"patient", "proxy", "author", "treating"}),
}


@dataclass
class Scene:
    """A record with a document of each label: its address, its content, and a document that relates to it."""

    world: World
    owner: Actor
    actors: dict[str, Actor]
    made: dict[str, tuple[str, str, str]]


@pytest.fixture(scope="module")
async def scene(session_world: World) -> Scene:
    world = session_world
    owner = await world.patient()
    author, member, treating, consulted, permitted = [await world.professional() for _ in range(5)]
    for actor, code in (
        (author, "care-team"),
        (member, "care-team"),
        (treating, "treating-doctor"),
        (consulted, "consultation"),
    ):
        await world.relation(owner, actor, code, days=0.9)
    app, service = await world.app(owner, "patient/*.rs"), await world.service()
    for actor in (app, service, permitted):
        await world.consent(owner, actor)
    actors = {"patient": owner, "proxy": await world.proxy(owner), "app": app, "service": service, "author": author}
    actors |= {"member": member, "treating": treating, "consulted": consulted, "permitted": permitted}
    actors["stranger"] = await world.professional()
    made = {}
    for name, (labels, _) in LABELS.items():
        more: dict[str, Any] = {"securityLabel": [{"coding": [one]} for one in labels]} if labels else {}
        found = await deposited(author, owner.patient, pdf(), **more)
        relating = document(owner.patient, relatesTo=[{"code": "appends", "target": {"reference": found[0]}}])
        made[name] = (*found, f"DocumentReference/{(await author.create(relating))['id']}")
    return Scene(world, owner, actors, made)


def routes(name: str, address: str, raw: str, patient: str) -> dict[str, str]:
    """Every way to read a document, or to learn that it is there."""
    _, identifier = address.split("/")
    found = {
        "read": address,
        "vread": f"{address}/_history/1",
        "history": f"{address}/_history",
        "search": f"DocumentReference?patient={patient}&_id={identifier}",
        "total": f"DocumentReference?patient={patient}&_id={identifier}&_total=accurate&_count=1",
        "count": f"DocumentReference?patient={patient}&_id={identifier}&_summary=count",
        "by label": f"DocumentReference?patient={patient}&_id={identifier}&_security:missing=false",
        "with what relates": f"DocumentReference?_id={identifier}&patient={patient}&_revinclude=DocumentReference:relatesto",
        "content": raw,
    }
    return {f"{name}: {route}": path for route, path in found.items()}


def plain(text: str, *names: str) -> str:
    """An answer without what names the resource, and without the watermark of a search, which is a time."""
    text = re.sub(r'"lastUpdated":"[^"]*"', "", text)
    for name in names:
        text = text.replace(name.partition("/")[2], "<id>")
    return text


@pytest.mark.requirement("SEC-01", "SEC-02", "SEC-05", "CON-007", "CON-008")
@pytest.mark.parametrize("kind", [*sorted(ALL), "stranger"])
async def test_the_matrix(scene: Scene, kind: str) -> None:
    actor, patient = scene.actors[kind], scene.owner.patient
    ghosts = [f"{type_name}/{scene.world.gateway.ids.new(patient[:3])}" for type_name in ("DocumentReference", "Binary")]
    asked = [(name, routes(name, made, raw, patient)) for name, (made, raw, _) in scene.made.items()]
    absent = routes("absent", ghosts[0], ghosts[1], patient)
    nothing = {path: await actor.get(path) for path in absent.values()}
    for name, paths in asked:
        made, raw, relating = scene.made[name]
        for (route, path), ghostly in zip(paths.items(), absent.values(), strict=True):
            answer = await actor.get(path)
            if kind in LABELS[name][1]:
                assert answer.status_code == 200, route
                if "search" in route or "total" in route or "count" in route:
                    assert answer.json()["total"] == 1, route
            else:
                expected = nothing[ghostly]
                assert answer.status_code == expected.status_code, route
                assert plain(answer.text, made, raw) == plain(expected.text, *ghosts), route
                assert "etag" not in answer.headers, route
        found = await actor.get(
            f"DocumentReference?patient={patient}&_id={relating.partition('/')[2]}&_include=DocumentReference:relatesto"
        )
        there = {f"DocumentReference/{one['resource']['id']}" for one in found.json().get("entry", ())}
        assert there == (set() if kind in ("stranger",) else {relating, made} if kind in LABELS[name][1] else {relating}), name


@pytest.mark.requirement("SEC-01", "SEC-02")
@pytest.mark.parametrize("kind", [*sorted(ALL), "stranger"])
async def test_a_batch_and_a_whole_record_show_what_single_reads_show(scene: Scene, kind: str) -> None:
    actor, patient = scene.actors[kind], scene.owner.patient
    visible = {name for name, (_, seen) in LABELS.items() if kind in seen}
    asked = [entry("GET", path) for made, raw, _ in scene.made.values() for path in (made, raw)]
    answers = (await actor.post("", bundle("batch", *asked))).json()["entry"]
    statuses = {name: {one["response"]["status"][:3] for one in answers[2 * n : 2 * n + 2]} for n, name in enumerate(LABELS)}
    assert statuses == {name: {"200"} if name in visible else {"404"} for name in LABELS}
    relating = {relating for _, _, relating in scene.made.values()} if kind != "stranger" else set()
    expected = {scene.made[name][0] for name in visible} | relating
    whole = await actor.get(f"DocumentReference?patient={patient}&_count=100&_total=accurate")
    assert {f"DocumentReference/{one['resource']['id']}" for one in whole.json().get("entry", ())} == expected
    assert whole.json()["total"] == len(expected)
    operations = scene.world.gateway.registry.operations
    for code, path in (
        ("docref", f"DocumentReference/$docref?patient={patient}"),
        ("everything", f"Patient/{patient}/$everything"),
    ):
        if code in operations:
            found, url = set(), path
            while url:
                page = (await actor.get(url)).json()
                found |= {f"DocumentReference/{e['resource']['id']}" for e in page.get("entry", ()) if "resource" in e}
                url = next((link["url"] for link in page.get("link", ()) if link["relation"] == "next"), "")
            names = {made for made, _, _ in scene.made.values()}
            assert found & names == expected & names, code


@contextmanager
def watching(world: World, patched: pytest.MonkeyPatch) -> Iterator[list[tuple[str, ...]]]:
    """The commands that go to the database meanwhile, but for the audit's."""
    seen: list[tuple[str, ...]] = []
    mongo = world.gateway.mongo
    with patched.context() as patch:
        for method in ("find", "find_one", "find_all", "count"):
            asking = getattr(mongo, method)

            async def watched(what: Any, *args: Any, _method: str = method, _asking: Any = asking, **options: Any) -> Any:
                collections = [part.collection for part in what] if isinstance(what, list) else [what]
                if not {"AuditEvent", "seals", "writers"}.intersection(collections):
                    seen.append((_method, *collections))
                return await _asking(what, *args, **options)

            patch.setattr(mongo, method, watched)
        yield seen


@pytest.mark.requirement("SEC-05")
@pytest.mark.parametrize(
    ("kind", "name"), [("member", "masked"), ("patient", "not yet for the patient"), ("app", "R"), ("proxy", "V")]
)
async def test_hidden_asks_the_database_what_absent_asks(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    actor, patient = scene.actors[kind], scene.owner.patient
    made, raw, _ = scene.made[name]
    ghosts = [f"{type_name}/{scene.world.gateway.ids.new(patient[:3])}" for type_name in ("DocumentReference", "Binary")]
    here, absent = routes(name, made, raw, patient), routes("absent", ghosts[0], ghosts[1], patient)
    for (route, path), ghostly in zip(here.items(), absent.values(), strict=True):
        with watching(scene.world, monkeypatch) as of_hidden:
            await actor.get(path)
        with watching(scene.world, monkeypatch) as of_absent:
            await actor.get(ghostly)
        assert of_hidden == of_absent != [], route


@pytest.mark.requirement("CON-008")
async def test_a_consent_opens_the_labels_that_it_names_and_no_others(world: World) -> None:
    owner, author = await world.patient(), await world.professional()
    await world.relation(owner, author)
    made = {}
    for name in ("R", "V", "masked", "not yet for the patient", "R and masked"):
        labels = [{"coding": [one]} for one in LABELS[name][0]]
        made[name] = (await author.create(document(owner.patient, securityLabel=labels)))["id"]

    async def seen(actor: Actor) -> set[str]:
        found = {one["id"] for one in await actor.search(f"DocumentReference?patient={owner.patient}")}
        return {name for name, identifier in made.items() if identifier in found}

    service, doctor = await world.service(), await world.professional()
    for actor in (service, doctor):
        await owner.create(consent(owner, actor))
    assert (await seen(service), await seen(doctor)) == ({"masked"}, {"R", "not yet for the patient"})
    invisible, masked = label("INVISIBLE_PATIENT", VISIBILITY), label("MASQUE_PS", VISIBILITY)
    for actor in (service, doctor):
        await owner.create(consent(owner, actor, securityLabel=[label("R", A08), invisible]))
    assert (await seen(service), await seen(doctor)) == ({"R", "masked", "R and masked"}, {"R", "not yet for the patient"})
    await owner.create(consent(owner, doctor, securityLabel=[masked]))
    assert await seen(doctor) == {"R", "not yet for the patient", "masked", "R and masked"}


@pytest.mark.requirement("SEC-01")
async def test_the_author_is_the_person_and_not_their_software(world: World) -> None:
    owner, client = await world.patient(), unique("software")
    mine, other, named = [await world.professional() for _ in range(3)]
    author, colleague = [
        await world.actor("professional", "user/*.cruds", client, one.reference, user=one.reference) for one in (mine, other)
    ]
    masked = [{"coding": [label("MASQUE_PS", VISIBILITY)]}]
    body = document(owner.patient, securityLabel=masked, author=[{"reference": named.reference}])
    made = f"DocumentReference/{(await author.create(body))['id']}"
    for actor in (colleague, named):
        await world.relation(owner, actor)
    assert [(await one.get(made)).status_code for one in (author, mine, named, colleague)] == [200, 200, 200, 404]
    patch = b'[{"op":"replace","path":"/description","value":"x"}]'
    answer = await colleague.send("PATCH", made, patch, Content_Type="application/json-patch+json")
    assert answer.status_code == 404
    pointing = document(owner.patient, relatesTo=[{"code": "replaces", "target": {"reference": made}}])
    assert (await colleague.post("DocumentReference", pointing)).status_code == 422
    assert (
        await author.post("DocumentReference", {**pointing, "identifier": [{"system": "urn:x", "value": unique()}]})
    ).status_code == 201
