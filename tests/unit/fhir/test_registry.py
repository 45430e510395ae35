"""The registry: what follows from a type's file, and that every kind of mistake in one stops the start by file and key."""

import re
from pathlib import Path

import pytest

from gateway.fhir.bindings import check_bindings
from gateway.fhir.clause import FIELDS, every
from gateway.fhir.clause import Test as Comparison  # (pytest would take a class called Test for tests)
from gateway.fhir.registry import Registry
from gateway.fhir.registry_reading import read_registry
from gateway.fhir.types import Types
from gateway.schemas import SchemaError
from gateway.store.order import Key, Order, choose_index

PATIENT = """
type = "Patient"
group = "identity"
interactions = ["read"]
patient = "id"
indexes = [["-_lastUpdated"]]
"""

# A sound file: each test below puts one mistake into it.
SOUND = """
type = "Observation"
group = "clinical"
interactions = ["read", "create", "search-type"]
patient = "subject"
sort = ["date", "_lastUpdated"]
unique = ["identifier"]
indexes = [["patient", "code", "-date"], ["patient", "-date"], ["patient", "-_lastUpdated"]]
profiles = ["reading"]
labels = []
scope_parameters = ["code"]

[consent]
code = "code"
date = "date"

[search.code]
type = "token"
path = "code"

[search.date]
type = "date"
path = "effective"

[search.identifier]
type = "token"
path = "identifier"

[search.component-code]
type = "token"
path = "component.code"

[search.combo-code]
type = "token"
any_of = ["code", "component-code"]

[search.component-value-quantity]
type = "quantity"
path = "component.value.ofType(Quantity)"

[search.component-code-value-quantity]
type = "composite"
path = "component"
of = ["component-code", "component-value-quantity"]

[search.value-quantity]
type = "quantity"
path = "value.ofType(Quantity)"
"""
PROFILE = 'url = "urn:reading"\ntype = "Observation"\nsource = "test"\nrule = []\n'


@pytest.fixture(scope="session")
def types(registry: Registry) -> Types:
    return registry.types


def written(folder: Path, text: str = SOUND, name: str = "Observation") -> Path:
    (folder / "resources").mkdir()
    (folder / "profiles").mkdir()
    (folder / "resources" / "Patient.toml").write_text(PATIENT)
    (folder / "resources" / f"{name}.toml").write_text(text)
    (folder / "profiles" / "reading.toml").write_text(PROFILE)
    return folder


def test_a_sound_file_is_read(tmp_path: Path, types: Types) -> None:
    kind = read_registry(written(tmp_path), types)["Observation"]
    assert (kind.name, kind.patient_path, kind.patient_required, kind.in_compartment) == ("Observation", "subject", True, True)
    assert kind.profiles == ("urn:reading",)
    assert kind.search["combo-code"].any_of == ("code", "component-code")
    assert {branch.type for branch, _ in kind.search["date"].readers} == {"dateTime", "Period", "Timing", "instant"}


PAIR = "search.component-code-value-quantity"
MISTAKES = [
    # what the file says, what it is made to say, the key that is named, what is said about it
    ('type = "Observation"', "", "type", "missing"),
    ('type = "Observation"', 'type = "Observatoin"', "type", "does not match the file's name"),
    ('type = "Observation"', "type = 7", "type", "Expected `str`"),
    ('group = "clinical"', 'group = "medical"', "group", "Invalid enum value"),
    ('"read", "create"', '"read", "creat"', "interactions[1]", "Invalid enum value"),
    ('patient = "subject"', "", "patient", "missing"),
    ('patient = "subject"', 'patient = "subjekt"', "patient", "no element 'subjekt'"),
    ('patient = "subject"', 'patient = "status"', "patient", "no reference to a Patient"),
    ('patient = "subject"', 'patient = "device"', "patient", "no reference to a Patient"),
    ('patient = "subject"', 'patient = "id"', "patient", "for Patient alone"),
    ('sort = ["date"', 'sort = ["dat"', "sort", "'dat' is not"),
    ('sort = ["date"', 'sort = ["code"', "sort", "'code' is not a date parameter"),
    ('unique = ["identifier"]', 'unique = ["identifer"]', "unique", "'identifer' is not"),
    ('unique = ["identifier"]', 'unique = ["date"]', "unique", "'date' is not a token"),
    ('unique = ["identifier"]', 'unique = ["combo-code"]', "unique", "'combo-code' is not"),
    ('unique = ["identifier"]', 'unique = ["_id"]', "unique", "'_id' is not"),
    ('"code", "-date"]', '"code", "identifier"]', "indexes", "code and identifier are both lists"),
    ('"code", "-date"]', '"code", "_security"]', "indexes", "code and _security are both lists"),
    ('"code", "-date"]', '"cod"]', "indexes", "'cod' cannot"),
    ('"code", "-date"]', '"--date"]', "indexes", "'--date' cannot"),
    ('"code", "-date"]', '"value-quantity"]', "indexes", "'value-quantity' cannot"),
    ('"code", "-date"]', '"combo-code"]', "indexes", "'combo-code' cannot"),
    ('["patient", "code", "-date"]', '["patient", "-date"]', "indexes", "declared twice"),
    ('["patient", "code", "-date"]', "[]", "indexes", "empty"),
    ('["patient", "code", "-date"]', '"patient"', "indexes[0]", "Expected `array`"),
    (', ["patient", "-date"]', "", "indexes", r"sorting by 'date' needs the index \['patient', '-date'\]"),
    (', ["patient", "-_lastUpdated"]', "", "indexes", "sorting by '_lastUpdated' needs the index"),
    ('["patient", "-date"]', '["patient", "date"]', "indexes", "sorting by 'date' needs the index"),
    ('"read", "create"', '"read", "history-type", "create"', "indexes", "a history of the type needs the index"),
    ('profiles = ["reading"]', 'profiles = ["readings"]', "profiles", "there is no profiles/readings.toml"),
    ("labels = []", 'labels = ["status"]', "labels", "a label cannot be read from code"),
    ("labels = []", 'labels = ["nothing"]', "labels", "no element 'nothing'"),
    ('scope_parameters = ["code"]', 'scope_parameters = ["cod"]', "scope_parameters", "'cod' is not"),
    ('[consent]\ncode = "code"', '[consent]\ncode = "date"', "consent.code", "'date' is not a token"),
    ('date = "date"', 'date = "code"', "consent.date", "'code' is not a date"),
    ('date = "date"', 'day = "date"', "consent.day", "is not a key here"),
    ('scope_parameters = ["code"]', 'scopes = ["code"]', "scopes", "is not a key here"),
    ('[search.code]\ntype = "token"', '[search.code]\ntype = "tokn"', "search.code.type", "Invalid enum value"),
    (
        '[search.code]\ntype = "token"',
        '[search.code]\ntype = "token"\nmodifier = "not"',
        "search.code.modifier",
        "is not a key here",
    ),
    ('[search.code]\ntype = "token"\npath = "code"', '[search.code]\ntype = "token"', "search.code", "neither path nor any_of"),
    ('[search.code]\ntype = "token"\npath = "code"', '[search.code]\ntype = "token"\npath = []', "search.code", "neither path"),
    ('path = "effective"', 'path = "effectiv"', "search.date.path", "no element 'effectiv'"),
    ('path = "effective"', 'path = "effective.exists()"', "search.date.path", "not a path of this language"),
    ('path = "effective"', 'path = "status"', "search.date.path", "a date parameter cannot be read from code"),
    ('path = "value.ofType(Quantity)"', 'path = "value"', "search.value-quantity.path", "cannot be read from CodeableConcept"),
    ('of = ["component-code", "component-value-quantity"]', 'of = ["component-code"]', f"{PAIR}.of", "two parameters"),
    ('of = ["component-code", "component-value-quantity"]', 'of = ["component-code", "x"]', f"{PAIR}.of", "two parameters"),
    ('of = ["component-code", "component-value-quantity"]', 'of = ["component-code", "combo-code"]', f"{PAIR}.of", "a path"),
    (
        'of = ["component-code", "component-value-quantity"]',
        'of = ["code", "component-code"]',
        f"{PAIR}.of",
        "does not hold all",
    ),
    ('type = "composite"', 'type = "token"', f"{PAIR}.of", "makes a composite"),
    ('path = "component"\n', 'path = "components"\n', f"{PAIR}.path", "no element 'components'"),
    ('path = "component"\n', 'path = ["component"]\n', f"{PAIR}.path", "is one path"),
    ('path = "component"\n', 'path = "value"\n', f"{PAIR}.of", "does not hold all"),
    (
        'path = "effective"',
        'path = "effective"\nmodifiers = ["text"]',
        "search.date.modifiers",
        "'text' has nothing to look at",
    ),
    ('path = "code"', 'path = "code"\nmodifiers = ["of-type"]', "search.code.modifiers", "'of-type' has nothing to look at"),
    ('path = "code"', 'path = "code"\nmodifiers = ["in"]', "search.code.modifiers[0]", "Invalid enum value"),
    ('any_of = ["code", "component-code"]', 'any_of = ["code", "cod"]', "search.combo-code.any_of", "of this type alone"),
    ('any_of = ["code", "component-code"]', 'any_of = ["code", "date"]', "search.combo-code.any_of", "of this type alone"),
    ('any_of = ["code", "component-code"]', 'any_of = ["combo-code"]', "search.combo-code.any_of", "of this type alone"),
    ('any_of = ["code"', 'path = "code"\nany_of = ["code"', "search.combo-code.any_of", "of this type alone"),
    ("[search.value-quantity]", '[search."$where"]', "search.$where", "is not a name"),
    ("[search.value-quantity]", '[search."code.text"]', "search.code.text", "is not a name"),
    ("[search.value-quantity]", "[search._id]", "search._id", "is not a name"),
    (
        '[search.value-quantity]\ntype = "quantity"\npath = "value.ofType(Quantity)"',
        '[search.patient]\ntype = "reference"\npath = "device"',
        "search.patient.path",
        "not the type's own patient",
    ),
    (
        'path = "value.ofType(Quantity)"',
        'path = "value.ofType(Quantity)"\ncontained = ["code"]',
        "search.value-quantity.contained",
        "'code' is no token or string parameter of what it leads to",
    ),
    (
        'path = "value.ofType(Quantity)"',
        'path = "value.ofType(Quantity)"\nthrough = ["practitioner"]',
        "search.value-quantity.through",
        "'practitioner' is no reference parameter of what it leads to",
    ),
    ('path = "identifier"', 'path = "identifier"\naliases = ["code"]', "search.identifier.aliases", "the name of another"),
    ('path = "identifier"', 'path = "identifier"\naliases = ["a b"]', "search.identifier.aliases", "or none"),
    ('path = "effective"', 'path = "effective"\nabsent = "2026"', "search.date.absent", "a token alone"),
    ('patient = "subject"', 'patient = "subject"\nrequires = ["colour"]', "requires", "'colour' is not a parameter"),
    ('patient = "subject"', 'patient = "subject"\nwithheld = ["code"]', "withheld", "'code' is no plain path to References"),
    ('patient = "subject"', 'patient = "subject"\nwithheld = ["derivedFrom.first()"]', "withheld", "no plain path"),
    ("[search.code]", "[search.code", "", "TOML|Expected|Unclosed|at line"),
]


@pytest.mark.parametrize(("sound", "mistake", "key", "why"), MISTAKES, ids=[f"{n}-{m[2]}" for n, m in enumerate(MISTAKES)])
def test_a_mistake_stops_the_start_by_file_and_key(
    tmp_path: Path, types: Types, sound: str, mistake: str, key: str, why: str
) -> None:
    assert SOUND.count(sound) >= 1
    with pytest.raises(SchemaError) as refused:
        read_registry(written(tmp_path, SOUND.replace(sound, mistake, 1)), types)
    file, _, said = str(refused.value).partition(": ")
    assert file == str(tmp_path / "resources" / "Observation.toml")
    assert said.startswith(f"{key}: " if key else ""), said
    assert re.search(why, said), said


def test_a_file_for_something_that_is_no_resource_type(tmp_path: Path, types: Types) -> None:
    text = SOUND.replace('type = "Observation"', 'type = "Reading"', 1)
    with pytest.raises(SchemaError, match=r"Reading\.toml: type: 'Reading' is not an R4 resource type"):
        read_registry(written(tmp_path, text, "Reading"), types)


def test_a_profile_of_another_type(tmp_path: Path, types: Types) -> None:
    folder = written(tmp_path)
    (folder / "resources" / "Patient.toml").write_text(f'{PATIENT}profiles = ["reading"]')
    with pytest.raises(SchemaError, match=r"Patient\.toml: profiles: 'reading' is a profile of Observation"):
        read_registry(folder, types)


def test_there_is_no_registry_without_patients(tmp_path: Path, types: Types) -> None:
    folder = written(tmp_path)
    (folder / "resources" / "Patient.toml").unlink()
    with pytest.raises(SchemaError, match=r"resources: there is no Patient\.toml"):
        read_registry(folder, types)


@pytest.mark.parametrize(
    "path",
    [
        "Patient.gendre",
        "Pateint.gender",
        "Patient.name",
        "Patient",
        "Patient.contact.nothing",
        "Patient..gender",
        "",
        "Patient.active",
    ],
)
def test_a_binding_that_binds_nothing_stops_the_start(types: Types, path: str) -> None:
    check_bindings(Path("schemas"), types, {"Patient.gender": ["x"], "Patient.contact.gender": ["x"]})
    with pytest.raises(SchemaError) as refused:
        check_bindings(Path("schemas"), types, {path: ["x"]})
    assert str(refused.value) == f"schemas/gateway.toml: bindings.{path}: is no element that takes a code"


# The packaged files.


def test_every_record_is_searched_by_patient_and_every_directory_by_identifier(registry: Registry) -> None:
    for kind in registry.resource_types.values():
        first = {index[0] for index in kind.indexes}
        if kind.is_raw:
            assert "search-type" not in kind.interactions
        elif kind.patient:
            assert "patient" in first, kind.name
        else:
            assert "identifier" in first, kind.name
        if kind.patient and not kind.patient_required:
            assert "identifier" in first, kind.name  # they are also looked for without a patient


def test_every_search_of_a_record_has_an_index(registry: Registry) -> None:
    """Whatever else is asked: the patient bounds it, in each order there is."""
    for kind in registry.resource_types.values():
        for name in kind.sort if kind.patient and not kind.is_raw else ():
            order = Order((Key(name, descending=True),))
            chosen = choose_index(kind, Comparison("patient", "is", "abc-1"), order)
            assert chosen == f"patient,-{name}", (kind.name, name)
            for parameter in kind.search.values():
                clause = every(Comparison("patient", "is", "abc-1"), Comparison(parameter.name, "is", "x"))
                assert (choose_index(kind, clause, order) or "").startswith("patient"), (kind.name, name, parameter.name)


def test_what_is_looked_for_without_a_patient_has_an_index_by_identifier(registry: Registry) -> None:
    for name in ("Patient", "Practitioner", "PractitionerRole", "Organization", "Device", "RelatedPerson"):
        kind = registry[name]
        assert (
            choose_index(kind, Comparison("identifier", "is", "x"), Order((Key("_lastUpdated", descending=True),)))
            == "identifier"
        )


def test_identities_and_sensors_are_unique_by_identifier(registry: Registry) -> None:
    unique = {kind.name for kind in registry.resource_types.values() if kind.unique}
    assert unique >= {"Patient", "Practitioner", "PractitionerRole", "Organization", "Device", "Observation"}


def test_what_a_consent_speaks_of_can_be_compared(registry: Registry) -> None:
    """A Consent's codes and data period are only honoured for types that say where these stand."""
    for kind in registry.resource_types.values():
        if kind.group == "clinical" and not kind.is_raw:  # (content is read through what attaches it)
            assert None not in (kind.consent_code, kind.consent_date), kind.name


def test_references_to_anything_are_to_everything_that_is_served(registry: Registry) -> None:
    assert registry["List"].search["item"].targets == tuple(sorted(registry.resource_types))


def test_no_parameter_hides_one_that_all_types_have(registry: Registry) -> None:
    for kind in registry.resource_types.values():
        declared = {p.name for p in kind.search.values() if p.field is None}
        assert not declared & set(FIELDS), kind.name
