"""Search: parameters, pages, what an answer says of itself.

Knows: https://hl7.org/fhir/R4/search.html. Must not know: whose server it is.
"""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway.conformance.checks.core import TYPE, links, refused
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, moment, not_applicable, reference_of
from gateway.conformance.wire import Caller


def found(answer: httpx.Response) -> list[dict[str, Any]]:
    """The matches of a searchset."""
    assert answer.status_code == 200, f"a search is answered with 200, not {answer.status_code}"
    told = answer.json()
    assert (told["resourceType"], told["type"]) == ("Bundle", "searchset"), "the answer is a searchset"
    entries = told.get("entry", [])
    return [one["resource"] for one in entries if one.get("search", {}).get("mode", "match") == "match"]


@pytest.fixture
def few(server: Server, owner: Caller) -> tuple[str, list[dict[str, Any]]]:
    """Five Observations, a minute apart, oldest first, and the system that their identifiers share."""
    server.needs(TYPE, "create", "search-type")
    system = server.system
    times = [f"2026-03-01T08:0{n}:00Z" for n in range(5)]
    resources = [
        server.heart_rate(60 + n, identifier=[{"system": system, "value": f"n-{n}"}], effectiveDateTime=time)
        for n, time in enumerate(times)
    ]
    return system, [server.made_by(owner, resource) for resource in resources]


Few = tuple[str, list[dict[str, Any]]]


@rule("SRCH-01", "SHALL", "A search by POST finds what the same search by GET finds.", "FHIR R4 http", "#search")
def check_post(server: Server, owner: Caller, few: Few) -> None:
    """The same parameters both ways."""
    got = found(owner.get(TYPE, patient=server.patient, identifier=f"{few[0]}|"))
    form = str(httpx.QueryParams({"patient": server.patient, "identifier": f"{few[0]}|"}))
    posted = found(owner.ask("POST", f"{TYPE}/_search", form, headers={"content-type": "application/x-www-form-urlencoded"}))
    assert sorted(map(reference_of, got)) == sorted(map(reference_of, few[1])), "what matches is found"
    assert sorted(map(reference_of, posted)) == sorted(map(reference_of, got)), "both ways alike"


@rule(
    "SRCH-02",
    "SHALL",
    "Pages lead through all matches, each once; total counts matches; self lists what was applied.",
    "FHIR R4 http",
    "#paging",
)
def check_pages(server: Server, owner: Caller, few: Few) -> None:
    """Five matches in pages of two."""
    answer = owner.get(TYPE, patient=server.patient, identifier=f"{few[0]}|", _count="2", _sort="date")
    assert "identifier=" in links(answer).get("self", ""), "the self link lists the parameters"
    assert answer.json().get("total", 5) == 5, "total counts all matches"
    seen: list[str] = []
    for _ in range(5):
        page = found(answer)
        assert len(page) <= 2, "a page has no more than _count"
        seen += map(reference_of, page)
        following = links(answer).get("next")
        if following is None:
            break
        assert following.startswith(server.target.base), "next leads to this server"
        answer = owner.get(following)
    assert seen == list(map(reference_of, few[1])), "each once, in order"


DATES: dict[str, list[int]] = {
    "2026-03-01T08:02:00Z": [2],
    "ge2026-03-01T08:03:00Z": [3, 4],
    "gt2026-03-01T08:03:00Z": [4],
    "lt2026-03-01T08:01:00Z": [0],
    "le2026-03-01T08:01:00Z": [0, 1],
    "ne2026-03-01T08:01:00Z": [0, 2, 3, 4],
    "2026-03-01T10:02:00+02:00": [2],
    "2026-03-01": [0, 1, 2, 3, 4],
    "2026-03": [0, 1, 2, 3, 4],
    "gt2026-03-01": [],
    "sa2026-03-01T08:03:00Z": [4],
    "eb2026-03-01T08:01:00Z": [0],
}


@rule("SRCH-04", "SHALL", "Dates are compared with their prefixes, precision and offset.", "FHIR R4 search", "#date")
@pytest.mark.parametrize("value", DATES)
def check_dates(server: Server, owner: Caller, few: Few, value: str) -> None:
    """One comparison each."""
    matches = found(owner.get(TYPE, patient=server.patient, identifier=f"{few[0]}|", date=value))
    expected = [reference_of(few[1][n]) for n in DATES[value]]
    assert sorted(map(reference_of, matches)) == sorted(expected), f"date={value}"


TOKENS: dict[str, Callable[[str], str | list[str]]] = {
    "system and value": lambda system: f"{system}|n-1",
    "several values": lambda system: f"{system}|n-1,{system}|n-2",
    "the same parameter twice": lambda system: [f"{system}|", f"{system}|n-1"],
    "no system": lambda _: "|n-1",
}


@rule(
    "SRCH-05", "SHALL", "A token is matched by system and code; commas are or, repetition is and.", "FHIR R4 search", "#token"
)
@pytest.mark.parametrize("way", TOKENS)
def check_tokens(server: Server, owner: Caller, few: Few, way: str) -> None:
    """One way of asking each."""
    matches = found(owner.get(TYPE, patient=server.patient, identifier=TOKENS[way](few[0])))
    mine = sorted(one["identifier"][0]["value"] for one in matches if one["identifier"][0].get("system") == few[0])
    expected = {"several values": ["n-1", "n-2"], "no system": []}.get(way, ["n-1"])
    assert mine == expected, way


@rule("SRCH-07", "SHALL", "What was written is found at once by _lastUpdated.", "FHIR R4 search", "#lastUpdated")
def check_last_updated(server: Server, owner: Caller) -> None:
    """From the moment of the first on."""
    server.needs(TYPE, "create", "search-type")
    first = server.made_by(owner, server.heart_rate())
    second = server.made_by(owner, server.heart_rate())
    since = found(owner.get(TYPE, patient=server.patient, _lastUpdated=f"ge{first['meta']['lastUpdated']}"))
    assert {reference_of(first), reference_of(second)} <= set(map(reference_of, since)), "both are found"
    later = found(owner.get(TYPE, patient=server.patient, _lastUpdated=f"gt{second['meta']['lastUpdated']}"))
    assert reference_of(first) not in set(map(reference_of, later)), "what is older is not"


@rule(
    "SRCH-09", "SHALL", "_sort, _count, _count=0, _summary=count and _elements do what they say.", "FHIR R4 search", "#return"
)
def check_shaping(server: Server, owner: Caller, few: Few) -> None:
    """Each of them."""
    asked = {"patient": server.patient, "identifier": f"{few[0]}|"}
    newest = found(owner.get(TYPE, **asked, _sort="-date"))
    assert list(map(reference_of, newest)) == list(map(reference_of, reversed(few[1]))), "_sort=-date: newest first"
    assert len(found(owner.get(TYPE, **asked, _count="2"))) == 2, "_count=2: two"
    for only in ({"_count": "0"}, {"_summary": "count"}):
        answer = owner.get(TYPE, **asked, **only)
        assert (found(answer), answer.json().get("total")) == ([], 5), f"{only}: the number only"
    for one in found(owner.get(TYPE, **asked, _elements="status")):
        assert "valueQuantity" not in one, "_elements=status: nothing that was not asked for"
        assert one["status"] == "final", "_elements=status: the status"


WRONG = {"date": "yesterday", "_sort": "kitten", "_count": "many", "_lastUpdated": "2026-13-01", "_include": "kitten"}


@rule("SRCH-10", "SHALL", "A value that cannot be understood is refused.", "FHIR R4 search", "#errors")
@pytest.mark.parametrize("name", WRONG)
def check_malformed(server: Server, owner: Caller, name: str) -> None:
    """One each."""
    server.needs(TYPE, "search-type")
    refused(owner.get(TYPE, **{"patient": server.patient, name: WRONG[name]}), 400, 422)


STRANGE = ["$where", '{"$gt":""}', ".*", "';--", "a\\", "x|y|z", "%00", "\u202e"]


@rule("SRCH-13", "SHOULD", "Whatever stands in a parameter is text to be looked for, and nothing else.", "house")
@pytest.mark.parametrize("value", STRANGE)
@pytest.mark.usefixtures("few")
def check_literals(server: Server, owner: Caller, value: str) -> None:
    """Nothing is found, nothing breaks."""
    answer = owner.get(TYPE, patient=server.patient, identifier=value)
    assert answer.status_code in (200, 400), "it is searched for or refused"
    if answer.status_code == 200:
        assert found(answer) == [], "nobody has this identifier"


@rule(
    "SRCH-14",
    "SHALL",
    "A searchset names each match by its full address and says that it is a match.",
    "FHIR R4 bundle",
    "#searchset",
)
def check_entries(server: Server, owner: Caller, few: Few) -> None:
    """fullUrl and search.mode."""
    answer = owner.get(TYPE, patient=server.patient, identifier=f"{few[0]}|n-1")
    assert len(found(answer)) == 1, "one is found"
    told = answer.json()["entry"][0]
    assert told["search"]["mode"] == "match", "it is a match"
    assert re.fullmatch(rf"https?://.+/{reference_of(few[1][1])}", told["fullUrl"]), "fullUrl is its address"
    assert moment(1) < told["resource"]["meta"]["lastUpdated"], "it says when it was stored"


@rule(
    "SRCH-06",
    "SHALL",
    "A patient is named by id, by reference, or by an identifier; each finds the same.",
    "FHIR R4 search",
    "#reference",
)
def check_patient(server: Server, owner: Caller, few: Few) -> None:
    """patient, subject, patient.identifier."""
    server.needs("Patient", "read")
    own = owner.get(f"Patient/{server.patient}").json().get("identifier", [])
    asked: dict[str, str] = {"patient": server.patient, "subject": f"Patient/{server.patient}"}
    if own:
        asked["patient.identifier"] = f"{own[0].get('system', '')}|{own[0]['value']}"
    declared = {one["name"] for one in server.types[TYPE].get("searchParam", [])}
    for name, value in asked.items():
        if name.partition(".")[0] in declared:
            matches = found(owner.get(TYPE, identifier=f"{few[0]}|", **{name: value}))
            assert sorted(map(reference_of, matches)) == sorted(map(reference_of, few[1])), f"{name} finds them"
            nobody = f"{value}-kit-nobody"
            assert not found(owner.get(TYPE, identifier=f"{few[0]}|", **{name: nobody})), f"{name} of nobody finds nothing"


@rule(
    "SRCH-08",
    "SHALL",
    "_include brings what a match refers to, once a page, as an include that no total counts.",
    "FHIR R4 search",
    "#include",
)
def check_include(server: Server, owner: Caller) -> None:
    """Two readings of one Device."""
    server.needs("Device", "create")
    server.needs(TYPE, "create", "search-type")
    if "Observation:device" not in server.types[TYPE].get("searchInclude", []):
        not_applicable("the server does not declare _include=Observation:device")
    device = server.made_by(owner, {"resourceType": "Device", "patient": {"reference": f"Patient/{server.patient}"}})
    for n in range(2):
        server.made_by(owner, server.heart_rate(60 + n, device={"reference": reference_of(device)}))
    answer = owner.get(TYPE, patient=server.patient, identifier=f"{server.system}|", _include="Observation:device")
    assert len(found(answer)) == 2, "two match"
    assert answer.json().get("total", 2) == 2, "total counts matches"
    included = [one["resource"] for one in answer.json()["entry"] if one["search"]["mode"] == "include"]
    assert [reference_of(one) for one in included] == [reference_of(device)], "the Device comes once"
