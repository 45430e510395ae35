"""What an exam does to what a client reads, piece by piece: pages, corrections, tokens that expire; and how that is graded."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from gateway.conformance.exam.credentials import Credentials, Expiry
from gateway.conformance.exam.exam import Exam
from gateway.conformance.exam.reading import as_correction, correct, mix
from gateway.conformance.exam.roles import ROLES
from gateway.conformance.exam.scenes import CLOCK
from gateway.conformance.exam.sent import Sent, read_sent
from tests.conformance.clients import wait_told


def observation(n: int, value: int) -> dict[str, Any]:
    meta = {"versionId": "1", "lastUpdated": f"2026-11-0{n}T08:00:00Z"}
    return {"resourceType": "Observation", "id": str(n), "meta": meta, "valueQuantity": {"value": value}}


def searchset(*resources: dict[str, Any]) -> dict[str, Any]:
    entries = [{"resource": one, "search": {"mode": "match"}} for one in resources]
    links = [{"relation": "self", "url": "s"}, {"relation": "next", "url": "upstream"}]
    return {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries}


def get(target: str, token: str = "a") -> Sent:
    return read_sent(0, "GET", target, {"authorization": f"Bearer {token}"}, b"")


def ids(told: dict[str, Any]) -> list[str]:
    return [entry["resource"]["id"] for entry in told["entry"]]


def test_pages_are_mixed_one_match_stands_on_both_and_the_rest_follows() -> None:
    first, pages = mix(searchset(*(observation(n, 100) for n in range(1, 6))), lambda name: f"here?{name}") or ({}, None)
    assert pages is not None
    assert (ids(first), ids(pages.second)) == (["5", "3"], ["5", "1", "4", "2"])
    assert [link["url"] for link in first["link"]] == ["s", f"here?{pages.name}"]
    assert pages.second["link"][-1]["url"] == "upstream"
    assert mix(searchset(observation(1, 100)), str) is None


def test_a_correction_is_shown_where_the_reading_stands_and_to_who_asks_for_changes() -> None:
    def fresh() -> Any:
        return correct(searchset(observation(1, 100), observation(2, 104)), 0)

    again = searchset(observation(2, 104))
    correction = fresh()
    correction.show(again, "/fhir/Observation?patient=x")
    (shown,) = (entry["resource"] for entry in again["entry"])
    assert (shown["valueQuantity"]["value"], shown["meta"]["versionId"], shown["status"]) == (105, "2", "corrected")
    assert correction.is_over
    for target, is_given in (
        ("/fhir/Observation?_lastUpdated=ge2026-11-03", True),
        ("/fhir/Observation?_lastUpdated=gt2026-11-03T08:00:00.5Z", True),
        ("/fhir/Observation?_lastUpdated=ge2999-01-01", False),
        ("/fhir/Observation?_lastUpdated=gekitten", False),
        ("/fhir/Observation?date=ge2026-11-03", False),
        ("/fhir/Device?_lastUpdated=ge2026-11-03", False),
    ):
        correction, empty = fresh(), searchset()
        correction.show(empty, target)
        assert (correction.is_given, correction.searched, len(empty["entry"])) == (is_given, 1, int(is_given)), target
    alone, correction = observation(2, 104), fresh()
    correction.show(alone, "/fhir/Observation/2")
    assert (alone["valueQuantity"]["value"], correction.searched) == (105, 0)
    assert correct(searchset({"resourceType": "Device", "id": "d"}), 0) is None


def test_what_was_created_is_told_as_a_correction() -> None:
    entry = {"response": {"status": "201 Created", "location": "Observation/1/_history/1", "etag": 'W/"1"'}}
    refused = {"response": {"status": "422 Unprocessable"}}
    told = as_correction({"resourceType": "Bundle", "entry": [entry, refused]})
    assert told["entry"][0]["response"] == {"status": "200 OK", "location": "Observation/1/_history/2", "etag": 'W/"2"'}
    assert told["entry"][1] == refused
    assert as_correction(observation(1, 100))["meta"]["versionId"] == "2"


def test_a_refresh_token_is_good_once_and_the_sandbox_sees_its_own_token() -> None:
    given = Credentials("upstream")
    first, refresh = given.access_token, given.refresh_token

    def asked(token: str) -> Any:
        return given.renew(read_sent(0, "POST", "/oauth/token", {}, f"grant_type=refresh_token&refresh_token={token}".encode()))

    status, told = asked(refresh)
    assert status == 200
    assert {first, refresh}.isdisjoint((told["access_token"], told["refresh_token"]))
    assert asked(refresh) == (400, {"error": "invalid_grant", "error_description": "a refresh token is good once"})
    assert asked("somebody's own") is None
    assert given.renew(read_sent(0, "POST", "/oauth/token", {}, b"grant_type=authorization_code&code=x")) is None
    for token in (first, told["access_token"]):
        assert given.upstream_headers({"authorization": f"bearer {token}"}) == {"authorization": "Bearer upstream"}
    for other in ({"authorization": "Bearer mine"}, {"authorization": f"Basic {first}"}, {}):
        assert given.upstream_headers(other) == other
    assert first not in repr(given)


def test_what_has_expired_is_refused_until_nothing_is_learnt_from_it() -> None:
    expiry = Expiry(most=2)
    assert not expiry.refuses(get("/x"))
    expiry.expire(get("/x"))
    assert [expiry.refuses(get(f"/{n}")) for n in range(3)] == [True, True, False]
    assert (expiry.is_spent, expiry.refuses(get("/x", "b")), expiry.shown(get("/y"))) == (True, False, 3)


def test_a_wrong_clock_is_told_by_date_and_retry_after_alike() -> None:
    headers = CLOCK.events[0].told_headers(datetime.now(UTC))
    assert wait_told(httpx.Response(503, headers=headers)) == 3
    behind = datetime.now(UTC) - parsedate_to_datetime(headers["date"])
    assert timedelta(minutes=59) < behind < timedelta(minutes=61)


def read(exam: Exam, target: str, token: str = "a") -> tuple[str, Any]:
    sent = get(target, token)
    attempt, event = exam.meet(sent)
    attempt.status = event.status or 200
    return event.way, attempt


def test_a_client_that_asks_the_same_again_plays_one_scene_after_the_other() -> None:
    now = [0.0]
    exam = Exam(ROLES["document-consumer"], lambda: now[0])
    target = "/fhir/DocumentReference?patient=x"
    way, attempt = read(exam, target)
    assert way == "mix"
    exam.give_back(attempt)  # (there was one document only)
    ways = [read(exam, target)[0] for _ in range(3)]
    assert ways == ["mix", "refuse", "forward"]
    assert [scene.rule for scene in exam.begun()] == ["EXAM-13", "EXAM-02"]


def test_while_a_token_is_expired_others_play_no_scene() -> None:
    exam = Exam(replace(ROLES["document-consumer"], scenes=ROLES["document-consumer"].scenes[5:]))
    assert ROLES["document-consumer"].scenes[5].rule == "EXAM-06"
    assert [read(exam, f"/fhir/Binary/{n}")[0] for n in range(3)] == ["expire"] * 3
    assert [scene.rule for scene in exam.begun()] == ["EXAM-06"]
    assert read(exam, "/fhir/Binary/0", "b")[0] == "forward"
    exam.asked_for_token()
    verdict = exam.verdicts()[0]
    assert (verdict.outcome, verdict.reason) == ("failed", "the token endpoint was asked 0 times: once is right")


@pytest.mark.parametrize(
    ("held", "outcome", "reason"),
    [
        (None, "not applicable", "the client did not say what it holds"),
        ([("Observation/1", 100), ("Observation/2", 104)], "passed", ""),
        ([("Observation/1", 100)], "failed", "1 of 2 are missing: Observation/2"),
        ([("Observation/1", 100), ("Observation/1", 100), ("Observation/2", 104)], "failed", "1 are there twice"),
        ([("Observation/1", 100), ("Observation/2", 99)], "failed", "1 have another value than the last one that was given"),
    ],
)
def test_what_a_client_holds_is_held_against_what_it_was_given(held: Any, outcome: str, reason: str) -> None:
    exam = Exam(ROLES["external-service"])
    exam.gave(get("/fhir/Observation"), searchset(observation(1, 100), observation(2, 99)))
    exam.gave(get("/fhir/Observation"), searchset(observation(2, 104)))
    exam.held = None if held is None else [{"reference": name, "value": value} for name, value in held]
    verdict = exam.verdicts()[-1]
    assert (verdict.rule, verdict.outcome) == ("EXAM-15", outcome)
    assert verdict.reason.startswith(reason)


def test_documents_of_mixed_pages_are_fetched_once_each() -> None:
    documents = [
        {"resourceType": "DocumentReference", "id": str(n), "content": [{"attachment": {"url": f"http://x/fhir/Binary/{n}"}}]}
        for n in range(3)
    ]
    for fetched, wrong in (
        ([], ""),
        ([0, 1, 2], ""),
        ([0, 1], "1 of 3 documents were never fetched"),
        ([0, 1, 2, 2], "1 documents were fetched twice: what stands on two pages is one"),
    ):
        exam = Exam(ROLES["document-consumer"])
        _, attempt = read(exam, "/fhir/DocumentReference?patient=x")
        _, pages = mix(searchset(*documents), str) or ({}, None)
        assert pages is not None
        exam.mixed(attempt, pages)
        assert exam.page("another") is None
        assert exam.page(pages.name) is pages.second
        for n in fetched:
            exam.gave(get(f"/fhir/Binary/{n}"), None)
        assert exam.verdicts()[0].reason == wrong
