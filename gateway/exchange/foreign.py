"""From another issuer's access token to what a token of ours would say.

Knows: how those whom the issuer's table names are found here, and what is answered where a token does not hold.
Must not know: HTTP, how tokens are verified.
"""

from datetime import datetime

from gateway.exchange.gateway import Gateway
from gateway.exchange.tokens import Grant, fields_of, require_actor, unknown_token
from gateway.fhir.values import token_values
from gateway.issuers.claims import Bearer, Refused, granted
from gateway.issuers.files import Issuer, Named
from gateway.outbound import Unreachable
from gateway.problem import Problem
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document
from gateway.store.resources import find_identified
from gateway.store.standing import token_key


async def read_foreign_token(gateway: Gateway, issuer: Issuer, token: str, now: datetime) -> Document:
    """What the store would hold of this token if it were ours.

    Raises Problem: 401 where the token does not hold, 403 where the issuer's table or our directory does not know its bearer,
    503 where the issuer would have to be asked and does not answer.
    """
    try:
        bearer = await gateway.issuers.bearer(issuer, token, now)
    except Refused:
        raise unknown_token() from None
    except Unreachable:
        text = "the issuer of this token cannot be asked at the moment"
        raise Problem("transient", text, headers={"Retry-After": "5"}) from None
    if bearer is None:
        raise Problem("forbidden", "tokens of this kind have no access here")
    grant = await _grant(gateway, issuer, bearer)
    try:
        await require_actor(gateway, grant)
    except Problem as problem:
        raise Problem("forbidden", problem.issues[0].text) from None
    subject = (issuer.issuer, bearer.subject) if bearer.subject is not None else ()
    return {"_id": token_key(token), **fields_of(grant, now), "expires": bearer.expires, "subject": subject}


async def _grant(gateway: Gateway, issuer: Issuer, bearer: Bearer) -> Grant:
    rule, client = bearer.rule, f"{issuer.name}:{bearer.client}"  # never the name of a client of ours
    user = await _find(gateway, rule.user, bearer.user)
    patient = user if rule.kind == "patient" else await _find(gateway, rule.patient, bearer.patient)
    reference = f"{rule.user.type}/{user}" if rule.user else None
    scopes = [scope for scope in dict.fromkeys(granted(issuer, bearer)) if _is_known(gateway, scope)]
    return Grant(
        client=client,
        kind=rule.kind,
        scope=" ".join(scopes),
        actors=(*([reference] if reference else []), *rule.actors),
        software=rule.software,
        source=rule.source,
        user=reference,
        patient=patient,
        certificate=bearer.certificate,
        purpose=rule.purpose,
    )


async def _find(gateway: Gateway, named: Named | None, text: str | None) -> str | None:
    """The id of whom a claim names. Raises Problem 403 where that is nobody here."""
    if named is None or text is None:
        return None
    if named.system is None:
        found = text if bucket_of(text) else None
    else:
        found = await find_identified(gateway.mongo, named.type, token_values(named.system, text)[0])
    if found is None:
        raise Problem("forbidden", f"the {named.type} whom the token names is not known here")
    return found


def _is_known(gateway: Gateway, scope: str) -> bool:
    """Whether this is a scope of ours. Issuers grant much else, which means nothing here."""
    try:
        gateway.scopes(scope)
    except Problem:
        return False
    return True
