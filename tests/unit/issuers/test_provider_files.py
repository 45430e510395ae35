"""The files of OpenID providers are read strictly: whatever would let somebody in as somebody else is said by file and key."""

import shutil
from pathlib import Path

import pytest

from gateway.fhir.registry import Registry
from gateway.issuers.providers import read_providers
from gateway.schemas import SchemaError, find_schemas
from tests.issuing import ISSUER, KEYS, write_issuers
from tests.unit.issuers.test_openid import PROVIDER, read
from tests.world import BASE

PERSON = 'kind = "patient"\nuser = {claim = "sub", type = "Patient"}'


def test_the_examples_are_sound(registry: Registry, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_schemas() / "providers", tmp_path / "providers"))
    for name in ("keycloak", "pro-sante-connect"):
        (folder / f"{name}.secret").write_text("s")
    found = {provider.name: provider for provider in read_providers(folder, registry, (), BASE, ("en", "fr"))}
    assert found.keys() == {"keycloak", "pro-sante-connect"}
    assert (found["keycloak"].title("fr"), found["keycloak"].title("en")) == ("le compte régional", "the region's account")
    assert (found["pro-sante-connect"].acr, found["pro-sante-connect"].scopes) == (["eidas1"], ["openid", "scope_all"])


def test_without_a_folder_there_are_none(registry: Registry, tmp_path: Path) -> None:
    assert read_providers(None, registry, (), BASE, ("en",)) == []
    with pytest.raises(SchemaError, match="holds no file of a provider"):
        read_providers(tmp_path, registry, (), BASE, ("en",))


@pytest.mark.parametrize(
    ("sound", "mistake", "said"),
    [
        (f'issuer = "{ISSUER}"', "", "issuer: is missing"),
        (f'issuer = "{ISSUER}"', 'issuer = "http://id.example"', "issuer: is not an https URL"),
        (f"{ISSUER}/authorize", "http://id.example/a", r"endpoints\.authorization: is not an https URL"),
        (f"{ISSUER}/token", "https://10.0.0.1/token", r"endpoints\.token: is not an https URL"),
        (f"{ISSUER}/userinfo", "https://u:p@id.example/", r"endpoints\.userinfo: is not an https URL"),
        (KEYS, "https://169.254.169.254/", r"id_token\.keys: is not an https URL"),
        ("[endpoints]", '[endpoints]\nend_session = "javascript:alert(1)"', r"endpoints\.end_session: is not an https URL"),
        ("[endpoints]", '[endpoints]\nregistration = "x"', r"endpoints\.registration: is not a key here"),
        ("[id_token]", '[id_token]\nalgorithms = ["HS256"]', r"id_token\.algorithms\[0\]: Invalid enum value 'HS256'"),
        ("[id_token]", "[id_token]\nlifetime_seconds = 1", r"id_token\.lifetime_seconds: is not a key here"),
        ("[require]", 'scopes = ["profile"]\n[require]', "scopes: openid is not among them"),
        ("[require]", 'authentication = "none"\n[require]', "authentication: Invalid enum value"),
        ("[require]", "skew_seconds = 61\n[require]", "skew_seconds: "),
        ('name = "Portal"', 'name = {en = "Portal"}', r"name\.fr: is missing"),
        ('name = "Portal"', "name = {}", "name: "),
        ('secret_file = "secret"', 'secret_file = "nothing"', "secret_file: there is no secret"),
        (PERSON, 'kind = "patient"', r"person\[0\]\.user: is missing"),
        (PERSON, PERSON.replace('"Patient"', '"Practitioner"'), r"person\[0\]\.user\.type: a patient has Patient here"),
        (PERSON, PERSON.replace('"patient"', '"app"'), r"person\[0\]\.kind: Invalid enum value 'app'"),
        (
            PERSON,
            'kind = "professional"\nuser = {claim = "sub", type = "PractitionerRole"}',
            r"person\[0\]\.user\.type: a professional has Practitioner here",
        ),
        (
            PERSON,
            f'{PERSON}\norganization = {{claim = "o", type = "Organization"}}',
            r"person\[0\]\.organization: and role are those of professionals",
        ),
        (
            PERSON,
            'kind = "professional"\nuser = {claim = "sub", type = "Practitioner"}\nrole = {claim = "r"}',
            r"person\[0\]\.role: is a role at an organization",
        ),
        (
            PERSON,
            'kind = "professional"\nuser = {claim = "s", type = "Practitioner"}\norganization = {claim = "o", type = "Device"}',
            r"person\[0\]\.organization\.type: a professional has Organization here",
        ),
        (PERSON, 'kind = "operator"', r"person\[0\]\.when: is missing"),
        (
            PERSON,
            f'{PERSON.replace("patient", "operator")}\nwhen = {{r = ["ops"]}}',
            r"person\[0\]\.user: an operator is nobody",
        ),
    ],
)
def test_what_is_wrong_is_named(registry: Registry, tmp_path: Path, sound: str, mistake: str, said: str) -> None:
    assert sound in PROVIDER
    with pytest.raises(SchemaError, match=said):
        read(registry, tmp_path, PROVIDER.replace(sound, mistake))


def test_an_operator_shows_more_than_a_password(registry: Registry, tmp_path: Path) -> None:
    text = PROVIDER.replace(PERSON, 'kind = "operator"\nwhen = {roles = ["ops"]}')
    assert read(registry, tmp_path, text)[0].people[0].kind == "operator"
    with pytest.raises(SchemaError, match="acr: is missing: an operator"):
        read(registry, tmp_path, text.replace('acr = ["eidas1", "eidas2"]\n', ""))


def test_one_provider_has_one_file(registry: Registry, tmp_path: Path) -> None:
    folder = write_issuers(tmp_path, one=PROVIDER, two=PROVIDER)
    with pytest.raises(SchemaError, match=r"two\.toml: issuer: is that of one too"):
        read_providers(folder, registry, (), BASE, ("en",))
