"""Who asks at the partner face: a measurement app that is paired with a patient, and the names by which it knows both.

Knows: the checks of API Mesures 1.5.2 on tokens, and their texts. The specification of pairing is not public: here it is SMART
App Launch, the patient's number for the app (`idPe`) is the `sub` of its id_token, and the OIDs stand in the service catalogue.
Must not know: what is asked.
"""

from dataclasses import dataclass

from starlette.requests import Request

from gateway.access.access import Access
from gateway.api.negotiate import origin_of
from gateway.api.visit import gateway_of, visitor
from gateway.exchange.audit import refused
from gateway.exchange.call import Call
from gateway.exchange.catalogue import find_entry
from gateway.exchange.gateway import Gateway
from gateway.fhir.registry import ResourceType
from gateway.oauth.id_token import read_id_token
from gateway.oauth.visit import Server
from gateway.problem import Problem
from gateway.store.standing import About

INVALID_JWT = "HTTP code 400 : Bad request -> The ID_TOKEN value is not valid (invalid JWT)"
OID_CONFLICT = (
    "HTTP code 409 :OID conflict between the one from id_token and the one in the system"
    " -> OID different between id_token and ecosystem"
)
OTHER_PATIENT = "idPe requested do not match authorized idPe."
NO_CONSENT = "Consent not given, access refused."

# (A name with an underscore is dropped by common proxies; the text calls it ID_TOKEN.)
_HEADERS = ("id-token", "id_token")


@dataclass(frozen=True, slots=True)
class Pairing:
    """A paired app. `oid`: of the solution; `system` and `idpe`: its name for the patient; `patient`: the id here."""

    access: Access
    oid: str
    system: str
    idpe: str
    patient: str

    def require_patient(self, system: str | None, value: str | None, expression: str) -> None:
        """Refuse what is about anybody else than the patient whom the app is paired with."""
        if (system, value) != (self.system, self.idpe):
            raise Problem("forbidden", OTHER_PATIENT, expression)

    def require_consent(self, kind: ResourceType, interaction: str) -> None:
        """Refuse where the patient has not agreed to this direction: reading and writing are agreed to apart."""
        access = self.access
        if not access.is_in_scope(kind, interaction) or not access.reaches(kind, interaction, self.patient):
            raise Problem("forbidden", NO_CONSENT, kind.name)


async def pair(request: Request, interaction: str, type_name: str) -> Pairing:
    """Whoever asks. Raises Problem 401 without a token, 400 and 409 for an id_token that is not this app's, 403 for others."""
    gateway, server = gateway_of(request), request.app.state.oauth
    access = await visitor(request, About())
    call = Call(interaction, type_name, origin_of(request))
    try:
        return await _pairing(gateway, server, access, _id_token(request))
    except Problem as problem:
        await gateway.audit.record(refused(access, call, problem), access.now)
        raise


async def _pairing(gateway: Gateway, server: Server, access: Access, id_token: str | None) -> Pairing:
    caller = access.caller
    if caller.kind != "app" or caller.patient is None:
        raise Problem("forbidden", "this is for measurement apps that are paired with a patient")
    entry = await find_entry(gateway, caller.client)
    if entry is None or entry.client.oid is None:
        raise Problem("forbidden", "this is for solutions that have an OID in the service catalogue")
    approval = {"kind": caller.kind, "client": caller.client, "patient": caller.patient, "user": caller.user}
    idpe, oid = server.id_tokens.subject(approval), entry.client.oid
    if id_token is not None:
        claims = await read_id_token(server.id_tokens, server.keys, id_token, caller.client)
        if claims is None:
            raise Problem("invalid", INVALID_JWT, "Id-Token")
        if claims.get("oid") != oid:
            raise Problem("conflict", OID_CONFLICT, "Id-Token")
        if claims.get("sub") != idpe:
            raise Problem("forbidden", OTHER_PATIENT, "Id-Token")
    return Pairing(access, oid, f"urn:oid:{entry.client.patients_oid or oid}", idpe, caller.patient)


def _id_token(request: Request) -> str | None:
    given = [value for name in _HEADERS for value in request.headers.getlist(name)]
    if len(given) > 1:
        raise Problem("invalid", INVALID_JWT, "Id-Token")
    return given[0] if given else None
