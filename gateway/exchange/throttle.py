"""How much one caller may ask of a worker, so that who sends without end is told to wait and nobody else is.

Knows: token buckets (https://www.rfc-editor.org/rfc/rfc6585#section-4). Must not know: HTTP, MongoDB, what is asked.

A caller is a client with the person it acts for: of an app on many phones, each is counted for itself. What a request takes is
known when it is done, so a bucket may be overdrawn once; the next request waits until that is paid back. A visitor of the pages
is an account or, before anybody has logged in, an address: of IPv6 the network that one subscriber has.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network

from gateway.access.access import Caller
from gateway.problem import Problem
from gateway.settings import Allowance, Rate

_MOST = 20_000  # callers remembered; who was met first is forgotten first, with a full bucket
_SUBSCRIBER = 64  # bits of an IPv6 address; the others are the subscriber's to choose

Key = tuple[str, str, str]


class Throttle:
    """Counts what callers ask. `rates`: by client, or by kind of actor; who has none is not counted.

    `visitors`: what there is to ask without a token, by name; what is not there is not counted.
    """

    def __init__(self, rates: Mapping[str, Rate], visitors: Mapping[str, Allowance]) -> None:
        self._rates = rates
        self._visitors = visitors
        self._left: dict[Key, tuple[float, datetime]] = {}

    def admit(self, caller: Caller, now: datetime) -> None:
        """Count a request. Raises Problem 429 that says when to come again."""
        rate = self.rate_of(caller)
        if rate is None:
            return
        try:
            self._take(key_of(caller), rate, now)
        except Problem as problem:
            problem.headers = {**problem.headers, **self.headers(caller, now)}
            raise

    def admit_visitor(self, what: str, who: str | None, now: datetime) -> None:
        """Count what an account or an address asks for. Raises Problem 429 that says when to come again."""
        allowance = self._visitors.get(what)
        if allowance is not None:
            self._take(_visitor(what, who), allowance, now)

    def forgive(self, what: str, who: str | None, now: datetime) -> None:
        """What was counted is not: it turned out to be as it should."""
        allowance = self._visitors.get(what)
        if allowance is not None:
            key = _visitor(what, who)
            self._keep(key, min(allowance.burst, self._refilled(key, allowance, now) + 1), now)

    def headers(self, caller: Caller, now: datetime) -> dict[str, str]:
        """What a caller is told of its bucket (https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/): how
        much it holds and in how many seconds it fills up; how much is left, and in how many seconds it will be full.
        """
        rate = self.rate_of(caller)
        if rate is None:
            return {}
        left = self._refilled(key_of(caller), rate, now)
        full = math.ceil((rate.burst - left) / rate.per_second)
        name = caller.kind
        return {
            "RateLimit-Policy": f'"{name}";q={rate.burst};w={math.ceil(rate.burst / rate.per_second)}',
            "RateLimit": f'"{name}";r={max(0, math.floor(left))};t={full}',
        }

    def rate_of(self, caller: Caller) -> Rate | None:
        """What a caller may ask, None where it is not counted."""
        return self._rates.get(caller.client) or self._rates.get(caller.kind)

    def rate_of_kind(self, kind: str) -> Rate | None:
        """What a caller of this kind may ask unless something else is said of its client."""
        return self._rates.get(kind)

    def charge(self, caller: Caller, now: datetime, *, written: int, known: int) -> None:
        """Count what a request turned out to be: the resources it wrote beyond one, and those that were known."""
        rate = self.rate_of(caller)
        if rate is not None and written + known > 1:
            key = key_of(caller)
            self._keep(key, self._refilled(key, rate, now) - written - known * rate.known, now)

    def _take(self, key: Key, rate: Allowance | Rate, now: datetime) -> None:
        left = self._refilled(key, rate, now) - 1
        if left < 0:
            wait = math.ceil(-left / rate.per_second)
            text = f"more is asked than {rate.per_second:g} a second in the long run: come again in {wait} s"
            raise Problem("throttled", text, headers={"Retry-After": str(wait)})
        self._keep(key, left, now)

    def _refilled(self, key: Key, rate: Allowance | Rate, now: datetime) -> float:
        left, since = self._left.get(key, (rate.burst, now))
        return min(rate.burst, left + max(0.0, (now - since).total_seconds()) * rate.per_second)

    def _keep(self, key: Key, left: float, now: datetime) -> None:
        self._left[key] = left, now
        if len(self._left) > _MOST:
            del self._left[next(iter(self._left))]


def _visitor(what: str, who: str | None) -> Key:
    try:
        address = ip_address(who or "")
    except ValueError:  # an account, or nobody knows whence
        return f"visitor {what}", who or "", ""
    if not isinstance(address, IPv6Address):
        return f"visitor {what}", str(address), ""
    if address.ipv4_mapped is not None:
        return f"visitor {what}", str(address.ipv4_mapped), ""
    return f"visitor {what}", str(ip_network((int(address), _SUBSCRIBER), strict=False)), ""


def key_of(caller: Caller) -> Key:
    """By what a caller is told from others: a client with the person it acts for."""
    return caller.client, caller.user or "", caller.patient or ""
