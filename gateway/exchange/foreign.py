"""From another issuer's access token to what a token of ours would say.

Knows: how those whom the issuer's table names are found here, and what is answered where a token does not hold.
Must not know: HTTP, how tokens are verified.
"""

from datetime import datetime

from gateway.exchange.gateway import Gateway
from gateway.exchange.professions import find_professions, professions_in
from gateway.exchange.tokens import Grant, fields_of, require_actor, unknown_token
from gateway.fhir.values import token_values
from gateway.issuers.claims import Bearer, Refused, granted
from gateway.issuers.files import Issuer, Named, Rule
from gateway.outbound import Unreachable
from gateway.problem import Problem
from gateway.store.ids import bucket_of
from gateway.store.mongo import Document
from gateway.store.owners import find_identified
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
    user, body = await _find(gateway, rule.user, bearer.user)
    patient = user if rule.kind == "patient" else (await _find(gateway, rule.patient, bearer.patient))[0]
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
        professions=await _professions(gateway, rule, reference, body),
    )


async def _professions(gateway: Gateway, rule: Rule, reference: str | None, body: bytes | None) -> tuple[str, ...]:
    """The professions of whom the rule names. They stand in what was found by their identifier: nobody is asked again."""
    if rule.kind != "professional" or rule.user is None or reference is None:
        return ()
    if body is None:
        return await find_professions(gateway, rule.kind, [reference])
    return tuple(sorted(professions_in(gateway, rule.user.type, body)))


async def _find(gateway: Gateway, named: Named | None, text: str | None) -> tuple[str | None, bytes | None]:
    """The id of whom a claim names and, if they were looked for, their body. Raises Problem 403 where that is nobody here."""
    if named is None or text is None:
        return None, None
    if named.system is None:
        if bucket_of(text):
            return text, None
    else:
        is_carer = named.type in ("Practitioner", "PractitionerRole")
        token = token_values(named.system, text)[0]
        found = await find_identified(gateway.mongo, named.type, token, with_body=is_carer)
        if found is not None:
            return found["_id"], bytes(found["body"]) if is_carer else None
    raise Problem("forbidden", f"the {named.type} whom the token names is not known here")


def _is_known(gateway: Gateway, scope: str) -> bool:
    """Whether this is a scope of ours. Issuers grant much else, which means nothing here."""
    try:
        gateway.scopes(scope)
    except Problem:
        return False
    return True
