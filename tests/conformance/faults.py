"""Faults that servers have: each a small change of what the gateway is asked or answers, and the rule that must catch it.

Knows: HTTP. Must not know: the kit.
"""

import json
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

FHIR = "application/fhir+json"


@dataclass
class Asked:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def parameters(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query, keep_blank_values=True)

    def change(self, name: str, value: Callable[[str], str | None]) -> None:
        """Change a parameter of the query; None leaves it out."""
        told = [(n, value(v) if n == name else v) for n, v in self.parameters]
        self.query = urlencode([(n, v) for n, v in told if v is not None])


@dataclass
class Told:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def put(self, told: Any) -> "Told":
        self.body = json.dumps(told).encode()
        return self


Ask = Callable[[Asked], Awaitable[Told]]
Fault = Callable[[Asked, Ask], Awaitable[Told]]
FAULTS: dict[str, tuple[Fault, str]] = {}


def fault(rule: str) -> Callable[[Fault], Fault]:
    """This fault is what `rule` must catch."""

    def add(function: Fault) -> Fault:
        FAULTS[function.__name__.replace("_", "-")] = (function, rule)
        return function

    return add


def outcome(status: int, code: str = "processing") -> Told:
    told = Told(status, {"content-type": FHIR}, b"")
    return told.put({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code}]})


def is_search(asked: Asked) -> bool:
    return asked.method == "GET" and re.search(r"/fhir/[A-Z][A-Za-z]+$", asked.path) is not None


# What a request is missing when it arrives.


def dropping(name: str) -> Fault:
    async def drop(asked: Asked, ask: Ask) -> Told:
        asked.headers.pop(name, None)
        return await ask(asked)

    return drop


FAULTS["ignores-if-none-exist"] = dropping("if-none-exist"), "CORE-04"
FAULTS["ignores-if-match"] = dropping("if-match"), "CORE-05"
FAULTS["loses-updates"] = dropping("if-match"), "CORE-06"
FAULTS["never-not-modified"] = dropping("if-none-match"), "CORE-10"
FAULTS["ignores-prefer"] = dropping("prefer"), "CORE-14"


def without(header: str, status: int | None = None) -> Fault:
    async def strip(asked: Asked, ask: Ask) -> Told:
        told = await ask(asked)
        if status in (None, told.status):
            told.headers.pop(header, None)
        return told

    return strip


FAULTS["no-location"] = without("location"), "CORE-03"
FAULTS["no-etag"] = without("etag"), "CORE-03"
FAULTS["no-request-id"] = without("x-request-id"), "CORE-17"
FAULTS["no-www-authenticate"] = without("www-authenticate", 401), "EXT-05"
FAULTS["may-be-cached"] = without("cache-control"), "SEC-061"


def instead(status: int, other: int, path: str = "") -> Fault:
    async def change(asked: Asked, ask: Ask) -> Told:
        told = await ask(asked)
        if told.status == status and path in asked.path:
            told.status = other
        return told

    return change


FAULTS["created-is-ok"] = instead(201, 200), "CORE-03"
FAULTS["gone-is-not-found"] = instead(410, 404), "CORE-09"
FAULTS["bad-token-is-forbidden"] = instead(401, 403), "EXT-05"
FAULTS["hidden-is-forbidden"] = instead(404, 403, "-noe"), "SEC-05"
FAULTS["malformed-is-a-server-error"] = instead(400, 500), "SRCH-10"


def ignoring(parameter: str) -> Fault:
    async def ignore(asked: Asked, ask: Ask) -> Told:
        asked.change(parameter, lambda _: None)
        return await ask(asked)

    return ignore


FAULTS["ignores-unknown-parameters"] = ignoring("kitten"), "CORE-15"
FAULTS["ignores-count"] = ignoring("_count"), "SRCH-09"
FAULTS["ignores-sort"] = ignoring("_sort"), "SRCH-02"
FAULTS["ignores-elements"] = ignoring("_elements"), "SRCH-09"
FAULTS["ignores-dates"] = ignoring("date"), "SRCH-04"


# Faults with something of their own.


@fault("CORE-01")
async def metadata_needs_a_token(asked: Asked, ask: Ask) -> Told:
    if asked.path.endswith("/metadata") and "authorization" not in asked.headers:
        return outcome(401, "login")
    return await ask(asked)


@fault("CORE-01")
async def another_version_of_fhir(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    told.body = told.body.replace(b'"4.0.1"', b'"5.0.0"')
    return told


@fault("CORE-02")
async def declares_too_much(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if not asked.path.endswith("/metadata"):
        return told
    statement = told.json
    kind = next(one for one in statement["rest"][0]["resource"] if one["type"] == "Observation")
    kind["searchParam"].append({"name": "kitten", "type": "token"})
    return told.put(statement)


@fault("CORE-07")
async def patches_nothing(asked: Asked, ask: Ask) -> Told:
    if asked.method == "PATCH":
        asked.method, asked.body = "GET", b""
        asked.headers.pop("content-type", None)
    return await ask(asked)


@fault("CORE-09")
async def oldest_version_first(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if asked.path.endswith("/_history") and told.status == 200:
        bundle = told.json
        bundle["entry"].reverse()
        return told.put(bundle)
    return told


@fault("CORE-11")
async def gives_json_whatever_is_asked_for(asked: Asked, ask: Ask) -> Told:
    asked.headers["accept"] = FHIR
    return await ask(asked)


@fault("CORE-11")
async def takes_anything_for_json(asked: Asked, ask: Ask) -> Told:
    if "content-type" in asked.headers:
        asked.headers["content-type"] = FHIR
    return await ask(asked)


@fault("CORE-12")
async def any_version_of_fhir(asked: Asked, ask: Ask) -> Told:
    asked.headers["accept"] = asked.headers.get("accept", FHIR).split(";")[0]
    return await ask(asked)


@fault("CORE-13")
async def errors_in_plain_words(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    return Told(told.status, {"content-type": "text/plain"}, b"No.") if told.status >= 400 else told


@fault("CORE-16")
async def takes_unknown_elements(asked: Asked, ask: Ask) -> Told:
    asked.body = asked.body.replace(b', "kitten": 1', b"")
    return await ask(asked)


@fault("CORE-18")
async def loses_digits(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    return told.put(told.json) if told.status == 200 and asked.method == "GET" else told


@fault("CORE-19")
async def believes_the_client(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if b'"versionId": "99"' in asked.body:
        told.body = re.sub(rb'"versionId":\s*"[^"]*"', b'"versionId": "99"', told.body)
    return told


@fault("BUN-01")
async def answers_in_the_order_of_doing(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if told.status == 200 and b"-response" in told.body:
        bundle = told.json
        bundle["entry"].reverse()
        return told.put(bundle)
    return told


@fault("BUN-02")
async def stores_what_it_can(asked: Asked, ask: Ask) -> Told:
    asked.body = asked.body.replace(b'"type": "transaction"', b'"type": "batch"')
    told = await ask(asked)
    told.body = told.body.replace(b'"batch-response"', b'"transaction-response"')
    return told


@fault("BUN-03")
async def leaves_references_as_they_are(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if asked.method == "GET" and told.status == 200:
        told.body = re.sub(rb'"reference":"Observation/[^"]*"', b'"reference":"urn:uuid:0"', told.body)
    return told


@fault("BUN-07")
async def one_bad_entry_spoils_the_batch(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    return outcome(400) if b'"batch-response"' in told.body and b'"status":"404' in told.body else told


@fault("BUN-09")
async def takes_two_of_one_name(asked: Asked, ask: Ask) -> Told:
    if b'"transaction"' in asked.body:
        asked.body = re.sub(rb'"fullUrl": "[^"]*"', lambda _: f'"fullUrl": "urn:uuid:{uuid.uuid4()}"'.encode(), asked.body)
    return await ask(asked)


@fault("SRCH-01")
async def no_search_by_post(asked: Asked, ask: Ask) -> Told:
    return outcome(404) if asked.path.endswith("/_search") else await ask(asked)


@fault("SRCH-02")
async def counts_the_page(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if is_search(asked) and told.status == 200:
        bundle = told.json
        return told.put({**bundle, "total": len(bundle.get("entry", []))})
    return told


@fault("SRCH-02")
async def next_is_the_same_page(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if is_search(asked) and told.status == 200:
        bundle = told.json
        here = next(link["url"] for link in bundle["link"] if link["relation"] == "self")
        links = [{**link, "url": here if link["relation"] == "next" else link["url"]} for link in bundle["link"]]
        return told.put({**bundle, "link": links})
    return told


@fault("SRCH-04")
async def dates_are_days(asked: Asked, ask: Ask) -> Told:
    asked.change("date", lambda value: value.split("T")[0])
    return await ask(asked)


@fault("SRCH-05")
async def the_first_of_several_values(asked: Asked, ask: Ask) -> Told:
    asked.change("identifier", lambda value: value.split(",")[0])
    return await ask(asked)


@fault("SRCH-14")
async def full_url_is_relative(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    told.body = re.sub(rb'"fullUrl":"[^"]*/fhir/', b'"fullUrl":"', told.body)
    return told


@fault("CGM-02")
async def one_bad_reading_spoils_all(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    return outcome(422) if "$submit" in asked.path and b'"status":"4' in told.body else told


@fault("CGM-03")
async def every_reading_is_new(asked: Asked, ask: Ask) -> Told:
    if "$submit" in asked.path:
        bundle = json.loads(asked.body)
        for n, entry in enumerate(bundle["entry"]):
            for identifier in entry.get("resource", {}).get("identifier", []):
                identifier["value"] = f"{uuid.uuid4()}-{n}"
        asked.body = json.dumps(bundle).encode()
    return await ask(asked)


@fault("CGM-05")
async def takes_any_unit(asked: Asked, ask: Ask) -> Told:
    asked.body = asked.body.replace(b'"kg"', b'"mg/dL"')
    return await ask(asked)


@fault("DOC-04")
async def believes_what_is_claimed(asked: Asked, ask: Ask) -> Told:
    asked.body = re.sub(rb'"size": [0-9]+, "hash": "[^"]*"', b'"language": "fr"', asked.body)
    return await ask(asked)


@fault("DOC-08")
async def forgets_what_is_replaced(asked: Asked, ask: Ask) -> Told:
    asked.body = re.sub(rb', "relatesTo": \[[^\]]*\]', b"", asked.body)
    return await ask(asked)


@fault("DOC-10")
async def says_that_it_changed(asked: Asked, ask: Ask) -> Told:
    if asked.method == "PATCH" and b"/description" in asked.body:
        asked.method, asked.body = "GET", b""
        asked.headers.pop("content-type", None)
    return await ask(asked)


@fault("DOC-12")
async def finds_nothing_rather_than_refusing(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    empty = {"resourceType": "Bundle", "type": "searchset", "total": 0}
    return Told(200, {"content-type": FHIR}, b"").put(empty) if is_search(asked) and told.status == 400 else told


@fault("DOC-14")
async def damages_content(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if told.headers.get("content-type", "").startswith("application/pdf"):
        told.body = told.body[:-1] + b"?"
    return told


@fault("DOC-18")
async def every_document_is_new(asked: Asked, ask: Ask) -> Told:
    renamed = f'"value": "urn:oid:2.25.{uuid.uuid4().int}"'.encode()
    asked.body = re.sub(rb'(?<="masterIdentifier": \{"system": "urn:ietf:rfc:3986", )"value": "[^"]*"', renamed, asked.body)
    return await ask(asked)


@fault("EXT-01")
async def offers_plain(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    told.body = told.body.replace(b'["S256"]', b'["S256","plain"]')
    return told


@fault("SEC-060")
async def takes_tokens_from_addresses(asked: Asked, ask: Ask) -> Told:
    given = dict(asked.parameters).get("access_token")
    if given:
        asked.headers["authorization"] = f"Bearer {given}"
        asked.change("access_token", lambda _: None)
    return await ask(asked)


@dataclass
class Remembered:
    """What was once answered is answered again: a cache that does not know of consent."""

    answers: MutableMapping[tuple[str, str, str], Told] = field(default_factory=dict)

    async def __call__(self, asked: Asked, ask: Ask) -> Told:
        key = (asked.headers.get("authorization", ""), asked.path, asked.query)
        if asked.method == "GET" and "Consent" not in asked.path and key in self.answers:
            return self.answers[key]
        told = await ask(asked)
        if asked.method == "GET" and told.status == 200:
            self.answers[key] = told
        return told


FAULTS["remembers-what-was-seen"] = Remembered(), "EXT-06"
FAULTS["remembers-what-was-withdrawn"] = Remembered(), "DOC-20"


@fault("SRCH-11")
async def counts_what_is_hidden(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if is_search(asked) and told.status == 200 and "professional" in asked.headers.get("authorization", ""):
        bundle = told.json
        return told.put({**bundle, "total": max(1, bundle.get("total", 0))})
    return told


@fault("AUD-01")
async def keeps_no_log(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    return (
        told.put({**told.json, "entry": [], "total": 0}) if asked.path.endswith("/AuditEvent") and told.status == 200 else told
    )


@fault("AUD-05")
async def logs_no_refusals(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    told.body = told.body.replace(b'"action":"E"', b'"action":"R"')
    return told


@fault("AUD-07")
async def the_log_can_be_changed(asked: Asked, ask: Ask) -> Told:
    return Told(204, {}, b"") if asked.method == "DELETE" and "/AuditEvent/" in asked.path else await ask(asked)
