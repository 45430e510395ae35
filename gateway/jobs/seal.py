"""Sealing the audit: this process's events every few seconds, and those of processes that died.

Knows: how often. Must not know: how a seal is made.
"""

import asyncio
import logging

from gateway.exchange.gateway import Gateway
from gateway.problem import Problem
from gateway.store.audit import seal_for_the_dead
from gateway.telemetry import log

_PAUSE = 2.0
_ROUNDS_BETWEEN_SWEEPS = 15


async def seal_audit(gateway: Gateway) -> None:
    """Seal for ever. Each seal's hash is logged: kept outside the database, it shows if a chain's end was cut off."""
    rounds = 0
    while True:
        await asyncio.sleep(_PAUSE)
        rounds += 1
        try:
            for writer, number, digest in await gateway.audit.seal(gateway.clock()):
                log("audit.sealed", writer=writer, number=number, hash=digest)
            if rounds % _ROUNDS_BETWEEN_SWEEPS == 0:
                count = await seal_for_the_dead(gateway.mongo, gateway.clock())
                if count:
                    log("audit.sealed_for_the_dead", count=count)
        except Problem as problem:  # the store is away: the events stay in memory and are sealed when it is back
            log("audit.not_sealed", level=logging.WARNING, error=problem)
