"""The face for measures of Mon espace santé: what a paired app sends and reads.

Knows: API Mesures 1.5.2, the only public text of it, and the French profiles of measures. Must not know: whose server it is.
"""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from filelock import FileLock

from gateway.conformance.checks.bundles import bundle, create, entry
from gateway.conformance.checks.confidentiality import taken_back
from gateway.conformance.checks.search import found
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, not_applicable
from gateway.conformance.target import Face
from gateway.conformance.wire import FHIR_JSON, Caller, place_of

MES, ANS = "API Mesures 1.5.2", "ANS Mesures"
LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
LEGACY = "https://mos.esante.gouv.fr/NOS/TRE_R308-TAASIP/FHIR/TRE-R308-TAASIP"
SMT = "https://smt.esante.gouv.fr/fhir/CodeSystem/terminologie-cisis"
PROFILE = "https://fhir.monespacesante.fr/ref/mesure/StructureDefinition/mes-observation-"
EXTENSION = "https://interop.esante.gouv.fr/ig/fhir/mesures/StructureDefinition/mesures-"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"

Resource = dict[str, Any]


def concept(system: str, code: str) -> Resource:
    """A CodeableConcept of one coding."""
    return {"coding": [{"system": system, "code": code}]}


MOMENT = {"url": f"{EXTENSION}moment-of-measurement", "valueCodeableConcept": concept(LOINC, "53049-3")}
DAYS = {"url": f"{EXTENSION}number-of-days", "valueCodeableConcept": concept(SMT, "GEN-276")}


@dataclass(frozen=True, slots=True)
class Phone:
    """A paired app. `day`: a day of long ago on which nobody else measured anything. `owner`: removes what was sent."""

    server: Server
    face: Face
    app: Caller
    owner: Caller
    day: datetime

    def at(self, minutes: int = 0) -> str:
        """A moment of the day."""
        return (self.day + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def period(self) -> dict[str, str | list[str]]:
        """The day, as a search names it."""
        return {"date": [f"ge{self.at()}", f"le{self.at(24 * 60)}"]}

    def measure(self, code: Resource, value: float, unit: str, *extensions: Resource, **elements: Any) -> Resource:
        """An Observation of the profile."""
        kind = {"kg": "bodyweight", "cm": "bodyheight"}.get(unit, "glucose")
        subject = {"identifier": {"system": self.face.patients, "value": self.face.claim("sub")}}
        return {
            "resourceType": "Observation",
            "meta": {"profile": [PROFILE + kind]},
            "status": "final",
            "category": [concept(CATEGORY, "vital-signs")],
            "code": code,
            "subject": subject,
            "effectiveDateTime": self.at(),
            "valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit},
            **({"extension": list(extensions)} if extensions else {}),
            **elements,
        }

    def weight(self, value: float = 71, **elements: Any) -> Resource:
        """A body weight: the plainest of measures."""
        return self.measure(concept(LOINC, "29463-7"), value, "kg", **elements)

    def scale(self) -> Resource:
        """A Device that nobody has sent before."""
        system = f"urn:oid:{self.face.claim('oid')}.8"
        return {
            "resourceType": "Device",
            "id": str(uuid.uuid4()),
            "meta": {"profile": ["http://hl7.org/fhir/uv/phd/StructureDefinition/PhdDevice"]},
            "identifier": [{"system": system, "value": f"kit-{uuid.uuid4()}"}],
            "manufacturer": "KIT",
            "type": concept("urn:iso:std:iso:11073:10101", "65573"),
        }

    def push(self, sent: Resource | str, **headers: str) -> httpx.Response:
        """Send a Bundle, or an Observation in one. What is created is removed at the end."""
        told = bundle("transaction", create(sent)) if isinstance(sent, dict) and sent["resourceType"] != "Bundle" else sent
        answer = self.app.ask("POST", self.face.base, told, {"id-token": self.face.id_token} | headers)
        if answer.status_code == 200:
            for one in answer.json().get("entry", []):
                if one["response"]["status"].startswith("201"):
                    self.owner.remember(one["response"].get("location", ""))
        return answer

    def read(self, code: str, **parameters: str | list[str]) -> httpx.Response:
        """Search at the face."""
        asked = {"code": code, "subject.identifier": f"{self.face.patients.removeprefix('urn:oid:')}|{self.face.claim('sub')}"}
        return self.app.get(f"{self.face.base}/Observation", {"id-token": self.face.id_token}, **asked, **parameters)


@pytest.fixture
def phone(server: Server) -> Iterator[Phone]:
    """The app; not applicable where the server has no such face. One check at a time has it: some take its consents away."""
    face = server.target.measures
    if face is None:
        not_applicable("the kit was told of no face for measures ([measures] in the description of the server)")
    else:
        day = datetime(2001, 1, 1, tzinfo=UTC) + timedelta(days=random.randrange(3_600), seconds=random.randrange(3_600))  # noqa: S311
        with FileLock("paired.lock"):
            yield Phone(server, face, server.caller("paired"), server.caller("owner"), day)


def taken(answer: httpx.Response) -> list[tuple[str, str]]:
    """The status and place of each entry of what was taken."""
    assert answer.status_code == 200, f"a valid measure is answered with 200, not {answer.status_code}"
    told = answer.json()
    assert told["type"] == "transaction-response", "the answer is a transaction-response"
    return [(one["response"]["status"][:3], place_of(one["response"]["location"])) for one in told["entry"]]


def refused_as(answer: httpx.Response, status: int, code: str, text: str = "") -> None:
    """Check a refusal: its status, the code of its issue and, where the API has a text for it, that text."""
    assert answer.status_code == status, f"refused with {status}, not {answer.status_code}"
    issue = answer.json()["issue"][0]
    assert issue["code"] == code, f"the code of the issue is {code}"
    assert text in issue["diagnostics"], f"it says: {text}"


def values(answer: httpx.Response) -> list[float]:
    """The values of what was found, in order."""
    return [one["valueQuantity"]["value"] for one in found(answer)]


VALID: dict[str, tuple[Resource, float, str, list[Resource]]] = {
    "body weight": (concept(LOINC, "29463-7"), 71.5, "kg", []),
    "blood glucose": (concept(LOINC, "2345-7"), 112, "mg/dL", [MOMENT]),
    "HbA1c": (concept(LOINC, "4548-4"), 6.5, "%", []),
    "mean glucose": (concept(LOINC, "99504-3"), 148, "mg/dL", [DAYS]),
    "mean glucose, by its former code": (concept(LEGACY, "MED-969"), 148, "mg/dL", [DAYS]),
    "glucose management index": (concept(SMT, "MED-972"), 6.9, "%", [DAYS]),
}


@rule("MES-01", "SHALL", "A measure is taken: 200, a transaction-response, 201 and the place of what was created.", MES)
@pytest.mark.parametrize("name", VALID)
def check_valid(phone: Phone, name: str) -> None:
    """One kind of measure each."""
    code, value, unit, extensions = VALID[name]
    ((status, place),) = taken(phone.push(phone.measure(code, value, unit, *extensions)))
    assert status == "201", "it is created"
    assert place.startswith("Observation/"), "and the answer says where"


def _bundles(phone: Phone) -> dict[str, tuple[Resource | str, int, str, str]]:
    one = create(phone.weight())
    text = "Resource of type <{}> is not acceptable with method <{}>."
    alone = "Bundle must contains one observation creation (POST)"
    put = entry("PUT", "Observation/kit", phone.weight())
    removal = entry("DELETE", "Observation/kit")
    patient = create({"resourceType": "Patient"})
    return {
        "nothing": ("", 400, "invalid", "No bundle provided."),
        "an update": (bundle("transaction", put), 422, "not-supported", text.format("Observation", "PUT")),
        "a deletion": (bundle("transaction", removal), 422, "not-supported", text.format("Observation", "DELETE")),
        "another type": (bundle("transaction", one, patient), 422, "not-supported", text.format("Patient", "POST")),
        "two measures": (bundle("transaction", one, create(phone.weight(72))), 422, "invalid", alone),
        "no measure": ({"resourceType": "Bundle", "type": "transaction"}, 422, "invalid", alone),
    }


BUNDLES = ("nothing", "an update", "a deletion", "another type", "two measures", "no measure")


@rule("MES-01", "SHALL", "A Bundle is one Observation and at most one Device, both created; all else is refused.", MES)
@pytest.mark.parametrize("name", BUNDLES)
def check_bundle(phone: Phone, name: str) -> None:
    """One Bundle each, with the text of the API."""
    sent, status, code, text = _bundles(phone)[name]
    refused_as(phone.push(sent), status, code, text)


MATRIX: dict[str, tuple[Resource, float, str, list[Resource], str, str]] = {
    "blood, no moment": (concept(LOINC, "2345-7"), 112, "mg/dL", [], "incomplete", "moment is mandatory."),
    "blood, days": (concept(LOINC, "2345-7"), 112, "mg/dL", [MOMENT, DAYS], "invalid", "numberOfDays cannot be added."),
    "HbA1c, moment": (concept(LOINC, "4548-4"), 6.5, "%", [MOMENT], "invalid", "moment cannot be added."),
    "mean, no days": (concept(LOINC, "99504-3"), 148, "mg/dL", [], "incomplete", "numberOfDays is mandatory."),
    "mean, moment": (concept(LOINC, "99504-3"), 148, "mg/dL", [DAYS, MOMENT], "invalid", "moment cannot be added."),
    "index, no days": (concept(SMT, "MED-972"), 6.9, "%", [], "incomplete", "numberOfDays is mandatory."),
}


@rule("MES-02", "SHALL", "What a measure must and must not say of moment and number of days depends on its code.", MES)
@pytest.mark.parametrize("name", MATRIX)
def check_matrix(phone: Phone, name: str) -> None:
    """A line of the table each."""
    measured, value, unit, extensions, code, text = MATRIX[name]
    sent = phone.measure(measured, value, unit, *extensions)
    refused_as(phone.push(sent), 422, code, f"Observation.extension.{text}")


@rule("MES-02", "SHALL", "A measure has a value, in the unit of its code.", MES)
def check_units(phone: Phone) -> None:
    """None; a percentage in mg/dL; a glucose in mmol/L."""
    without = {name: told for name, told in phone.weight().items() if name != "valueQuantity"}
    refused_as(phone.push(without), 422, "value", "Observation value quantity not provided.")
    for sent in (
        phone.measure(concept(LOINC, "4548-4"), 6.5, "mg/dL"),
        phone.measure(concept(LOINC, "2345-7"), 6.2, "mmol/L", MOMENT),
    ):
        assert phone.push(sent).status_code == 422, "a unit of another measure is refused"


def _with_device(phone: Phone, device: Resource, minutes: int, condition: str | None = None) -> Resource:
    own = device["identifier"][0]
    condition = f"identifier={own['system']}|{own['value']}" if condition is None else condition
    measured = phone.weight(device={"reference": f"Device/{device['id']}"}, effectiveDateTime=phone.at(minutes))
    return bundle("transaction", create(measured), create(device, **({"ifNoneExist": condition} if condition else {})))


@rule("MES-03", "SHALL", "A Device is sent with ifNoneExist; the second time, the first one is found.", MES)
def check_device(phone: Phone) -> None:
    """The same scale twice; then without a condition, and with one that is none."""
    device = phone.scale()
    first = taken(phone.push(_with_device(phone, device, 0)))
    second = taken(phone.push(_with_device(phone, device, 1)))
    assert [status for status, _ in first] == ["201", "201"], "both are created"
    assert [status for status, _ in second] == ["201", "200"], "the Device is known the second time"
    assert first[1][1] == second[1][1], "at the same place"
    text = "Device request must have a valid IfNoneExist attribute : identifier=urn:oid:<OID>|<DEVICE ID>"
    for condition in ("", "serial=1"):
        refused_as(phone.push(_with_device(phone, phone.scale(), 2, condition)), 422, "invalid", text)
    unlinked = _with_device(phone, phone.scale(), 3)
    unlinked["entry"][0]["resource"]["device"]["reference"] = "Device/another"
    refused_as(phone.push(unlinked), 422, "invalid", "Observation and device not linked by id")


@rule("MES-04", "SHALL", "meta.source is an OID of the solution; it is filled in where it is missing.", MES)
def check_source(phone: Phone) -> None:
    """Somebody else's; none."""
    foreign = phone.weight()
    foreign["meta"] |= {"source": "urn:oid:1.2.3.4"}
    refused_as(phone.push(foreign), 422, "value", "Solution oid contains in Observation.meta.source don't belong to root")
    taken(phone.push(phone.weight()))
    (stored,) = found(phone.read("29463-7", **phone.period))
    source = f"{stored['meta'].get('source', '')}."
    assert source.startswith(f"urn:oid:{phone.face.claim('oid')}."), "it is filled in with the OID of the solution"


OTHER_PATIENT = "idPe requested do not match authorized idPe."


@rule("MES-05", "SHALL", "The patient of a request is that of the id_token; both tokens are good.", MES)
def check_tokens(phone: Phone) -> None:
    """Another number of a patient, sent and asked for; no id_token; no access token."""
    other = phone.weight(subject={"identifier": {"system": phone.face.patients, "value": "kit-nobody"}})
    refused_as(phone.push(other), 403, "forbidden", OTHER_PATIENT)
    asked = {"subject.identifier": f"{phone.face.patients.removeprefix('urn:oid:')}|kit-nobody", "code": "29463-7"}
    named = {"id-token": phone.face.id_token}
    answer = phone.app.get(f"{phone.face.base}/Observation", named, **asked, **phone.period)
    refused_as(answer, 403, "forbidden", OTHER_PATIENT)
    head, claims, _ = phone.face.id_token.split(".")
    for wrong in ("kit-no-jwt", f"{head}.{claims}.AAAA"):
        assert phone.push(phone.weight(), **{"id-token": wrong}).status_code == 400, "an id_token that is none: 400"
    stranger = phone.server.bearer("kit-nobody-issued-this")
    sent = bundle("transaction", create(phone.weight()))
    assert stranger.ask("POST", phone.face.base, sent, named).status_code == 401, "an access token that is none: 401"


NO_CONSENT = "Consent not given, access refused."


@rule("MES-06", "SHALL", "Sending and reading are agreed to apart; what is taken back is refused at once.", MES)
def check_consents(phone: Phone) -> None:
    """The one taken back, then the other."""
    agreed: dict[str, Resource] = {}
    for direction, name in (("sending", phone.face.sending), ("reading", phone.face.reading)):
        if name is None:
            not_applicable(f"the kit was told of no Consent for {direction} (measures.{direction})")
        agreed[direction] = phone.owner.get(f"Consent/{name}").json()
    with taken_back(phone.owner, agreed["sending"]):
        refused_as(phone.push(phone.weight()), 403, "forbidden", NO_CONSENT)
        assert phone.read("29463-7", **phone.period).status_code == 200, "reading is still agreed to"
    taken(phone.push(phone.weight()))
    with taken_back(phone.owner, agreed["reading"]):
        refused_as(phone.read("29463-7", **phone.period), 403, "forbidden", NO_CONSENT)
        taken(phone.push(phone.weight(72, effectiveDateTime=phone.at(1))))
    assert sorted(values(phone.read("29463-7", **phone.period))) == [71, 72], "agreed to again, both are read"


@rule(
    "MES-07", "SHALL", "All measures of a period come page by page (_offset counts pages), newest first; or the last one.", MES
)
def check_modes(phone: Phone) -> None:
    """Three weights in pages of two."""
    for n in range(3):
        taken(phone.push(phone.weight(70 + n, effectiveDateTime=phone.at(n))))
    first = phone.read("29463-7", **phone.period, _count="2")
    assert (values(first), first.json()["total"]) == ([72, 71], 3), "the first page, and how many there are"
    second = phone.read("29463-7", **phone.period, _count="2", _offset="1")
    assert values(second) == [70], "_offset=1 is the second page"
    relations = [{link["relation"] for link in answer.json()["link"]} for answer in (first, second)]
    assert relations == [{"self", "next"}, {"self", "previous"}], "links lead on and back"
    last = values(phone.read("29463-7", _sort="-date", _count="1"))
    assert len(last) == 1, "_sort=-date&_count=1: the last one"


SORT = "Sort parameter must be equals to -date (date DESC) with _count equals to 1 to retrieve last observation"
BOTH = "Paged search and search last cannot be requested concurrently"
SEARCHES: dict[str, tuple[dict[str, str | list[str]], str]] = {
    "a page too large": ({"date": ["ge2026-01-01", "le2026-01-31"], "_count": "101"}, "Maximum page size allowed is 100."),
    "oldest first": ({"_sort": "date", "_count": "1"}, SORT),
    "the last two": ({"_sort": "-date", "_count": "2"}, SORT),
    "both modes": ({"_sort": "-date", "_count": "1", "date": ["ge2026-01-01", "le2026-01-31"]}, BOTH),
    "no mode": ({}, "No search mode detected"),
    "half a period": ({"date": ["ge2026-01-01"]}, "No search mode detected"),
}


@rule("MES-07", "SHALL", "A search that is neither of the two modes is refused, with the text of the API.", MES)
@pytest.mark.parametrize("name", SEARCHES)
def check_no_mode(phone: Phone, name: str) -> None:
    """One wrong search each."""
    parameters, text = SEARCHES[name]
    refused_as(phone.read("29463-7", **parameters), 400, "invalid", text)


@rule("MES-08", "SHALL", "Former and present codes find each other, and stay as they were sent.", ANS)
def check_codes(phone: Phone) -> None:
    """A mean glucose by either code, looked for by either."""
    taken(phone.push(phone.measure(concept(LEGACY, "MED-969"), 150, "mg/dL", DAYS)))
    taken(phone.push(phone.measure(concept(LOINC, "99504-3"), 140, "mg/dL", DAYS, effectiveDateTime=phone.at(1))))
    for code in ("MED-969", "99504-3"):
        matches = found(phone.read(code, **phone.period))
        codes = [one["code"]["coding"][0]["code"] for one in matches]
        assert codes == ["99504-3", "MED-969"], f"{code} finds both, each with the code that it was sent with"


@rule("MES-09", "SHALL", "A body mass index is never sent; where it is read, it is computed.", MES)
def check_body_mass_index(phone: Phone) -> None:
    """Sent; then read, of 80 kg and 200 cm."""
    sent = phone.measure(concept(LOINC, "39156-5"), 22, "kg/m2")
    refused_as(phone.push(sent), 422, "not-supported", "Bmi observation cannot be created.")
    taken(phone.push(phone.measure(concept(LOINC, "8302-2"), 200, "cm")))
    taken(phone.push(phone.weight(80, effectiveDateTime=phone.at(1))))
    answer = phone.read("39156-5", **phone.period)
    assert answer.status_code == 400 or values(answer) in ([], [20]), "80 kg at 2 m are 20 kg/m²"


@rule("MES-10", "SHALL", "The category is vital-signs; how it is called is no matter.", ANS)
def check_category(phone: Phone) -> None:
    """None; under its English and its French name."""
    without = {name: told for name, told in phone.weight().items() if name != "category"}
    assert phone.push(without).status_code == 422, "no category: refused"
    for n, display in enumerate(("vital-signs", "Signes vitaux")):
        category = concept(CATEGORY, "vital-signs")
        category["coding"][0]["display"] = display
        taken(phone.push(phone.weight(effectiveDateTime=phone.at(n), category=[category])))


@rule("MES-11", "SHOULD", "A measure that is sent again is not stored twice.", "house")
def check_again(phone: Phone) -> None:
    """The same weight of the same moment."""
    ((_, first),) = taken(phone.push(phone.weight()))
    ((_, again),) = taken(phone.push(phone.weight()))
    assert again == first, "it has the place that it had"
    assert len(found(phone.read("29463-7", **phone.period))) == 1, "there is one"


@rule("MES-12", "SHALL", "The mean of some days and a reading of a sensor bear the same code, and are never mixed.", "house")
def check_means(phone: Phone, app: Caller) -> None:
    """One of each on the same day."""
    phone.server.needs("Observation", "create")
    answer = app.ask("POST", "Observation", phone.server.glucose(104, effectiveDateTime=phone.at(5)), {"accept": FHIR_JSON})
    assert answer.status_code == 201, "a reading of a sensor is created with 201"
    phone.owner.remember(answer.headers.get("location", ""))
    taken(phone.push(phone.measure(concept(LOINC, "99504-3"), 148, "mg/dL", DAYS)))
    assert values(phone.read("99504-3", **phone.period)) == [148], "the mean is found, and no reading with it"
