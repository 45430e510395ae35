"""Faults of the face for measures, each a small change of what it is asked or answers.

Knows: HTTP. Must not know: the kit.
"""

import base64
import json
import re
import uuid

from tests.conformance.faults import FHIR, Ask, Asked, Told, fault


def is_push(asked: Asked) -> bool:
    return asked.method == "POST" and asked.path.endswith("/mesures")


def is_read(asked: Asked) -> bool:
    return asked.method == "GET" and asked.path.endswith("/mesures/Observation")


def nothing_found() -> Told:
    return Told(200, {"content-type": FHIR}, b"").put({"resourceType": "Bundle", "type": "searchset", "total": 0, "link": []})


@fault("MES-01")
async def creates_what_should_be_changed(asked: Asked, ask: Ask) -> Told:
    if is_push(asked):
        asked.body = asked.body.replace(b'"method": "PUT", "url": "Observation/kit"', b'"method": "POST", "url": "Observation"')
    return await ask(asked)


@fault("MES-01")
async def refuses_measures_in_words_of_its_own(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    told.body = told.body.replace(b"Bundle must contains one observation creation (POST)", b"one Observation, please")
    return told


@fault("MES-02")
async def overlooks_the_number_of_days(asked: Asked, ask: Ask) -> Told:
    if is_push(asked) and b'"2345-7"' in asked.body:
        sent = json.loads(asked.body)
        for entry in sent["entry"]:
            kept = [one for one in entry["resource"].get("extension", []) if not one["url"].endswith("number-of-days")]
            entry["resource"]["extension"] = kept
        asked.body = json.dumps(sent).encode()
    return await ask(asked)


@fault("MES-02")
async def takes_millimoles(asked: Asked, ask: Ask) -> Told:
    asked.body = asked.body.replace(b'"mmol/L"', b'"mg/dL"')
    return await ask(asked)


@fault("MES-03")
async def every_scale_is_new(asked: Asked, ask: Ask) -> Told:
    if is_push(asked):
        name = f"kit-{uuid.uuid4()}".encode()
        asked.body = re.sub(rb"kit-[0-9a-f]{8}-[0-9a-f-]{27}", name, asked.body)
    return await ask(asked)


@fault("MES-04")
async def believes_any_source(asked: Asked, ask: Ask) -> Told:
    asked.body = re.sub(rb', "source": "[^"]*"', b"", asked.body)
    return await ask(asked)


@fault("MES-05")
async def writes_for_whoever_the_token_is_of(asked: Asked, ask: Ask) -> Told:
    if is_push(asked):
        claims = asked.headers["id-token"].split(".")
        if len(claims) == 3:
            sub = json.loads(base64.urlsafe_b64decode(claims[1] + "=="))["sub"]
            asked.body = asked.body.replace(b'"kit-nobody"', f'"{sub}"'.encode())
    return await ask(asked)


@fault("MES-05")
async def ignores_the_id_token(asked: Asked, ask: Ask) -> Told:
    asked.headers.pop("id-token", None)
    return await ask(asked)


@fault("MES-06")
async def finds_nothing_without_consent(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    return nothing_found() if is_read(asked) and told.status == 403 and b"Consent" in told.body else told


@fault("MES-07")
async def pages_of_any_size(asked: Asked, ask: Ask) -> Told:
    asked.change("_count", lambda value: "100" if value == "101" else value)
    return await ask(asked)


@fault("MES-07")
async def offsets_count_measures(asked: Asked, ask: Ask) -> Told:
    if is_read(asked) and dict(asked.parameters).get("_offset") == "1":
        asked.change("_offset", lambda _: "0")
    return await ask(asked)


@fault("MES-08")
async def has_forgotten_former_codes(asked: Asked, ask: Ask) -> Told:
    return nothing_found() if is_read(asked) and dict(asked.parameters).get("code") == "MED-969" else await ask(asked)


@fault("MES-09")
async def takes_a_body_mass_index(asked: Asked, ask: Ask) -> Told:
    if is_push(asked):
        asked.body = asked.body.replace(b'"39156-5"', b'"29463-7"').replace(b'"kg/m2"', b'"kg"')
    return await ask(asked)


@fault("MES-10")
async def adds_the_category_itself(asked: Asked, ask: Ask) -> Told:
    if is_push(asked) and b'"category"' not in asked.body:
        coding = b'{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}'
        asked.body = asked.body.replace(b'"status": "final"', b'"status": "final", "category": [{"coding": [' + coding + b"]}]")
    return await ask(asked)


@fault("MES-11")
async def every_measure_is_new(asked: Asked, ask: Ask) -> Told:
    if is_push(asked):
        named = f'"identifier": [{{"system": "urn:x:y", "value": "{uuid.uuid4()}"}}], "status": "final"'
        asked.body = asked.body.replace(b'"status": "final"', named.encode())
    return await ask(asked)


@fault("MES-12")
async def mixes_means_and_readings(asked: Asked, ask: Ask) -> Told:
    told = await ask(asked)
    if is_read(asked) and told.status == 200 and dict(asked.parameters).get("code") == "99504-3":
        found = told.json
        for entry in found["entry"][:1]:
            reading = {**entry["resource"], "valueQuantity": {**entry["resource"]["valueQuantity"], "value": 104}}
            found["entry"].append({**entry, "resource": reading})
        return told.put(found)
    return told
