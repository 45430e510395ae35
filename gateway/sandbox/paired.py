"""The id_token of MesureApp, the app for measures that is paired with Camille (`village/tour.toml`).

Knows: what the face for measures reads in an id_token (`gateway/mesures/pairing.py`). Must not know: MongoDB, HTTP.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.exchange.catalogue import find_entry
from gateway.exchange.gateway import Gateway
from gateway.oauth.id_token import IdTokens
from gateway.oauth.keys import SigningKeys
from gateway.sandbox.people import People

APP = "mesureapp"


async def pair_app(gateway: Gateway, people: People) -> People:
    """The people, with what the app was told when it was paired: an id_token whose `sub` is the patient's number for it, and
    the system of that number.
    """
    entry = await find_entry(gateway, APP)
    if entry is None or entry.client.oid is None:
        return people
    now, patient = gateway.clock(), people.ids["camille"]
    approval: Mapping[str, Any] = {
        "client": APP,
        "kind": "app",
        "patient": patient,
        "user": f"Patient/{patient}",
        "plain": ["openid"],
        "logged_in": now,
        "level": "urn:fhir-document-gateway:sandbox",
        "nonce": None,
    }
    keys = SigningKeys(gateway.mongo, gateway.sealer, gateway.clock)
    id_token = IdTokens(gateway.settings).make(await keys.signing(), approval, now, entry.client.oid)
    system = f"urn:oid:{entry.client.patients_oid or entry.client.oid}"
    return replace(people, paired={"id_token": id_token, "patients": system})
