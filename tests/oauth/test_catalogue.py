"""The service catalogue: what a file may say, the states of an entry, and that a client loses at once what it is to lose."""

import getpass
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.app import Schemas
from gateway.exchange.catalogue import add_client, change_client, find_entry, list_entries, rotate_secret, set_state
from gateway.exchange.client import Client, read_client
from gateway.fhir.balp import render_event
from gateway.oauth.key_sets import require_keys
from gateway.problem import Problem
from gateway.schemas import SchemaError
from gateway.store.chain import find_broken_link
from tests.clients import EC, PUBLIC, ask_token, described, error_of, register, write_file
from tests.conftest import packaged
from tests.process import environment, refused, run
from tests.world import World, consent, device, issues, observation, organization, unique

APP = {"kind": "app", "grants": ["authorization_code", "refresh_token"], "redirect_uris": ["https://app.example/cb"]}
PUBLIC_APP = {**APP, "authentication": "none", "keys": []}
SECRET_APP = {**APP, "authentication": "client_secret_basic", "keys": []}


def read(folder: Path, **changes: Any) -> Client:
    file, schemas = write_file(folder, **changes), packaged()
    client = read_client(file, schemas.registry, schemas.policy)
    require_keys(file, client.keys)
    return client


@pytest.mark.parametrize("changes", [{}, APP, PUBLIC_APP, SECRET_APP, {**PUBLIC_APP, "redirect_uris": ["com.example.app:/cb"]}])
def test_a_sound_file_is_read(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    assert read(tmp_path, **changes).controller == "Prevention SAS"


def test_the_origins_of_its_pages_are_those_of_its_addresses(tmp_path: Path) -> None:
    uris = ["https://app.example:8443/cb", "https://APP.example/cb?x=y", "http://127.0.0.1:3000/cb", "com.example.app:/cb"]
    client = read(tmp_path, **{**PUBLIC_APP, "redirect_uris": uris, "origins": ["https://other.example"]})
    assert client.origins == [
        "http://127.0.0.1:3000",
        "https://app.example",
        "https://app.example:8443",
        "https://other.example",
    ]


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"client": "a b"}, "client", "is not 2 to 64 letters"),
        ({"kind": "king"}, "kind", "Invalid enum value"),
        ({"category": "complementary-insurer"}, "category", "no Consent can open anything to"),
        ({"category": "employer"}, "category", "no Consent can open anything to"),
        ({"category": "bank"}, "category", "no Consent can open anything to"),
        ({"category": "other"}, "category", "is none of appointments, care"),
        ({"purpose": {}}, "purpose", "length >= 1"),
        ({"purpose": {"English": "x"}}, "purpose", "by language"),
        ({"purpose_of_use": "TREAT"}, "purpose_of_use", "system|code"),
        ({"retention": {"English": "x"}}, "retention", "by language"),
        ({"name": "GlucoApp\u202e"}, "name", "not seen"),
        ({"controller": "Gluco\u200bApp SAS"}, "controller", "not seen"),
        ({"recipients": {"en": "Nobody.\u0007"}}, "recipients", "not seen"),
        ({"controller": ""}, "controller", "length >= 1"),
        ({"actor": "Patient/1"}, "actor", "is not Device/id or Organization/id"),
        ({"read": ["Nonsense"]}, "read", "'Nonsense' is not a type"),
        ({"write": ["*"]}, "write", "'*' is not a type"),
        ({"read": ["Consent"]}, "read", "Consent is the patient's own"),
        ({"read": ["AuditEvent"]}, "read", "AuditEvent is the patient's own"),
        ({"grants": []}, "grants", "is missing"),
        ({"grants": ["password"]}, "grants", "Invalid enum value"),
        ({"grants": ["client_credentials", "refresh_token"]}, "grants", "goes with authorization_code"),
        ({"grants": ["client_credentials"], "kind": "app"}, "grants", "client_credentials are for service"),
        ({"kind": "feed", "grants": ["authorization_code"]}, "grants", "authorization_code is for app"),
        ({"authentication": "client_secret_basic", "keys": []}, "authentication", "private_key_jwt where nobody logs in"),
        ({"authentication": "none", "keys": []}, "authentication", "private_key_jwt where nobody logs in"),
        ({"keys": []}, "jwks_uri", "one of them"),
        ({"jwks_uri": "https://x.example/jwks"}, "jwks_uri", "one of them"),
        ({"jwks_uri": "http://x.example/jwks", "keys": []}, "jwks_uri", "is not an https URL"),
        ({**SECRET_APP, "keys": PUBLIC}, "jwks_uri", "are for private_key_jwt"),
        ({"keys": [EC.as_dict(private=True)]}, "keys[0]", "is a private key"),
        ({"keys": [{"kty": "oct", "k": "AA", "kid": "x"}]}, "keys[0]", "is a private key"),
        ({"keys": [{"kty": "EC", "crv": "P-256", "kid": "x"}]}, "keys[0]", "is not an RSA key of 2048 bits"),
        ({"keys": [{**PUBLIC[0], "kid": ""}]}, "keys[0]", "with a kid"),
        ({"keys": [PUBLIC[0], {**PUBLIC[1], "kid": "e1"}]}, "keys", "the same kid"),
        ({"redirect_uris": ["https://x.example"]}, "redirect_uris", "go with authorization_code"),
        ({**APP, "redirect_uris": []}, "redirect_uris", "go with authorization_code"),
        ({**APP, "origins": ["https://app.example/path"]}, "origins", "is not an origin"),
        ({"pushed": True}, "pushed", "goes with authorization_code"),
        ({"unknown": "x"}, "unknown", "is not a key here"),
    ],
)
def test_a_file_that_cannot_be_is_refused_by_key(tmp_path: Path, changes: Mapping[str, Any], key: str, said: str) -> None:
    with pytest.raises(SchemaError) as told:
        read(tmp_path, **changes)
    assert f"client.toml: {key}" in str(told.value)
    assert said in str(told.value)


@pytest.mark.parametrize(
    "uri",
    [
        "http://app.example/cb",
        "https://app.example/cb#x",
        "https://user@app.example/cb",
        "https:///cb",
        "https://app.example/c b",
        "https://app.example:port/cb",
        "javascript:alert(1)",
        "data:text/html,x",
        "app:/cb",
        "//app.example/cb",
        "/cb",
        "https://app.exämple/cb",
        "https://app.example/\\evil",
    ],
)
@pytest.mark.requirement("SEC-006")
def test_a_redirect_uri_that_could_lead_elsewhere_is_refused(tmp_path: Path, uri: str) -> None:
    for kind in (APP, PUBLIC_APP):
        with pytest.raises(SchemaError, match="redirect_uris"):
            read(tmp_path, **{**kind, "redirect_uris": [uri]})


async def test_an_entry_goes_through_its_states(world: World) -> None:
    client = (await register(world, "draft")).id
    for state, said in (("referenced", "is draft; referenced comes after tested or suspended"),):
        with pytest.raises(Problem, match=said):
            await set_state(world.gateway, client, state)
    for state in ("tested", "referenced", "suspended", "referenced"):
        await set_state(world.gateway, client, state, f"because of {state}")
    entry = await find_entry(world.gateway, client)
    assert entry is not None
    assert [(one["state"], one["note"]) for one in entry.states] == [
        ("draft", ""),
        *((state, f"because of {state}") for state in ("tested", "referenced", "suspended", "referenced")),
    ]
    with pytest.raises(Problem, match="is referenced; tested comes after draft"):
        await set_state(world.gateway, client, "tested")
    with pytest.raises(Problem, match="there is no client"):
        await set_state(world.gateway, "nobody", "suspended")


async def test_a_client_is_registered_once_and_its_actor_is_of_the_directory(world: World) -> None:
    known = await register(world)
    with pytest.raises(Problem, match="there is a client"):
        await add_client(world.gateway, known.client)
    camille = await world.patient()
    sensor = await camille.create(device(camille.patient))
    for actor in ("Organization/000-nobody", "Device/nonsense", f"Device/{sensor['id']}"):
        with pytest.raises(Problem, match="is not in the directory"):
            await register(world, actor=actor)


async def test_a_category_that_was_closed_since_is_not_referenced(world: World) -> None:
    client = (await register(world, "tested")).id
    stored = {"file": msgspec.to_builtins({**described(category="bank"), "client": client})}
    stored["file"].pop("client")
    await world.gateway.mongo.change("catalogue", {"_id": client}, {"$set": stored})
    with pytest.raises(Problem, match="no Consent can open anything to"):
        await set_state(world.gateway, client, "referenced")


@pytest.mark.parametrize("state", ["suspended", "changed"])
async def test_whoever_is_suspended_or_wants_something_else_is_refused_at_the_next_request(world: World, state: str) -> None:
    known = await register(world)
    actor = await world.actor("service", "user/*.rs", known.id, known.reference)
    other = await world.service()
    assert (await actor.get("Organization")).status_code == 200
    before = await world.calls_of(lambda: actor.get("Organization"))
    if state == "suspended":
        await set_state(world.gateway, known.id, "suspended")
    else:
        entry = await change_client(world.gateway, msgspec.structs.replace(known.client, read=["Observation", "Device"]))
        assert (entry.state, entry.edition) == ("draft", 2)
    refusal = await actor.get("Organization")
    assert (refusal.status_code, 'error="invalid_token"' in refusal.headers["www-authenticate"]) == (401, True)
    assert (await other.get("Organization")).status_code == 200
    assert await world.calls_of(lambda: other.get("Organization")) <= before


@pytest.mark.parametrize(
    "changes",
    [
        {"controller": "Others SA"},
        {"retention": {"en": "For ever."}},
        {"purpose": {"en": "To sell."}},
        {"write": ["Observation"]},
        {"category": "care"},
    ],
)
async def test_what_patients_agree_to_makes_another_edition(world: World, changes: dict[str, Any]) -> None:
    known = await register(world)
    entry = await change_client(world.gateway, msgspec.structs.replace(known.client, **changes))
    assert (entry.state, entry.edition) == ("draft", 2)


async def test_what_they_do_not_changes_nothing_for_them(world: World) -> None:
    known = await register(world)
    entry = await change_client(world.gateway, msgspec.structs.replace(known.client, contact="new@prevention.example"))
    assert (entry.state, entry.edition, entry.client.contact) == ("referenced", 1, "new@prevention.example")
    with pytest.raises(Problem, match="register another one"):
        await change_client(world.gateway, msgspec.structs.replace(known.client, authentication="client_secret_basic"))


async def test_a_secret_is_stored_as_a_hash_and_its_former_one_holds_on_as_said(world: World) -> None:
    known = await register(world, **SECRET_APP)
    assert known.secret is not None
    (stored,) = await world.stored("catalogue", _id=known.id)
    assert known.secret.removeprefix("gwcs_") not in str(stored)
    second = await rotate_secret(world.gateway, known.id, timedelta(hours=1))
    third = await rotate_secret(world.gateway, known.id, timedelta(hours=2))
    entry = await find_entry(world.gateway, known.id)
    assert entry is not None
    for after, valid in ((0, (True, True, True)), (90, (False, True, True)), (150, (False, False, True))):
        moment = world.clock() + timedelta(minutes=after)
        assert tuple(entry.has_secret(text, moment) for text in (known.secret, second, third)) == valid
    assert not entry.has_secret("gwcs_other", world.clock())
    with pytest.raises(Problem, match="has no secret"):
        await rotate_secret(world.gateway, (await register(world)).id, timedelta())


async def test_changes_at_once_do_not_undo_each_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = (await register(world, "tested")).id
    entry = await find_entry(world.gateway, client)
    await set_state(world.gateway, client, "suspended")
    assert entry is not None

    async def stale(*_: Any) -> Any:
        return entry

    monkeypatch.setattr("gateway.exchange.catalogue._require_entry", stale)
    with pytest.raises(Problem, match="was changed by somebody else"):
        await set_state(world.gateway, client, "referenced")
    assert [e.state for e in await list_entries(world.gateway) if e.client.client == client] == ["suspended"]


async def test_the_commands_say_what_they_did(world: World, tmp_path: Path) -> None:
    settings = world.gateway.settings
    env = environment(settings.mongo_url, GATEWAY_MONGO_DATABASE=settings.mongo_database)
    clinic = await world.operator.create(organization())
    client, actor = unique("cli"), f"Organization/{clinic['id']}"
    file = write_file(tmp_path, client=client, actor=actor, **SECRET_APP)
    ended = run("apps", "add", str(file), env=env)
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, f"{client} is a draft")
    assert ended.stdout.splitlines()[1].startswith("secret: gwcs_")
    assert refused(run("apps", "add", str(file), env=env)) == f"there is a client '{client}' already"
    assert run("apps", "tested", client, "--note", "report 12", env=env).stdout == f"{client} is tested\n"
    assert run("apps", "reference", client, "--operator", "ana", env=env).stdout == f"{client} is referenced\n"
    assert f"{client}  referenced  app  Prevention service" in run("apps", "list", env=env).stdout.splitlines()
    assert run("apps", "rotate-secret", client, env=env).stdout.startswith("gwcs_")
    assert run("apps", "suspend", client, env=env).stdout == f"{client} is suspended\n"
    shown = msgspec.json.decode(run("apps", "show", client, env=env).stdout)
    assert (shown["state"], shown["edition"], shown["secrets"]) == ("suspended", 1, 1)
    assert shown["states"][1]["note"] == "report 12"
    write_file(tmp_path, client=client, actor=actor, controller="Others SA", **SECRET_APP)
    assert run("apps", "change", str(file), env=env).stdout == f"{client} is draft, edition 2\n"
    assert refused(run("apps", "show", "nobody", env=env)) == "there is no client 'nobody'"
    write_file(tmp_path, client=client, actor=actor, **{**SECRET_APP, "category": "bank"})
    assert "category: is one that no Consent can open anything to" in refused(run("apps", "add", str(file), env=env))
    assert len(run("keys", "rotate", env=env).stdout.strip()) == 43
    said = [(one["source"], one["event"]["reason"]) for one in await events_of(world, client)]
    user = getpass.getuser()
    assert said == [
        (user, f"{client}: draft, edition 1"),
        (user, f"{client}: tested, edition 1"),
        ("ana", f"{client}: referenced, edition 1"),
        (user, f"{client}: another secret"),
        (user, f"{client}: suspended, edition 1"),
        (user, f"{client}: described anew; draft, edition 2"),
    ]
    sealed, broken = await find_broken_link(world.gateway.mongo, world.clock())
    assert (sealed >= len(said), broken) == (True, None)


async def events_of(world: World, client: str) -> list[dict[str, Any]]:
    """What the audit says of an entry of the catalogue, the oldest first."""
    found = await world.stored("AuditEvent", **{"event.interaction": "catalogue"})
    return sorted((e for e in found if e["event"]["reason"].startswith(f"{client}: ")), key=lambda e: e["updated"])


@pytest.mark.requirement("AUD-001")
async def test_each_change_leaves_an_event_that_names_who_made_it(world: World) -> None:
    client = (await register(world, "draft")).id
    await set_state(world.gateway, client, "tested", "secret of the operator", "ana")
    with pytest.raises(Problem):
        await add_client(world.gateway, await find_known(world, client), "ana")
    added, tested = await events_of(world, client)
    shown = render_event(tested, "https://gateway.example/fhir")
    world.gateway.codec.load("AuditEvent", msgspec.json.encode(shown))
    assert shown["subtype"][0]["code"] == "110129"
    assert shown["agent"][0]["who"]["identifier"]["value"] == "ana"
    assert shown["outcomeDesc"] == f"{client}: tested, edition 1"
    assert "secret of the operator" not in str(shown)
    assert added["source"] == "operator"


async def find_known(world: World, client: str) -> Client:
    entry = await find_entry(world.gateway, client)
    assert entry is not None
    return entry.client


@pytest.mark.requirement("AUD-002")
async def test_what_cannot_be_audited_is_not_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = (await register(world, "tested")).id

    def full(*_: Any) -> Any:
        raise Problem("transient", "the access cannot be recorded, so it is not given")

    monkeypatch.setattr(world.gateway.audit, "documents", full)
    with pytest.raises(Problem, match="cannot be recorded"):
        await set_state(world.gateway, client, "referenced")
    entry = await find_entry(world.gateway, client)
    assert entry is not None
    assert entry.state == "tested"


def test_the_packaged_policy_closes_these_to_everybody() -> None:
    schemas: Schemas = packaged()
    assert {"complementary-insurer", "employer", "bank"} <= schemas.policy.never_recipients
    assert not schemas.policy.never_recipients & schemas.policy.recipients


async def test_a_category_that_is_closed_takes_effect_with_the_policy(world: World) -> None:
    known = await register(world)
    assert (await ask_token(world, known.id)).status_code == 200
    await world.gateway.mongo.change("catalogue", {"_id": known.id}, {"$set": {"file.category": "employer"}})
    assert error_of(await ask_token(world, known.id)) == (400, "invalid_client")


async def test_consents_to_a_former_edition_permit_nothing_and_still_deny(world: World) -> None:
    known = await register(world, read=["Observation", "Device"], write=["Observation"])
    camille = await world.patient()
    sensor = await camille.create(device(camille.patient))
    mine = await camille.create(observation(camille.patient, device={"reference": f"Device/{sensor['id']}"}))
    service = await world.service()
    service.reference = known.reference

    async def seen() -> list[str]:
        service.token = (await ask_token(world, known.id, "system/*.crs")).json()["access_token"]
        found = [await service.search(f"{name}?patient={camille.patient}") for name in ("Observation", "Device")]
        return [one["id"] for resources in found for one in resources if "patient" in one or "subject" in one]

    given = await world.consent(camille, service, types=["Observation", "Device"])
    assert await seen() == [mine["id"], sensor["id"]]
    await change_client(world.gateway, msgspec.structs.replace(known.client, purpose={"en": "Something else."}))
    for state in ("tested", "referenced"):
        await set_state(world.gateway, known.id, state)
    assert await seen() == []
    refused = await service.post("Observation", observation(camille.patient))
    assert (refused.status_code, issues(refused)[0]["diagnostics"]) == (
        403,
        "this service wants something else than what the patient agreed to: it is to ask again",
    )
    denial = consent(camille, service, types=["Device"], type="deny")
    denied = await camille.create(denial)
    assert (await camille.put(f"Consent/{given['id']}", given)).status_code == 200  # asked again, and agreed
    assert await seen() == [mine["id"]]
    assert (await camille.put(f"Consent/{denied['id']}", {**denied, "status": "inactive"})).status_code == 200
    assert await seen() == [mine["id"], sensor["id"]]
    # a denial of before counts on
    await camille.create(consent(camille, service, types=["Device"], type="deny"))
    await change_client(world.gateway, msgspec.structs.replace(known.client, controller="Others SA"))
    for state in ("tested", "referenced"):
        await set_state(world.gateway, known.id, state)
    await world.consent(camille, service, types=["Observation", "Device"])
    assert await seen() == [mine["id"]]
