"""The public keys of an issuer, fetched when they are needed and kept for a while.

Knows: which members of a JSON Web Key Set (RFC 7517) can be used, how long they hold, and how often they may be fetched.
Must not know: tokens.
"""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from joserfc.jwk import JWKRegistry, Key, RSAKey

from gateway.issuers.files import PublishedKeys
from gateway.outbound import Outbound, SharedFetch, Unreachable
from gateway.telemetry import log

_MOST_BYTES = 262_144
_MOST_KEYS = 100
_RSA_BITS = range(2_048, 8_193)


class Keys:
    """The keys of one issuer, by `kid`.

    They are fetched anew when they have grown old, or when a token names one that is not there: one fetch for all who wait,
    and none within `refetch_seconds` of the last, so that tokens with invented names cannot make the gateway flood an issuer.
    While the issuer cannot be reached, what was fetched holds on for `outage_seconds`.
    """

    def __init__(self, name: str, rules: PublishedKeys, outbound: Outbound) -> None:
        self._name = name
        self._rules = rules
        self._outbound = outbound
        self._keys: Mapping[str, Key] = {}
        self._fetched = float("-inf")
        self._fresh = 0.0
        self._failure = ""  # of the last fetch
        self._fetching = SharedFetch()

    async def find(self, kid: str, now: float) -> Key | None:
        """The key of this name, None where the issuer has none. Raises Unreachable where that cannot be known."""
        if kid not in self._keys or not self._is_younger(self._fresh, now):
            await self._fetch_once(now)
        if not self._is_younger(self._fresh + self._rules.outage_seconds, now):
            raise Unreachable(self._failure or "its keys are too old")
        key = self._keys.get(kid)
        if key is None and self._failure:
            raise Unreachable(self._failure)
        return key

    async def count(self, now: float) -> int:
        """How many keys the issuer has. Raises Unreachable where that cannot be known."""
        await self._fetch_once(now)
        if self._failure:
            raise Unreachable(self._failure)
        return len(self._keys)

    async def close(self) -> None:
        """Give up a fetch that is under way."""
        await self._fetching.close()

    def _is_younger(self, seconds: float, now: float) -> bool:
        return 0 <= now - self._fetched < seconds  # a clock that was set back makes everything old

    async def _fetch_once(self, now: float) -> None:
        await self._fetching.run(lambda: self._fetch(now), now, self._rules.refetch_seconds)

    async def _fetch(self, now: float) -> None:
        self._failure = "not answered yet"
        try:
            reply = await self._outbound.ask(
                "GET", self._rules.keys, most_bytes=_MOST_BYTES, headers={"Accept": "application/json"}
            )
            keys = parse_keys(reply.body) if reply.status == 200 else {}
            if not keys:
                raise Unreachable(f"status {reply.status}" if reply.status != 200 else "no usable key in the answer")
        except Unreachable as error:
            self._failure = str(error)
            log("issuer.unreachable", level=logging.WARNING, detail=f"{self._name}: {error}")
            return
        if keys.keys() != self._keys.keys():
            log("issuer.keys", detail=self._name, count=len(keys))
        self._keys, self._fetched, self._failure = keys, now, ""
        self._fresh = self._lifetime(reply.fresh_seconds)

    def _lifetime(self, said: float | None) -> float:
        """For how long these keys are fresh: as the issuer says, within what its file says."""
        most = self._rules.cache_seconds
        return most if said is None else max(self._rules.refetch_seconds, min(said, most))


def parse_keys(body: bytes) -> dict[str, Key]:
    """The usable members of a key set, by `kid`. One that cannot be used is left out; of two with one name, both are."""
    try:
        members = msgspec.json.decode(body)["keys"][:_MOST_KEYS]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return {}
    names = [member.get("kid") for member in members if isinstance(member, dict)]
    found = {}
    for member in members:
        if isinstance(member, dict) and names.count(member.get("kid")) == 1 and (key := _parse_key(member)) is not None:
            found[member["kid"]] = key
    return found


def _parse_key(member: dict[str, Any]) -> Key | None:
    operations = member.get("key_ops")
    if member.get("kty") not in ("RSA", "EC") or member.get("use", "sig") != "sig" or "d" in member:
        return None
    if not isinstance(member.get("kid"), str) or not (operations is None or "verify" in operations):
        return None
    try:
        key = JWKRegistry.import_key(member)
    except Exception:  # noqa: BLE001 (a stranger's key can fail in any way: it is left out, and the others hold)
        return None
    if isinstance(key, RSAKey) and key.public_key.key_size not in _RSA_BITS:
        return None
    return key
