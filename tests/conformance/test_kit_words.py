"""What the kit says of a failure: the rule in words, an exchange without secrets, and a line that a shell does again."""

import subprocess

import httpx
import pytest

from gateway.conformance.plugin import in_words
from gateway.conformance.target import Target, TargetError, read_target
from gateway.conformance.wire import Caller, Record


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Location\nassert 500 in (400, 422)", "expected: Location"),
        ("a total of 5\nassert 2 == 5", "expected: a total of 5\nseen: 2, where 5 is right"),
        ("nothing", "expected: nothing"),
        (f"all\nassert {'x' * 200} == 5\n  and more", "expected: all"),
        ("all\nassert [1] == [2]\n  \n  At index 0 diff: 1 != 2", "expected: all\nseen: [1], where [2] is right"),
    ],
)
def test_a_reason_is_said_in_words(said: str, told: str) -> None:
    assert in_words(said) == told


def test_a_curl_line_does_again_what_was_done_with_the_tokens_of_whoever_runs_it() -> None:
    record = Record({"s3cret": "OWNER_TOKEN", "s3cret-id": "ID_TOKEN"})
    body = '{"it\'s": "a $HOME \\"body\\""}'
    headers = {"authorization": "Bearer s3cret", "id-token": "s3cret-id", "accept": "application/fhir+json"}
    request = httpx.Request("POST", "http://127.0.0.1/fhir?a=s3cret", headers=headers, content=body)
    record.add(httpx.Response(401, request=request, json={"access_token": "new", "said": "s3cret"}))
    (said,) = record.exchanges
    assert "s3cret" not in f"{said}"
    assert '"access_token":"…"' in said.answer.replace(" ", "")
    script = f'curl() {{ printf "%s\\n" "$@"; }}; {said.curl}'
    environment = {"OWNER_TOKEN": "s3cret", "ID_TOKEN": "s3cret-id"}
    asked = subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert asked[:4] == ["-i", "-X", "POST", "http://127.0.0.1/fhir?a=s3cret"]
    assert {"authorization: Bearer s3cret", "id-token: s3cret-id", "accept: application/fhir+json"} <= set(asked)
    assert asked[-2:] == ["--data-binary", body]


def test_a_token_that_nobody_issued_is_no_secret() -> None:
    record = Record({})
    record.add(httpx.Response(401, request=httpx.Request("GET", "http://x/", headers={"authorization": "Bearer kit-nobody"})))
    assert "'authorization: Bearer kit-nobody'" in record.exchanges[0].curl


def test_each_role_has_a_variable_of_its_own() -> None:
    target = read_target("http://x/fhir", '[tokens]\nowner = "a"\npaired = "b"')
    assert target.secrets == {"a": "OWNER_TOKEN", "b": "PAIRED_TOKEN"}
    assert Target.from_json(target.to_json()) == target


def test_who_is_examined_may_be_somebody_else() -> None:
    told = read_target("http://x/fhir", '[exam.document-consumer]\ntoken = "t"\npatient = "p"')
    assert told.exams == {"document-consumer": {"token": "t", "patient": "p"}}
    assert Target.from_json(told.to_json()) == told
    for wrong, text in (
        ("exam = 1", "exam: a table of tables"),
        ('[exam.a]\npatient = "p"', r"exam\.a: a token, and perhaps a patient"),
        ('[exam.a]\ntoken = "t"\nkitten = "p"', r"exam\.a\.kitten: not known"),
    ):
        with pytest.raises(TargetError, match=text):
            read_target("http://x/fhir", wrong)


@pytest.mark.parametrize(
    ("answers", "status", "asked"), [([503, 200], 200, 2), ([503] * 9, 503, 4), ([429] * 5 + [201], 201, 6)]
)
def test_the_kit_waits_as_a_client_should_but_not_for_ever(answers: list[int], status: int, asked: int) -> None:
    left = iter(answers)
    transport = httpx.MockTransport(lambda _: httpx.Response(next(left), headers={"retry-after": "0"}))
    record = Record({})
    with httpx.Client(transport=transport) as http:
        answer = Caller(http, Target("http://x/fhir"), None, record, []).get("metadata")
    assert (answer.status_code, len(record.exchanges)) == (status, asked)
