"""Asking other servers over HTTP: the only way out of this house.

Knows: which hosts may be called (those it was made for), which addresses these may have, and how long, how large and how
indirect an answer may be. Must not know: what is asked, and what for.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_SECONDS = 5.0  # for all of one question
_CONNECT_SECONDS = 2.0
_MOST_ADDRESSES = 4  # of one host, tried in turn
_MOST_CONNECTIONS = 20  # to one host
_NAT64 = ip_network("64:ff9b::/96")
_MAX_AGE = re.compile(r"\bmax-age=(\d{1,9})\b")


class Unreachable(Exception):
    """No usable answer came. The message says why and holds nothing of what was asked or answered."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `headers`: by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def fresh_seconds(self) -> float | None:
        """For how long it may be kept (https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2), None if it does not say."""
        said = self.headers.get("cache-control", "").lower()
        if "no-store" in said or "no-cache" in said:
            return 0.0
        told = _MAX_AGE.search(said)
        return float(told[1]) if told else None


class SharedFetch:
    """One fetch for all who wait for it, and none within so many seconds of the last: nobody can make us flood a server."""

    def __init__(self) -> None:
        self._tried = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def run(self, fetch: Callable[[], Coroutine[Any, Any, None]], now: float, between: float) -> None:
        """Return when a fetch has ended, whoever began it; at once where the last began less than `between` seconds ago."""
        if self._task is None or self._task.done():
            if 0 <= now - self._tried < between:
                return
            self._tried = now
            self._task = asyncio.create_task(fetch())
        # Whoever began it may go away: the others still wait for it.
        await asyncio.shield(self._task)

    async def close(self) -> None:
        """Give up a fetch that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def json_object(reply: Reply, status: int | None = None) -> dict[str, Any]:
    """The JSON object that came back; with this status. Raises Unreachable where it is none."""
    if status is not None and reply.status != status:  # a 401 refuses us, and not whom the question is about
        raise Unreachable(f"status {reply.status}")
    try:
        found: Any = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreachable("the answer is no JSON") from None
    if not isinstance(found, dict):
        raise Unreachable("the answer is no JSON object")
    return found


class Outbound:
    """Asks the hosts of `urls`, those that are admitted, and no others.

    Proxies and credentials of the environment are not used, redirects are not followed, cookies are not kept.
    `networks`: addresses that are no public ones and may be called nevertheless.
    """

    def __init__(self, urls: Iterable[str], networks: Iterable[Network] = (), resolve: Resolve | None = None) -> None:
        self._networks = tuple(networks)
        self._resolve = resolve or _resolve
        self._tls: ssl.SSLContext | None = None
        # A client for each origin: a connection made for one host must never serve another that has the same address.
        self._clients: dict[tuple[str, str, int | None], httpx.AsyncClient] = {}
        for url in urls:
            self.admit(url)

    def admit(self, url: str) -> None:
        """Ask the host of this URL from now on, too."""
        origin = _origin(url)
        if origin not in self._clients:
            self._tls = self._tls or httpx.create_ssl_context()  # takes a while, and only those who ask anybody
            self._clients[origin] = httpx.AsyncClient(
                transport=_CheckedTransport(self._tls, self._networks, self._resolve),
                timeout=httpx.Timeout(_SECONDS, connect=_CONNECT_SECONDS),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                headers={"Accept-Encoding": "identity"},
                follow_redirects=False,
                trust_env=False,
            )

    async def ask(
        self,
        method: str,
        url: str,
        *,
        most_bytes: int,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The answer of this URL, whatever its status. Raises Unreachable where none comes, or one that is too large."""
        client = self._clients.get(_origin(url))
        if client is None:
            raise Unreachable("not a configured host")
        try:
            async with asyncio.timeout(_SECONDS), client.stream(method, url, data=form, headers=headers) as response:
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Unreachable("the answer is compressed")
                body = b""
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > most_bytes:
                        raise Unreachable("the answer is too large")
                return Reply(response.status_code, dict(response.headers), body)
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            raise Unreachable(type(error).__name__) from None  # the texts of these errors can hold addresses

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


def may_be_called(url: str, networks: Iterable[Network]) -> bool:
    """Whether this is an https URL; or http to an address of this machine, where `networks` has it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port or an address that is none
        return False
    plain = not any(c.isspace() for c in url) and not parts.username and not parts.password and not parts.fragment
    if not host or port == 0 or not plain:
        return False
    try:
        literal = ip_address(host)
    except ValueError:
        return parts.scheme == "https"
    if not _is_allowed(host, tuple(networks)):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and literal.is_loopback)


class _CheckedTransport(httpx.AsyncHTTPTransport):
    """Connects to addresses that were checked, so that a name cannot stand for another address a moment later."""

    def __init__(self, tls: ssl.SSLContext, networks: tuple[Network, ...], resolve: Resolve) -> None:
        limits = httpx.Limits(max_connections=_MOST_CONNECTIONS)
        super().__init__(verify=tls, trust_env=False, limits=limits)
        self._networks = networks
        self._resolve = resolve

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the first address of its host that can be reached. The host's name stays in TLS and `Host`."""
        host = request.url.host
        addresses = await self._resolve(host, request.url.port or (443 if request.url.scheme == "https" else 80))
        if not addresses or not all(_is_allowed(address, self._networks) for address in addresses):
            raise httpx.ConnectError("the address is not one to be called")
        failed: httpx.ConnectError | httpx.ConnectTimeout | None = None
        for address in dict.fromkeys(addresses[:_MOST_ADDRESSES]):
            extensions = {**request.extensions, **({} if address == host else {"sni_hostname": host})}
            there = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                return await super().handle_async_request(there)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = error
        raise failed or httpx.ConnectError("no address")


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[4][0]) for place in found]


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port


def _is_allowed(text: str, networks: tuple[Network, ...]) -> bool:
    """Whether this address may be called: a public one, or one of these networks."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if any(address in network for network in networks):
        return True
    if isinstance(address, IPv6Address) and (address.sixtofour or address.teredo or address in _NAT64):
        return False  # another address stands inside, which nobody has checked
    return address.is_global and not address.is_multicast
