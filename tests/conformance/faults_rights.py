"""Faults about rights, documents and the log, each a small change of what a server is asked or answers.

Knows: HTTP. Must not know: the kit.
"""

import json
import re

from tests.conformance.faults import FAULTS, FHIR, Ask, Asked, Told, fault, ignoring, instead, is_search, without

OWNER = "Bearer demo-camille"

FAULTS["patches-one-of-many"] = instead(412, 200, "/Observation"), "CORE-08"
FAULTS["cannot-chain"] = ignoring("patient.identifier"), "SRCH-06"
FAULTS["includes-nothing"] = ignoring("_include"), "SRCH-08"
FAULTS["patches-without-a-version"] = without("etag"), "DOC-11"
FAULTS["ignores-archival"] = ignoring("isArchived"), "DOC-19"
FAULTS["token-answers-may-be-cached"] = without("cache-control"), "SEC-009"


def searchset() -> Told:
    return Told(200, {"content-type": FHIR}, b"").put({"resourceType": "Bundle", "type": "searchset", "total": 0})


@fault("SEC-022")
async def breaks_on_what_is_nested(asked: Asked, ask: Ask) -> Told:
    return Told(500, {"content-type": "text/plain"}, b"oops") if asked.body.count(b"[{") > 1_000 else await ask(asked)


@fault("SEC-048")
async def believes_what_is_forwarded(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    host = asked.headers.get("x-forwarded-host")
    if host:
        told.headers = {name: re.sub(r"//127\.0\.0\.1:\d+", f"//{host}", value) for name, value in told.headers.items()}
    return told


@fault("DOC-13")
async def addresses_of_content_are_relative(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    told.body = re.sub(rb'"url":"[^"]*/(Binary/[^"]*)"', rb'"url":"\1"', told.body)
    return told


@fault("DOC-16")
async def makes_no_submission_set(asked: Asked, ask: Ask) -> Told:
    return searchset() if is_search(asked) and asked.path.endswith("/List") else await ask(asked)


@fault("DOC-21")
async def contents_in_any_order(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if b'"batch-response"' in told.body:
        bundle = told.json
        bundle["entry"].reverse()
        return told.put(bundle)
    return told


@fault("DOC-22")
async def does_not_tell_what_was_replaced(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if is_search(asked) and "_lastUpdated" in asked.query:
        bundle = told.json
        entries = [entry for entry in bundle.get("entry", []) if entry["resource"].get("status") != "superseded"]
        return told.put({**bundle, "entry": entries})
    return told


@fault("SEC-01")
async def histories_of_what_is_masked(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if told.status == 404 and asked.path.endswith("/_history"):
        asked.headers["authorization"] = OWNER
        return await ask(asked)
    return told


@fault("SEC-02")
async def counts_what_is_not_yet_for_the_patient(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if is_search(asked) and "_summary=count" in asked.query and asked.headers.get("authorization") == OWNER:
        return told.put({**told.json, "total": 1})
    return told


@fault("SEC-03")
async def takes_all_labels_off(asked: Asked, ask: Ask) -> Told:
    asked.body = asked.body.replace(b'"remove", "path": "/securityLabel/1"', b'"remove", "path": "/securityLabel"')
    return await ask(asked)


def provision_without(element: str, value: object = None) -> None:
    """A fault: this element of what a Consent provides is not kept, or another in its place."""

    async def change(asked: Asked, ask: Ask) -> Told:
        if asked.method in ("PUT", "POST") and b'"resourceType": "Consent"' in asked.body:
            sent = json.loads(asked.body)
            sent.pop(element, None)
            sent["provision"].pop(element, None)
            if value is not None:
                sent["provision"][element] = value
            asked.body = json.dumps(sent).encode()
        return await ask(asked)

    rules = {"type": "CON-003", "modifierExtension": "CON-017"}
    FAULTS[f"consents-without-{element.lower()}"] = change, rules.get(element, "EXT-07")


provision_without("period")
provision_without("code")
provision_without("dataPeriod")
provision_without("type", "permit")
provision_without("modifierExtension")


@fault("AUD-02")
async def keeps_no_queries(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    told.body = re.sub(rb',"query":"[^"]*"', b"", told.body)
    return told


@fault("SEC-006")
async def sends_people_anywhere(asked: Asked, ask: Ask) -> Told:
    address = dict(asked.parameters).get("redirect_uri")
    return Told(302, {"location": f"{address}?error=invalid_client"}, b"") if address else await ask(asked)


@fault("SEC-024")
async def tells_anybody_of_tokens(asked: Asked, ask: Ask) -> Told:
    told = Told(200, {"content-type": "application/json"}, b'{"active": true}')
    return told if asked.path.endswith("/oauth/introspect") else await ask(asked)
