"""The only way out of the house: which hosts and addresses are called, and what an answer may be."""

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from unittest.mock import patch

import httpx
import pytest
import respx

from gateway.outbound import Outbound, Unreachable, may_be_called

LOOPBACK = (ip_network("127.0.0.0/8"),)


class Server:
    """A server on this machine that counts who connects and answers the same to everybody."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.connections, self.heard = answer, 0, b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.heard += await reader.read(65_536)
        writer.write(self.answer)
        await writer.drain()
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\nConnection: close\r\n\r\n{}")
    listening = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = listening.sockets[0].getsockname()[1]
    yield found
    listening.close()
    await listening.wait_closed()


async def ask(url: str, networks: Sequence[object] = (), addresses: Sequence[str] | None = None) -> httpx.Headers:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses or [host]

    outbound = Outbound([url], networks, resolve if addresses is not None else None)  # type: ignore[arg-type]
    try:
        return httpx.Headers(dict((await outbound.ask("GET", url, most_bytes=100)).headers))
    finally:
        await outbound.close()


@pytest.mark.requirement("ATK-T17")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "127.1"])
async def test_this_machine_is_refused_before_anything_connects(server: Server, host: str) -> None:
    with pytest.raises(Unreachable, match=r"^ConnectError$"):
        await ask(f"http://{host}:{server.port}/")
    assert server.connections == 0


@pytest.mark.requirement("ATK-T17")
@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "2002:a00:1::", "64:ff9b::a00:1",
        "2001:0:a00:1::1", "2001:db8::1",
    ],
)  # fmt: skip
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    with respx.mock(assert_all_called=False) as router:
        route = router.get(path="/").respond(200)
        for addresses in ([address], ["93.184.215.14", address]):
            with pytest.raises(Unreachable, match=r"^ConnectError$"):
                await ask("https://id.example/", (), addresses)
        assert route.call_count == 0


async def test_a_network_that_is_named_may_be_called(server: Server) -> None:
    await ask(f"http://127.0.0.1:{server.port}/", LOOPBACK)
    assert server.connections == 1
    assert b"accept-encoding: identity\r\n" in server.heard.lower()
    with pytest.raises(Unreachable):
        await ask(f"http://127.0.0.1:{server.port}/", [ip_network("10.0.0.0/8")])
    assert server.connections == 1


@pytest.mark.requirement("ATK-T17")
async def test_what_was_checked_is_what_is_called() -> None:
    """The name is resolved once: it cannot stand for another address when the connection is made (DNS rebinding)."""
    with respx.mock() as router:
        route = router.get("https://93.184.215.14/").respond(200)
        await ask("https://id.example/", (), ["93.184.215.14"])
        request = route.calls[0].request
        assert (request.headers["host"], request.extensions["sni_hostname"]) == ("id.example", "id.example")


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    with respx.mock() as router:
        router.get("https://93.184.215.14/").mock(side_effect=httpx.ConnectTimeout("no"))
        second = router.get("https://93.184.215.15/").respond(200)
        await ask("https://id.example/", (), ["93.184.215.14", "93.184.215.15"])
        assert second.call_count == 1


@pytest.mark.requirement("ATK-T17")
@pytest.mark.parametrize(
    "url",
    [
        "https://id.example.evil.example/", "https://id.example@evil.example/", "https://evil.example/", "http://id.example/",
        "https://id.example:8443/", "https://ID.example.", "//id.example", "",
    ],
)  # fmt: skip
async def test_only_configured_hosts_are_called(url: str) -> None:
    outbound = Outbound(["https://id.example/jwks"])
    with respx.mock, pytest.raises(Unreachable, match=r"^not a configured host$"):
        await outbound.ask("GET", url, most_bytes=1)
    await outbound.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.requirement("ATK-T17")
async def test_redirects_are_not_followed(server: Server, status: int) -> None:
    server.answer = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:{server.port}/\r\nContent-Length: 0\r\n\r\n".encode()
    outbound = Outbound([f"http://127.0.0.1:{server.port}"], LOOPBACK)
    reply = await outbound.ask("GET", f"http://127.0.0.1:{server.port}/", most_bytes=1)
    assert (reply.status, server.connections) == (status, 1)
    await outbound.close()


@pytest.mark.parametrize("head", ["Content-Length: 200000", "Transfer-Encoding: chunked"])
async def test_an_answer_ends_where_it_is_too_large(server: Server, head: str) -> None:
    body = b"x" * 200_000 if "Length" in head else b"30d40\r\n" + b"x" * 200_000 + b"\r\n0\r\n\r\n"
    server.answer = f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body
    with pytest.raises(Unreachable, match=r"^the answer is too large$"):
        await ask(f"http://127.0.0.1:{server.port}/", LOOPBACK)


async def test_an_answer_that_does_not_end_is_given_up(server: Server) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"
    with pytest.raises(Unreachable, match=r"^RemoteProtocolError$"):
        await ask(f"http://127.0.0.1:{server.port}/", LOOPBACK)


async def test_cookies_and_proxies_are_not_used(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/"
    with patch.dict(os.environ, {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}):
        outbound = Outbound([url], LOOPBACK)
        for _ in range(2):
            assert (await outbound.ask("GET", url, most_bytes=2)).body == b"{}"
        await outbound.close()
    assert b"cookie" not in server.heard.lower()


@pytest.mark.parametrize(
    ("url", "callable_"),
    [
        ("https://id.example/jwks?x=y", True), ("https://id.example:8443", True), ("https://93.184.215.14/", True),
        ("https://127.0.0.1/", True), ("http://127.0.0.1:80/", True), ("http://[::1]/", False), ("http://id.example/", False),
        ("http://localhost/", False), ("http://93.184.215.14/", False), ("https://10.0.0.1/", False), ("https://[::1", False),
        ("https://a b/", False), ("https://x/#f", False), ("https://u@x/", False), ("ftp://x/", False), ("https:///x", False),
        ("https://x:99999/", False), ("", False),
    ],
)  # fmt: skip
def test_which_urls_may_be_called(url: str, callable_: bool) -> None:
    assert may_be_called(url, LOOPBACK) is callable_


@pytest.mark.requirement("SEC-046")
@pytest.mark.parametrize("url", ["https://id.example/", "http://93.184.215.14/", "https://[2001:4860:4860::8888]/"])
async def test_an_unmocked_call_does_not_leave_a_test(nobody_calls_out: list[str], url: str) -> None:
    with pytest.raises(Unreachable, match=r"^(?:OSError|ConnectError)$"):
        await ask(url)
    assert [host for _, _, host in (tried.partition(" ") for tried in nobody_calls_out)] == [httpx.URL(url).host]
    nobody_calls_out.clear()


@pytest.mark.requirement("SEC-046")
def test_no_other_client_takes_the_place_of_the_one_that_is_mocked() -> None:
    assert importlib.util.find_spec("httpx2") is None
