"""Telling the numbers of a service at an address of its own, which whoever asks the service cannot reach by asking it.

Knows: HTTP enough for a scrape. Must not know: what is counted.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

from gateway.metrics import read_numbers, render
from gateway.settings import SettingsError

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@contextmanager
def telling_metrics(address: tuple[str, int] | None) -> Iterator[Path | None]:
    """`GET /metrics` at this address, if there is one, as long as this lasts. Yields the folder for the processes' numbers.

    Raises SettingsError where the address cannot be had.
    """
    if address is None:
        yield None
        return
    with TemporaryDirectory(prefix="gateway-metrics-") as folder:  # nobody else may look into it
        try:
            server = (_Server6 if ":" in address[0] else _Server)(address, _handler(Path(folder)))
        except OSError as error:
            raise SettingsError(f"GATEWAY_METRICS: cannot be listened at ({error.strerror})") from None
        Thread(target=server.serve_forever, daemon=True, name="metrics").start()
        try:
            yield Path(folder)
        finally:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


def _handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # seconds for a client to say what it wants

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            body = render(read_numbers(folder), time.time()).encode()
            self.send_response(200)
            self.send_header("Content-Type", _TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the name it has there)
            """Say nothing: a scrape is no event."""

    return Handler
