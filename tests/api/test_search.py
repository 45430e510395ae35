"""Searching: GET and POST alike, nobody's totals tell of what they may not see, and no value is ever more than a value."""

from base64 import b64decode
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.world import (
    BASE,
    LOINC,
    READINGS,
    Actor,
    World,
    concept,
    consent,
    document,
    expression,
    issues,
    label,
    observation,
    unique,
)

FORM = "application/x-www-form-urlencoded"
RESTRICTED = label("R")


@pytest.fixture(scope="module")
async def camille(session_world: World) -> Actor:
    """A patient with five readings, the last of another code."""
    owner = await session_world.patient()
    for day in range(1, 6):
        code = concept(LOINC, "99504-3" if day < 5 else "14745-4")
        await owner.create(observation(owner.patient, effectiveDateTime=f"2026-11-{day:02d}T08:00:00Z", code=code))
    return owner


async def post_search(
    actor: Actor, form: str, query: str = "", type_name: str = "Observation", **headers: str
) -> httpx.Response:
    return await actor.send("POST", f"{type_name}/_search{query}", form.encode(), Content_Type=FORM, **headers)


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [entry["resource"]["id"] for entry in answer.json().get("entry", ())]


@pytest.mark.requirement("SRCH-01")
@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=http://loinc.org|99504-3",
        "code=http%3A%2F%2Floinc.org%7C99504-3&date=ge2026-11-02&date=lt2026-11-04",
        "_sort=date&_count=2",
        "_summary=count",
        "code:not=14745-4",
        "code=a,14745-4",
    ],
)
async def test_get_and_post_find_the_same(camille: Actor, query: str) -> None:
    got = await camille.get(f"Observation?{query}")
    posted = await post_search(camille, query)
    split = await post_search(camille, "", f"?{query}" if query else "")
    assert got.status_code == posted.status_code == split.status_code == 200
    assert (
        [ids(got), got.json().get("total")]
        == [ids(posted), posted.json().get("total")]
        == [ids(split), split.json().get("total")]
    )
    assert own_link(got) == own_link(posted) == own_link(split)


@pytest.mark.requirement("SRCH-01")
async def test_parameters_in_url_and_form_must_all_hold(world: World, camille: Actor) -> None:
    stranger = await world.patient()
    both = await post_search(camille, "date=lt2026-11-04", "?date=ge2026-11-02")
    assert len(ids(both)) == 2
    assert ids(await post_search(camille, "code=14745-4", "?code=99504-3")) == []
    # Neither place can widen what the other asks.
    assert ids(await post_search(camille, f"patient={stranger.patient}", f"?patient={camille.patient}")) == []
    assert ids(await post_search(stranger, f"patient={camille.patient}", f"?patient={stranger.patient}")) == []
    twice = await post_search(camille, "_count=1", "?_count=2")
    assert (twice.status_code, expression(twice)) == (400, "_count")


@pytest.mark.requirement("SRCH-01")
async def test_a_posted_search_leads_to_pages_too(camille: Actor) -> None:
    first = await post_search(camille, "_count=2&_sort=date")
    following = [link["url"] for link in first.json()["link"] if link["relation"] == "next"]
    second = await camille.get(following[0])
    third = await post_search(camille, following[0].partition("?")[2])
    assert ids(second) == ids(third)
    assert not set(ids(first)) & set(ids(second))


@pytest.mark.requirement("SRCH-02")
async def test_the_page_says_what_was_asked(camille: Actor) -> None:
    answer = await camille.get(
        f"Observation?patient=Patient/{camille.patient}&code=99504-3&_sort=-date&_count=500&_format=json"
    )
    page = answer.json()
    assert (page["resourceType"], page["type"], page["total"]) == ("Bundle", "searchset", 4)
    expected = urlencode(
        {"patient": f"Patient/{camille.patient}", "code": "99504-3", "_sort": "-date", "_count": "200", "_format": "json"}
    )
    assert own_link(answer) == f"{BASE}/Observation?{expected}"
    for entry in page["entry"]:
        assert entry["search"] == {"mode": "match"}
        assert entry["fullUrl"] == f"{BASE}/Observation/{entry['resource']['id']}"
    assert "etag" not in answer.headers


@pytest.mark.requirement("SRCH-09")
@pytest.mark.parametrize(
    ("query", "total", "entries"),
    [
        ("_summary=count", 5, 0),
        ("_count=0", 5, 0),
        ("_count=0&_total=none", 5, 0),
        ("_summary=count&_count=3", 5, 0),
        ("_count=2", None, 2),
        ("_count=2&_total=none", None, 2),
        ("_count=2&_total=accurate", 5, 2),
        ("_count=2&_total=estimate", 5, 2),
        ("_count=5", 5, 5),
        ("_summary=false", 5, 5),
        ("_summary=text", 5, 5),
        ("_count=0&_elements=code", 5, 0),
        ("code=14745-4&_summary=count", 1, 0),
        ("code=none&_summary=count", 0, 0),
        ("code=none", 0, 0),
    ],
)
async def test_counts_and_totals(camille: Actor, query: str, total: int | None, entries: int) -> None:
    answer = await camille.get(f"Observation?{query}")
    assert answer.json().get("total") == total
    assert len(ids(answer)) == entries
    assert own_link(answer) == f"{BASE}/Observation?{query}"
    assert ("entry" in answer.json()) == (entries > 0)


@pytest.mark.requirement("SRCH-09")
async def test_the_total_stays_right_on_later_pages(camille: Actor) -> None:
    url: str | None = "Observation?_count=2&_total=accurate"
    totals = []
    while url:
        answer = await camille.get(url)
        totals.append(answer.json()["total"])
        url = next((link["url"] for link in answer.json()["link"] if link["relation"] == "next"), None)
    assert totals == [5, 5, 5]


@pytest.mark.requirement("SRCH-10")
@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("date=2026-13", "date"),
        ("date=2026-02-30", "date"),
        ("date=20261101", "date"),
        ("date=ge", "date"),
        ("date=xx2026", "date"),
        ("date=2026-11-01T25:00Z", "date"),
        ("date=", "date"),
        ("_lastUpdated=now", "_lastUpdated"),
        ("value-quantity=ten", "value-quantity"),
        ("value-quantity=5|", "value-quantity"),
        ("value-quantity=1e9999", "value-quantity"),
        ("value-quantity=NaN", "value-quantity"),
        ("code:missing=maybe", "code:missing"),
        ("code=a,", "code"),
        ("_sort=", "_sort"),
        ("_sort=--date", "_sort"),
        ("_sort=-", "_sort"),
        ("_sort=date&_sort=date", "_sort"),
        ("_count=-1", "_count"),
        ("_count=1.5", "_count"),
        ("_count=", "_count"),
        ("_count=9999999999", "_count"),
        ("_total=", "_total"),
        ("_summary=all", "_summary"),
        ("_summary=text&_elements=code", "_elements"),
        ("_elements=", "_elements"),
        ("_elements=code,foo", "_elements"),
        ("_elements=code.coding", "_elements"),
        ("_sort=date,", "_sort"),
        ("_sort=date,-date", "_sort"),
        ("_pretty=yes", "_pretty"),
        ("_cursor=x", "_cursor"),
        ("=x", None),
        ("%00=x", "?"),
        ("a%0Db=x", "a?b"),
    ],
)
async def test_what_is_malformed_is_named(camille: Actor, query: str, name: str | None) -> None:
    answer = await camille.get(f"Observation?{query}")
    assert (answer.status_code, expression(answer)) == (400, name)
    assert issues(answer)[0]["code"] in ("invalid", "not-supported")


@pytest.mark.requirement("SRCH-11")
async def test_nothing_tells_of_what_may_not_be_seen(world: World) -> None:
    owner, doctor = await world.patient(), await world.professional()
    await owner.create(consent(owner, doctor, "access", ["DocumentReference"]))
    denied = {"type": "deny", "securityLabel": [RESTRICTED]}
    await owner.create(consent(owner, doctor, "access", **denied))
    tag = unique("kind")
    shown = [await owner.create(document(owner.patient, type=concept(LOINC, tag))) for _ in range(3)]
    hidden = [
        await owner.create(document(owner.patient, type=concept(LOINC, tag), securityLabel=[{"coding": [RESTRICTED]}]))
        for _ in range(3)
    ]
    search = f"DocumentReference?patient={owner.patient}&type={tag}"
    for query, total in (("_summary=count", 3), ("_count=0", 3), ("_total=accurate&_count=1", 3), ("_count=3", 3), ("", 3)):
        assert (await doctor.get(f"{search}&{query}")).json()["total"] == total, query
    pages, url = [], f"{search}&_count=1&_sort=_lastUpdated"
    while url:
        page = await doctor.get(url)
        pages.append(ids(page))
        url = next((link["url"] for link in page.json()["link"] if link["relation"] == "next"), "")
    assert pages == [[one["id"]] for one in shown]  # no empty page, no page too many
    for query in (f"_id={hidden[0]['id']}", f"_security={RESTRICTED['code']}", f"security-label={RESTRICTED['code']}"):
        answer = await doctor.get(f"{search}&{query}&_total=accurate")
        assert (ids(answer), answer.json()["total"]) == ([], 0)


@pytest.mark.requirement("SRCH-11", "EXT-04")
async def test_a_search_in_a_record_without_right_is_one_in_no_record(world: World, camille: Actor) -> None:
    doctor = await world.professional()
    for query in ("", "&_summary=count", "&_total=accurate", "&_count=1", "&code=99504-3"):
        answers = [await doctor.get(f"Observation?patient={p}{query}") for p in (camille.patient, "abc-0000000000000000")]
        first, second = (
            answer.text.replace(str(p), "")
            for answer, p in zip(answers, (camille.patient, "abc-0000000000000000"), strict=True)
        )
        assert {answer.status_code for answer in answers} == {200}
        assert (first, answers[0].json()["total"]) == (second, 0)


INJECTIONS = [
    "identifier[$ne]=",
    "identifier[$ne]=x",
    "identifier[]=x",
    "$where=1",
    "$or=x",
    "code.$ne=x",
    "search.code=99504-3",
    "body=x",
    "__proto__=x",
]


@pytest.mark.requirement("SRCH-13")
@pytest.mark.parametrize("query", INJECTIONS)
async def test_a_name_that_is_an_operator_is_no_parameter(camille: Actor, query: str) -> None:
    answer = await camille.get(f"Observation?{query}")
    assert (answer.status_code, issues(answer)[0]["code"]) == (400, "not-supported")


STRANGE = [
    '{"$gt":""}',
    '{"$ne":null}',
    "$where",
    "$gt",
    "';return true;//",
    ".*",
    "^.*$",
    "(a+)+$",
    "99504",
    "99504-",
    "[^x]",
    "\0",
    "99504-3\0",
    "..",
    "a.b.c",
    "*",
    "%",
    "\\",
    "\\\\",
    "\U0010ffff",
    "\u202e",
    "null",
    "true",
    "' OR '1'='1",
    "<script>",
    "${jndi:ldap://x}",
    "x" * 2_000,
]


@pytest.mark.requirement("SRCH-13")
@pytest.mark.parametrize("value", STRANGE)
async def test_a_value_is_only_ever_that_value(camille: Actor, value: str) -> None:
    for name in (
        "code",
        "identifier",
        "_id",
        "status",
        "patient",
        "device",
        "value-string:exact",
        "_source",
        "_security",
        "code:not",
    ):
        form = urlencode({name: value})
        answer = await post_search(camille, form)
        assert answer.status_code in (200, 400), (name, answer.text)
        if answer.status_code == 200:
            assert len(ids(answer)) == (5 if name.endswith(":not") else 0), name


@pytest.mark.requirement("SRCH-13")
@pytest.mark.parametrize("value", [v for v in STRANGE if v not in ("\\", "*")])
async def test_a_strange_identifier_is_found_by_itself_alone(world: World, value: str) -> None:
    owner = await world.patient()
    for one in (value, "other"):
        identifier = [{"system": READINGS, "value": f"{one}-"}]
        answer = await owner.post("Observation", observation(owner.patient, identifier=identifier))
        if "\0" in value and one == value:
            assert answer.status_code in (400, 422)
            return
        assert answer.status_code == 201, answer.text
    escaped = f"{value}-".replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|").replace("$", "\\$")
    for token in (escaped, f"{READINGS}|{escaped}"):
        found = (await post_search(owner, urlencode({"identifier": token}))).json()["entry"]
        assert [entry["resource"]["identifier"][0]["value"] for entry in found] == [f"{value}-"]


@pytest.mark.requirement("SRCH-13")
@pytest.mark.parametrize("query", [b"code=%FF", b"code=%ED%A0%80", b"%FF=x", b"code=\xff", b"_sort=%C3"])
async def test_what_is_not_utf8_is_refused(camille: Actor, query: bytes) -> None:
    posted = await camille.send("POST", "Observation/_search", query, Content_Type=FORM)
    assert (posted.status_code, issues(posted)[0]["code"]) == (400, "invalid")
    if not query.isascii():
        return  # httpx cannot send it in a URL: see test_limits_process.py
    url = httpx.URL(f"{BASE}/Observation").copy_with(query=query)
    got = await camille.http.get(url, headers={"Authorization": f"Bearer {camille.token}"})
    assert (got.status_code, issues(got)[0]["code"]) == (400, "invalid")


async def test_letters_beyond_ascii_may_come_encoded_or_plain(world: World) -> None:
    owner = await world.patient()
    await owner.create(observation(owner.patient, code=concept(LOINC, "gl\u00e9mie")))
    for form in (b"code=gl%C3%A9mie", "code=gl\u00e9mie".encode()):
        posted = await owner.send("POST", "Observation/_search", form, Content_Type=FORM)
        assert len(ids(posted)) == 1


@pytest.mark.requirement("AUD-02")
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_the_raw_request_is_in_the_audit_and_only_there(world: World, method: str) -> None:
    owner = await world.patient()
    if method == "POST":
        await post_search(owner, "code=gl\u00e9mie&date=ge2026", "?status=final")
        expected = "POST /fhir/Observation/_search?status=final\n\ncode=gl\u00e9mie&date=ge2026"
    else:
        await owner.send(method, "Observation?code=gl%C3%A9mie&date=ge2026")
        expected = f"{method} /fhir/Observation?code=gl%C3%A9mie&date=ge2026"
    events = await owner.search("AuditEvent?subtype=search-type")
    queries = [entity["query"] for event in events for entity in event["entity"] if "query" in entity]
    assert expected in [bytes_of(query) for query in queries]


def bytes_of(query: str) -> str:
    return b64decode(query).decode()


def own_link(answer: httpx.Response) -> str:
    found: list[dict[str, Any]] = answer.json()["link"]
    return next(str(link["url"]) for link in found if link["relation"] == "self")
