"""Laying down, once a second, what this process has counted, for whoever tells the numbers of the whole service.

Knows: what is asked of the parts of the gateway for it. Must not know: how numbers are told.
"""

import asyncio
import logging
import time
from pathlib import Path

from gateway.exchange.gateway import Gateway
from gateway.metrics import Metrics, Numbers
from gateway.telemetry import log

_PAUSE = 1.0


async def measure(gateway: Gateway, metrics: Metrics, folder: Path) -> None:
    """Lay down numbers for ever, and the last ones at the end."""
    try:
        while True:
            lay_down(gateway, metrics, folder)
            await asyncio.sleep(_PAUSE)
    finally:
        lay_down(gateway, metrics, folder)


def lay_down(gateway: Gateway, metrics: Metrics, folder: Path) -> None:
    """Lay down the numbers of this moment. What cannot be laid down now is so a second later."""
    waiting, since = gateway.audit.unsealed()
    states = {
        "gateway_mongo_connections_in_use": gateway.mongo.connections_in_use,
        "gateway_audit_unsealed_events": waiting,
        "gateway_audit_lag_seconds": (gateway.clock() - since).total_seconds() if since is not None else 0.0,
        "gateway_processes": 1,
    }
    counts = {**metrics.counts(), "gateway_mongo_calls_total": gateway.mongo.calls}
    try:
        metrics.lay_down(folder, Numbers(time.time(), counts, states))
    except OSError as error:
        log("metrics.not_laid_down", level=logging.WARNING, error=error)
