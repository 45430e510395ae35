"""The files of issuers are read strictly: whatever would let a token mean something else is said by file and key."""

import re
import shutil
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.fhir.registry import Registry
from gateway.schemas import SchemaError, find_schemas
from tests.issuing import INTROSPECTED, ISSUER, KEYS, SIGNED, read, write_issuers
from tests.world import BASE

USER = 'user = {claim = "fhirUser", type = "Practitioner"}'
KIND = f'kind = "professional"\n{USER}'


def test_the_examples_are_sound(registry: Registry, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_schemas() / "issuers", tmp_path / "issuers"))
    (folder / "pro-sante-connect.secret").write_text("s")
    issuers = {issuer.name: issuer for issuer in read(registry, folder)}
    assert issuers.keys() == {"keycloak", "pro-sante-connect", "smart-app-launch"}
    assert issuers["smart-app-launch"].audience == BASE
    assert issuers["pro-sante-connect"].audience is None
    assert [rule.kind for rule in issuers["keycloak"].rules] == ["app", "professional", "service"]


def test_without_a_folder_there_are_none(registry: Registry, tmp_path: Path) -> None:
    assert read(registry, None) == []  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="holds no file of an issuer"):
        read(registry, tmp_path)


@pytest.mark.requirement("SEC-041", "SEC-042", "SEC-045")
@pytest.mark.parametrize(
    ("text", "sound", "mistake", "said"),
    [
        (SIGNED, f'issuer = "{ISSUER}"', "", "issuer: is missing"),
        (SIGNED, f'issuer = "{ISSUER}"', 'issuer = "id.example"', "issuer: is not an https URL"),
        (SIGNED, f'issuer = "{ISSUER}"', 'issuer = "http://id.example"', "issuer: is not an https URL"),
        (SIGNED, KEYS, "http://id.example/jwks", r"jwt\.keys: is not an https URL"),
        (SIGNED, KEYS, "http://127.0.0.1/jwks", r"jwt\.keys: is not an https URL"),
        (SIGNED, KEYS, "https://169.254.169.254/jwks", r"jwt\.keys: is not an https URL"),
        (SIGNED, KEYS, "https://10.0.0.1/jwks", r"jwt\.keys: is not an https URL"),
        (SIGNED, KEYS, "https://u:p@id.example/jwks", r"jwt\.keys: is not an https URL"),
        (SIGNED, KEYS, "https://id.example:0/jwks", r"jwt\.keys: is not an https URL"),
        (SIGNED, KEYS, "file:///etc/passwd", r"jwt\.keys: is not an https URL"),
        (SIGNED, "[jwt]", '[jwt]\nalgorithms = ["HS256"]', r"jwt\.algorithms\[0\]: Invalid enum value 'HS256'"),
        (SIGNED, "[jwt]", '[jwt]\nalgorithms = ["none"]', r"jwt\.algorithms\[0\]: Invalid enum value 'none'"),
        (SIGNED, "[jwt]", "[jwt]\nalgorithms = []", r"jwt\.algorithms: "),
        (SIGNED, "[jwt]", '[jwt]\ntypes = ["JWT"]', r"require\.typ: is missing"),
        (SIGNED, "[jwt]", '[jwt]\ntypes = ["at+jwt", "jwt"]', r"require\.typ: is missing"),
        (SIGNED, "[jwt]", "[jwt]\nrefetch_seconds = 0", r"jwt\.refetch_seconds: Expected `int` >= 1"),
        (SIGNED, "[jwt]", "[jwt]\ncache = 1", r"jwt\.cache: is not a key here"),
        (SIGNED, "[jwt]", "skew_seconds = 61\n[jwt]", "skew_seconds: Expected `int` <= 60"),
        (SIGNED, "[jwt]", 'audience = "any"\n[jwt]', "audience: 'any' goes with"),
        (SIGNED, "[jwt]", "[jwtt]", "jwtt?: is not a key here"),
        (SIGNED, f'[jwt]\nkeys = "{KEYS}"', "", "jwt: an issuer has either"),
        (SIGNED, "smart = true", '[scopes.become]\nx = ["user/Foo.rs"]', r"scopes\.become\.x: 'user/Foo\.rs' is not a scope"),
        (SIGNED, "smart = true", "[scopes.become]\nx = []", r"scopes\.become\[\.\.\.\]: "),
        (SIGNED, "[[caller]]", '[[caller]]\nscopes = ["user/*"]', r"caller\[0\]\.scopes: 'user/\*' is not a scope"),
        (SIGNED, "[[caller]]", "[[callers]]", "callers?: is "),
        (SIGNED, '"professional"', '"care_team"', r"caller\[0\]\.kind: who is of a care team"),
        (SIGNED, '"professional"', '"root"', r"caller\[0\]\.kind: Invalid enum value"),
        (SIGNED, '"professional"', '"patient"', r"caller\[0\]\.user\.type: a patient has Patient here"),
        (SIGNED, KIND, f'kind = "operator"\nwhen = {{azp = ["x"]}}\n{USER}',
         r"caller\[0\]\.user\.type: a operator has none here"),
        (SIGNED, KIND, 'kind = "operator"', r"caller\[0\]\.when: is missing: every bearer"),
        (SIGNED, KIND, 'kind = "feed"\nwhen = {}', r"caller\[0\]\.when: is missing: every bearer"),
        (SIGNED, USER, "", r"caller\[0\]\.user: is missing"),
        (SIGNED, KIND, 'kind = "patient"\nactors = ["Patient/abc-x"]', r"caller\[0\]\.user: is missing"),
        (SIGNED, KIND, 'kind = "patient"\nuser = {claim = "a", type = "Patient"}\npatient = {claim = "b", type = "Patient"}',
         r"caller\[0\]\.patient: is who the user is"),
        (SIGNED, KIND, 'kind = "proxy"\nuser = {claim = "a", type = "RelatedPerson"}', r"caller\[0\]\.patient: is missing"),
        (SIGNED, USER, f'{USER}\npatient = {{claim = "p", type = "Device"}}', r"caller\[0\]\.patient\.type: "),
        (SIGNED, KIND, 'kind = "app"\nuser = {claim = "a", type = "Device", system = "urn:x"}',
         r"caller\[0\]\.user\.system: not only directories write Device"),
        (SIGNED, USER, f'{USER}\nactors = ["glucoapp"]', r"caller\[0\]\.actors: is not a list of references"),
        (SIGNED, USER, f'{USER}\nsoftware = ["Gadget/abc-x"]', r"caller\[0\]\.software: is not a list of references"),
        (SIGNED, USER, f"{USER}\nwhen = {{azp = []}}", r"caller\[0\]\.when\[\.\.\.\]: "),
        (INTROSPECTED, '"secret"', '"nowhere"', r"introspection\.secret_file: there is no secret"),
        (INTROSPECTED, '"secret"', '"."', r"introspection\.secret_file: there is no secret"),
        (INTROSPECTED, "prefix", "cache_seconds = 11\nprefix", r"introspection\.cache_seconds: Expected `int` <= 10"),
        (INTROSPECTED, '"op_"', '"op "', r"introspection\.prefix: is no beginning"),
        (INTROSPECTED, f"{ISSUER}/introspect", "http://id.example/i", r"introspection\.endpoint: is not an https URL"),
        (INTROSPECTED, "[introspection]", 'audience = "any"\n[introspection]', "audience: 'any' goes with"),
        (INTROSPECTED, "[introspection]", f'[jwt]\nkeys = "{KEYS}"\n[introspection]', "jwt: an issuer has either"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(registry: Registry, tmp_path: Path, text: str, sound: str, mistake: str, said: str) -> None:
    assert text.count(sound) == 1
    folder = write_issuers(tmp_path, clinic=text.replace(sound, mistake))
    with pytest.raises(SchemaError) as refused:
        read(registry, folder)
    assert re.match(re.escape(f"{folder / 'clinic.toml'}: ") + said, str(refused.value)), str(refused.value)
    assert "s:cret" not in str(refused.value)


@pytest.mark.requirement("SEC-041")
def test_two_issuers_are_told_apart(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"other\.toml: issuer: is that of clinic too"):
        read(registry, write_issuers(tmp_path, clinic=SIGNED, other=SIGNED))
    other = INTROSPECTED.replace("id.example", "other.example")
    for prefix in ("op_", "op", "op_x", ""):
        folder = write_issuers(tmp_path, clinic=INTROSPECTED, other=other.replace('"op_"', f'"{prefix}"'))
        with pytest.raises(SchemaError, match=r"other\.toml: introspection\.prefix: cannot be told from that of clinic"):
            read(registry, folder)
    folder = write_issuers(tmp_path, clinic=INTROSPECTED, other=other.replace('"op_"', '"ot_"'))
    assert [issuer.name for issuer in read(registry, folder)] == ["clinic", "other"]


def test_a_name_is_one_that_clients_can_be_called_by(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "My Issuer.toml").write_text(SIGNED)
    with pytest.raises(SchemaError, match="its name is not of small letters"):
        read(registry, tmp_path)


def test_plain_http_stays_on_this_machine_and_is_asked_for(registry: Registry, tmp_path: Path) -> None:
    local = SIGNED.replace("https://id.example", "http://127.0.0.1:9000")
    with pytest.raises(SchemaError, match="issuer: is not an https URL"):
        read(registry, write_issuers(tmp_path, clinic=local))
    assert read(registry, tmp_path, (ip_network("127.0.0.0/8"),))[0].url == "http://127.0.0.1:9000/jwks"
    for elsewhere in ("http://10.0.0.1", "http://localhost", "http://id.example"):
        write_issuers(tmp_path, clinic=SIGNED.replace("https://id.example", elsewhere))
        with pytest.raises(SchemaError, match="issuer: is not an https URL"):
            read(registry, tmp_path, (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")))
