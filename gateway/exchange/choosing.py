"""A professional says about whom software that needs a patient is to work: SMART's standalone launch with `launch/patient`.

Knows: that a patient is named by an identifier, typed in full, and has to be one whom the professional may see; the answer for
whoever may not be seen is that for nobody. Each question is in the audit (of the patient, where one was found), and misses are
counted in the log, as of any other look-up. Must not know: HTTP, pages.
"""

import logging
from collections.abc import Sequence

from gateway.exchange.accounts import Session
from gateway.exchange.addressed import find_addressed
from gateway.exchange.authorization import Authorization, over
from gateway.exchange.call import Call, Origin
from gateway.exchange.gateway import Gateway
from gateway.exchange.perform import perform
from gateway.exchange.persons import Acting, access_of
from gateway.exchange.standing import extend_to
from gateway.problem import Problem
from gateway.store.approvals import choose_patient
from gateway.telemetry import log

_SCOPE = "user/Patient.r"
_LONGEST = 200


def is_to_choose(authorization: Authorization, roles: Sequence[Acting]) -> bool:
    """Whether somebody with these roles has yet to say about whom."""
    if not authorization.asks_for_patient or not roles:
        return False
    return authorization.launch is None or authorization.launch["user"] not in {role.reference for role in roles}


async def choose(
    gateway: Gateway, authorization: Authorization, session: Session, roles: Sequence[Acting], typed: str, origin: Origin
) -> bool:
    """Open the request on the record of the patient with this identifier, as the first of these roles that may see them.

    Returns whether there is such a patient for any of them. Raises Problem where the request is over.
    """
    identifier = "".join(typed.split())[:_LONGEST]
    patient = await find_addressed(gateway, identifier)
    for role in roles:
        found = await _seen(gateway, session, role, patient, origin)
        if found is not None:
            chosen = {"user": role.reference, "patient": found}
            if not await choose_patient(gateway.mongo, authorization.handle, gateway.clock(), chosen):
                raise over()
            return True
    client = authorization.entry.client.client
    log("lookup.missed", level=logging.WARNING, client=client, count=gateway.misses.count(client, gateway.clock()))
    return False


async def _seen(gateway: Gateway, session: Session, role: Acting, patient: str, origin: Origin) -> str | None:
    """The id of the Patient as this role may see them, None where it may not."""
    access = await access_of(gateway, session, role, _SCOPE, session.workplaces)
    access = await extend_to(gateway, access, [patient])
    try:
        return (await perform(gateway, access, Call("read", "Patient", origin, id=patient))).id
    except Problem as problem:
        if problem.code not in ("not-found", "deleted"):
            raise
        return None
