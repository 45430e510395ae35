"""Sweeping contents that were deposited and never named by a resource: their depositor went away, or was killed.

Knows: how often, and after how long. Must not know: how contents are stored.
"""

import asyncio
import logging
from datetime import timedelta

from gateway.exchange.gateway import Gateway
from gateway.store.contents import sweep_contents
from gateway.telemetry import log

_PAUSE = 600.0
_KEPT = timedelta(hours=24)  # by far longer than a deposit takes


async def sweep(gateway: Gateway) -> None:
    """Sweep for ever. What cannot be swept now is swept later."""
    while True:
        await sweep_once(gateway)
        await asyncio.sleep(_PAUSE)


async def sweep_once(gateway: Gateway) -> None:
    """Sweep what has been waiting for too long."""
    try:
        while swept := await sweep_contents(gateway.mongo, gateway.clock() - _KEPT):
            log("contents.swept", count=swept)
    except Exception as error:  # noqa: BLE001 (a job that ended would leave all later orphans)
        log("contents.not_swept", level=logging.WARNING, error=error)
