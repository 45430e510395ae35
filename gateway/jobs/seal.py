"""Sealing the audit: this process's events every few seconds, and those of processes that died.

Knows: how often. Must not know: how a seal is made.
"""

import asyncio
import logging
from collections.abc import Iterable

from gateway.exchange.gateway import Gateway
from gateway.store.chain import Sealed, seal_for_the_dead
from gateway.telemetry import log

_PAUSE = 2.0
_ROUNDS_BETWEEN_SWEEPS = 15


async def seal_audit(gateway: Gateway) -> None:
    """Seal for ever. Where that fails, the events stay in memory and are sealed later."""
    rounds = 0
    while True:
        await asyncio.sleep(_PAUSE)
        rounds += 1
        try:
            log_seals(await gateway.audit.seal(gateway.clock()))
            if rounds % _ROUNDS_BETWEEN_SWEEPS == 0:
                log_seals(await seal_for_the_dead(gateway.mongo, gateway.clock()))
        except Exception as error:  # noqa: BLE001 (a job that ended would leave all later events unsealed)
            log("audit.not_sealed", level=logging.WARNING, error=error)


async def end_audit(gateway: Gateway) -> None:
    """Seal the rest when the process ends. What cannot be sealed now, another process seals for the dead."""
    try:
        log_seals(await gateway.audit.close(gateway.clock()))
    except Exception as error:  # noqa: BLE001 (the rest of the shutdown has to go on)
        log("audit.not_sealed", level=logging.WARNING, error=error)


def log_seals(seals: Iterable[Sealed]) -> None:
    """Log the hash of each seal: kept outside the database, it shows if a chain's end was cut off."""
    for writer, number, digest in seals:
        log("audit.sealed", writer=writer, number=number, hash=digest)
