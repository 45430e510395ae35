"""The web server: uvicorn as this gateway runs it, with an end to what it takes before a request's head is complete.

Knows: the server's options; how many bytes and seconds a head may take on the wire. (What is in it, `edge.py` limits.)
Must not know: requests.
"""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.respond import MEDIA_TYPE
from gateway.problem import Issue, operation_outcome

_MOST_BYTES = 65_536  # several times what edge.py admits, whose answer is the better one
_MOST_SECONDS = 10.0


def server_options() -> dict[str, Any]:
    """How uvicorn serves this gateway, wherever it listens (https://www.uvicorn.org/settings/)."""
    return {
        "access_log": False,  # `Edge` writes it
        "log_config": None,  # its own would write lines that are no JSON
        "log_level": "warning",
        "server_header": False,
        "proxy_headers": False,  # `Proxied` reads them, which also has to know who the proxy is
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": 25,
        "http": BoundedHttp,
        "ws": "none",
        "lifespan": "on",
    }


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose request line and headers do not come to an end. Bodies are bounded by `Edge`."""

    _is_in_head = False
    _bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(_MOST_SECONDS, self._give_up, "The request did not come.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on. A head that came in one piece costs nothing more than without this."""
        super().data_received(data)
        if self._is_in_head:
            self._bytes += len(data)
            if self._bytes > _MOST_BYTES:
                self._give_up("The head of the request is too long.")
            elif self._timer is None:
                self._timer = self.loop.call_later(_MOST_SECONDS, self._give_up, "The head of the request took too long.")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._is_in_head, self._bytes = True, 0

    def on_headers_complete(self) -> None:
        """It is there."""
        self._is_in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with what is no HTTP, as everything here says it; close the connection."""
        body = msgspec.json.encode(operation_outcome([Issue("invalid", msg)]))
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _give_up(self, text: str) -> None:
        self._stop_waiting()
        self._is_in_head = False
        if not self.transport.is_closing():
            self.send_400_response(text)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
