"""What operators do at the machine itself: none of it without a trace in the audit.

Knows: that the event is durable before anything is done, and that what then fails leaves a second one which says so.
Must not know: commands, what they do. What is written here holds no secret.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

from gateway.exchange.audit import at_machine
from gateway.exchange.gateway import Gateway
from gateway.fhir.balp import FAILED
from gateway.problem import as_problem


@asynccontextmanager
async def operated(
    gateway: Gateway, operator: str, interaction: str, what: str, entities: Iterable[str] = (), *, patient: str | None = None
) -> AsyncIterator[None]:
    """Leave the trace of what is done within: who, what (`what`), to whom (`entities`: references).

    `patient`: in whose log it stands, too; that of the first Patient among the entities, where it is not told.
    """
    listed = tuple(entities)
    patient = patient or next((one.partition("/")[2] for one in listed if one.startswith("Patient/")), None)
    event = at_machine(operator, interaction, patient=patient, entities=listed, reason=what)
    await gateway.audit.open(gateway.clock(), by_operator=True)
    await gateway.audit.record([event], gateway.clock())
    try:
        yield
    except Exception as error:
        problem = as_problem(error, event.request_id)
        failed = replace(event, outcome=FAILED, reason=f"{what}: not done: {problem.issues[0].text}")
        await gateway.audit.record([failed], gateway.clock())
        raise
