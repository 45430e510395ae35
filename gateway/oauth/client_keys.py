"""The keys of clients: those in their entries, and those that they publish at an address of their own.

Knows: how long a set holds (as long as its client says, ten minutes at most), and how often it may be asked for: whoever sends
assertions with invented names must not make the gateway flood a client. Must not know: assertions.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from joserfc.jwk import Key

from gateway.exchange.client import Client
from gateway.oauth.key_sets import find_key, usable_keys
from gateway.outbound import Outbound, Reply, SharedFetch, Unreachable
from gateway.telemetry import log

_MOST_BYTES = 262_144
_MOST_SETS = 1_000
_LONGEST, _BETWEEN = 600.0, 30.0  # seconds
_AT_ONCE = 1.0  # seconds; requests that come together share what one of them fetched, whatever the client says


@dataclass(slots=True)
class _Held:
    """What is known of one address. `fetched`: when, in seconds; `fresh`: for how long the keys hold."""

    keys: Sequence[Key] = ()
    fetched: float = float("-inf")
    fresh: float = 0.0
    fetching: SharedFetch = field(default_factory=SharedFetch)


class ClientKeys:
    """The key sets of clients: in memory what their entries say, and by address what was fetched."""

    def __init__(self, outbound: Outbound, clock: Callable[[], datetime]) -> None:
        self._outbound = outbound
        self._clock = clock
        self._sets: dict[str, _Held] = {}
        self._inline: dict[str, tuple[Sequence[Any], Sequence[Key]]] = {}

    async def find(self, client: Client, key_id: str, key_type: str) -> Key | None:
        """The one key of this name and type that a client has. Raises Unreachable where its set cannot be fetched."""
        if client.jwks_uri is None:
            return find_key(self._imported(client), key_id, key_type)
        return await self._find_at(client.jwks_uri, key_id, key_type)

    def _imported(self, client: Client) -> Sequence[Key]:
        """The keys of an entry. Importing them takes longer than all else but the signature."""
        known = self._inline.get(client.client)
        if known is None or known[0] != client.keys:
            known = self._inline[client.client] = (client.keys, usable_keys(client.keys))
            if len(self._inline) > _MOST_SETS:
                del self._inline[next(iter(self._inline))]
        return known[1]

    async def _find_at(self, url: str, key_id: str, key_type: str) -> Key | None:
        held = self._hold(url)
        if not self._is_fresh(held):
            await self._fetch_once(url, held, _AT_ONCE)
            if not self._is_fresh(held):
                raise Unreachable("the keys of the client cannot be fetched")
        found = find_key(held.keys, key_id, key_type)
        if found is None:
            await self._fetch_once(url, held, _BETWEEN)  # it may have come since
            found = find_key(held.keys, key_id, key_type)
        return found

    async def close(self) -> None:
        """Close all connections."""
        await self._outbound.close()

    def _hold(self, url: str) -> _Held:
        held = self._sets.pop(url, None) or _Held()
        self._sets[url] = held  # the last that was asked for goes last
        if len(self._sets) > _MOST_SETS:
            del self._sets[next(iter(self._sets))]
        return held

    def _is_fresh(self, held: _Held) -> bool:
        return 0 <= self._clock().timestamp() - held.fetched < max(held.fresh, _AT_ONCE)

    async def _fetch_once(self, url: str, held: _Held, between: float) -> None:
        now = self._clock().timestamp()
        await held.fetching.run(lambda: self._fetch(url, held, now), now, between)

    async def _fetch(self, url: str, held: _Held, now: float) -> None:
        try:
            self._outbound.admit(url)
            reply = await self._outbound.ask("GET", url, most_bytes=_MOST_BYTES, headers={"Accept": "application/json"})
            held.keys, held.fetched = _read(reply), now
            held.fresh = _LONGEST if reply.fresh_seconds is None else min(reply.fresh_seconds, _LONGEST)
        except Unreachable as error:
            log("client.unreachable", level=logging.WARNING, detail=str(error))


def _read(reply: Reply) -> Sequence[Key]:
    if reply.status != 200:
        raise Unreachable(f"status {reply.status}")
    try:
        return usable_keys(msgspec.json.decode(reply.body)["keys"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        raise Unreachable("no key set in the answer") from None
