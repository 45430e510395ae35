"""What somebody may not read is named to them by nothing else that they may read: no folder, no later document, no report."""

import json
from typing import Any

import pytest

from tests.documents.papers import deposited, pdf
from tests.documents.submissions import ARCHIVED, submission_set
from tests.world import Actor, World, bundle, concept, document, entry, issues

VISIBILITY = "https://mos.esante.gouv.fr/NOS/TRE_A07-StatutVisibiliteDocument/FHIR/TRE-A07-StatutVisibiliteDocument"
MASK = {"op": "add", "path": "/securityLabel", "value": [concept(VISIBILITY, "MASQUE_PS")]}
PATCH = "application/json-patch+json"


def folder(owner: Actor, *items: str, **elements: Any) -> dict[str, Any]:
    return submission_set(owner.patient, *items, code=concept("urn:x", "folder"), title="A folder", **elements)


def relating(owner: Actor, *targets: str, related: tuple[str, ...] = ()) -> dict[str, Any]:
    relations = [{"code": "appends", "target": {"reference": one}} for one in targets]
    context = {"context": {"related": [{"reference": one} for one in related]}} if related else {}
    return document(owner.patient, relatesTo=relations, **context)


class Scene:
    """A record with two documents, of which one is hidden from a reader, and what names both of them.

    `folder` and `later` name the hidden one first; `alone` and `only` name nothing else.
    """

    async def begin(self, world: World) -> "Scene":
        self.world, self.owner, self.author = world, await world.patient(), await world.professional()
        self.reader, self.clerk = await world.professional(), await world.professional()
        for actor in (self.author, self.reader, self.clerk):
            await world.relation(self.owner, actor)
        self.hidden, self.raw = await deposited(self.author, self.owner.patient, pdf())
        self.seen = f"DocumentReference/{(await self.author.create(document(self.owner.patient)))['id']}"
        both, one, owner = (self.hidden, self.seen), (self.hidden,), self.owner
        self.folder = await self._made(folder(owner, *both))
        self.alone = await self._made(folder(owner, *one))
        self.later = await self._made(relating(owner, *both, related=both))
        self.only = await self._made(relating(owner, *one, related=one))
        self.naming = (self.folder, self.alone, self.later, self.only)
        return self

    async def _made(self, resource: dict[str, Any]) -> str:
        return f"{resource['resourceType']}/{(await self.clerk.create(resource))['id']}"

    async def hide(self) -> "Scene":
        answer = await self.owner.send("PATCH", self.hidden, [MASK], Content_Type=PATCH)
        assert answer.status_code == 200, answer.text
        assert (await self.reader.get(self.hidden)).status_code == 404
        return self


def named(resource: dict[str, Any]) -> list[str]:
    """What a folder or a document names."""
    found = [one["item"] for one in resource.get("entry", ())] + [one["target"] for one in resource.get("relatesTo", ())]
    return [one["reference"] for one in (*found, *resource.get("context", {}).get("related", ()))]


async def ways(scene: Scene, actor: Actor, path: str) -> dict[str, str]:
    """By which way what is answered."""
    kind, _, identifier = path.partition("/")
    parameter = "List:item" if kind == "List" else "DocumentReference:relatesto"
    patient, elements = scene.owner.patient, "entry" if kind == "List" else "relatesTo,context"
    paths = {
        "read": path,
        "vread": f"{path}/_history/1",
        "history": f"{path}/_history",
        "search": f"{kind}?patient={patient}",
        "by id": f"{kind}?patient={patient}&_id={identifier}&_elements={elements}",
        "_include": f"{kind}?patient={patient}&_include={parameter}",
        "_revinclude": f"DocumentReference?patient={patient}&_revinclude={parameter}",
        "several types": f"?_type=List,DocumentReference&patient={patient}",
        "everything": f"Patient/{patient}/$everything?_type=List,DocumentReference",
        "XML": f"{path}?_format=xml",
        "XML, search": f"{kind}?patient={patient}&_format=xml",
    }
    if kind == "DocumentReference":
        paths |= {"docref": f"{kind}/$docref?patient={patient}", "changes": f"{kind}/$changes?patient={patient}"}
    found = {way: await actor.get(one) for way, one in paths.items()}
    found["batch"] = await actor.post("", bundle("batch", entry("GET", path), entry("GET", f"{path}/_history/1")))
    found["transaction"] = await actor.post("", bundle("transaction", entry("GET", path)))
    assert {way: answer.status_code for way, answer in found.items()} == dict.fromkeys(found, 200)
    assert all(identifier in answer.text for answer in found.values())
    return {way: answer.text for way, answer in found.items()}


@pytest.mark.requirement("SEC-01", "CON-007")
async def test_nothing_that_may_be_read_names_it(world: World) -> None:
    scene = await (await Scene().begin(world)).hide()
    identifier = scene.hidden.partition("/")[2]
    for path in (scene.folder, scene.later):
        for way, text in (await ways(scene, scene.reader, path)).items():
            assert identifier not in text, (path, way)
            assert scene.seen in text, (path, way)
    found = {path: (await scene.reader.get(path)).json() for path in scene.naming}
    assert named(found[scene.folder]) == [scene.seen]
    assert named(found[scene.later]) == [scene.seen, scene.seen]
    assert "entry" not in found[scene.alone]
    assert not {"relatesTo", "context"} & found[scene.only].keys()


async def test_what_was_withdrawn_is_named_to_nobody(world: World) -> None:
    scene = await Scene().begin(world)
    assert (await scene.author.post(f"{scene.hidden}/$withdraw", None)).status_code == 200
    identifier = scene.hidden.partition("/")[2]
    for actor in (scene.owner, scene.author, scene.reader, scene.clerk):
        for way, text in (await ways(scene, actor, scene.later)).items():
            assert identifier not in text, way
        assert named((await actor.get(scene.folder)).json()) == [scene.seen]


@pytest.mark.requirement("SEC-01")
async def test_who_may_read_it_is_told_all(world: World) -> None:
    scene = await (await Scene().begin(world)).hide()
    treating = await world.professional()
    await world.relation(scene.owner, treating, "treating-doctor")
    for actor in (scene.owner, scene.author, treating):
        for path in scene.naming:
            for way, text in (await ways(scene, actor, path)).items():
                assert scene.hidden in text, (path, way)


@pytest.mark.requirement("SEC-01")
async def test_it_is_named_again_once_it_is_seen_again(world: World) -> None:
    scene = await (await Scene().begin(world)).hide()
    shown = [{"op": "remove", "path": "/securityLabel"}]
    assert (await scene.owner.send("PATCH", scene.hidden, shown, Content_Type=PATCH)).status_code == 200
    assert named((await scene.reader.get(scene.folder)).json()) == [scene.hidden, scene.seen]


async def test_it_takes_one_look_for_a_page_and_none_where_nothing_is_named(world: World) -> None:
    scene = await (await Scene().begin(world)).hide()
    other = await world.patient()
    await world.relation(other, scene.reader)
    for _ in range(4):
        await other.create(document(other.patient))
    kept = await other.create(document(other.patient))
    await other.create(folder(other, f"DocumentReference/{kept['id']}"))

    async def calls(path: str) -> int:
        return await world.calls_of(lambda: scene.reader.get(path))

    for one in ("DocumentReference?patient={}&_count=50", "DocumentReference?patient={}&_count=50&date=gt1990-01-01"):
        assert await calls(one.format(scene.owner.patient)) == await calls(one.format(other.patient)) + 1
    assert await calls(f"List?patient={scene.owner.patient}") == await calls(f"List?patient={other.patient}")
    assert await calls(scene.later) == await calls(scene.seen) + 1


async def stored_links(scene: Scene, path: str) -> list[str]:
    """What it names in the database."""
    kind, _, identifier = path.partition("/")
    (found,) = await scene.world.stored(kind, _id=identifier)
    return named(json.loads(found["body"]))


@pytest.mark.requirement("SEC-01")
async def test_who_was_shown_less_keeps_what_was_not_shown(world: World) -> None:
    """By an update or a patch of what they were shown; and what is answered to them says no more than a read."""
    scene = await (await Scene().begin(world)).hide()
    new = f"DocumentReference/{(await scene.author.create(document(scene.owner.patient)))['id']}"
    found = (await scene.clerk.get(scene.folder)).json()
    added = {**found, "title": "Another", "entry": [*found["entry"], {"item": {"reference": new}}]}
    answer = await scene.clerk.put(scene.folder, added)
    assert answer.status_code == 200, answer.text
    assert named(answer.json()) == named((await scene.clerk.get(scene.folder)).json()) == [scene.seen, new]
    assert await stored_links(scene, scene.folder) == [scene.hidden, scene.seen, new]
    first = [{"op": "test", "path": "/entry/0/item/reference", "value": scene.seen}, {"op": "remove", "path": "/entry/0"}]
    answer = await scene.clerk.send("PATCH", scene.folder, first, Content_Type=PATCH)
    assert answer.status_code == 200, answer.text
    assert named(answer.json()) == [new]
    assert await stored_links(scene, scene.folder) == [scene.hidden, new]
    assert named((await scene.owner.get(scene.folder)).json()) == [scene.hidden, new]
    assert await scene.owner.search(f"List?patient={scene.owner.patient}&item={scene.hidden}&title=Another") != []
    empty = {name: value for name, value in (await scene.clerk.get(scene.folder)).json().items() if name != "entry"}
    assert (await scene.clerk.put(scene.folder, empty)).status_code == 200
    assert await stored_links(scene, scene.folder) == [scene.hidden]
    emptied = (await scene.owner.get(scene.folder)).json()
    assert (
        await scene.owner.put(scene.folder, {name: emptied[name] for name in emptied if name != "entry"})
    ).status_code == 200
    assert await stored_links(scene, scene.folder) == []


@pytest.mark.requirement("SEC-01")
async def test_a_document_that_was_shown_with_less_is_archived_as_it_was_deposited(world: World) -> None:
    scene = await (await Scene().begin(world)).hide()
    archived = {"extension": [{"url": ARCHIVED, "valueBoolean": True}]}
    for path in (scene.later, scene.only):
        before = await stored_links(scene, path)
        answer = await scene.clerk.put(path, {**(await scene.clerk.get(path)).json(), **archived})
        assert answer.status_code == 200, answer.text
        assert scene.hidden not in answer.text
        patch = [{"op": "replace", "path": "/status", "value": "superseded"}]
        answer = await scene.clerk.send("PATCH", path, patch, Content_Type=PATCH)
        assert (answer.status_code, scene.hidden in answer.text) == (200, False), answer.text
        assert await stored_links(scene, path) == before
        found = (await scene.owner.get(path)).json()
        assert (found["status"], found["extension"]) == ("superseded", archived["extension"])


@pytest.mark.requirement("SEC-01", "CON-007")
async def test_who_is_not_shown_it_cannot_point_there_either(world: World) -> None:
    scene = await (await Scene().begin(world)).hide()
    found = (await scene.clerk.get(scene.folder)).json()
    ghost = f"DocumentReference/{world.gateway.ids.new(scene.owner.patient[:3])}"
    told = []
    for one in (scene.hidden, ghost):
        answer = await scene.clerk.put(scene.folder, {**found, "entry": [*found["entry"], {"item": {"reference": one}}]})
        told.append((answer.status_code, issues(answer)))
    assert told[0] == told[1]
    assert told[0][0] == 422


@pytest.mark.requirement("SEC-01")
async def test_what_is_answered_again_names_it_no_more(world: World) -> None:
    scene = await Scene().begin(world)
    sent, key = folder(scene.owner, scene.hidden, scene.seen), {"Idempotency_Key": "links", "Prefer": "return=representation"}
    first = await scene.clerk.post("List", sent, **key)
    assert (first.status_code, named(first.json())) == (201, [scene.hidden, scene.seen])
    await scene.hide()
    for headers in (key, {"Prefer": "return=representation"}):
        again = await scene.clerk.post("List", sent, **headers)
        assert (again.status_code in (200, 201), named(again.json())) == (True, [scene.seen]), again.text
