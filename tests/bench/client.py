"""A lean HTTP client, so that what is measured is the server: prepared bytes out, as little parsing as can be in."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a whole request; returns status and body."""
        self._socket.sendall(request)
        data = self._rest
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        head, body = data[:end].lower(), data[end + 4 :]
        start = head.find(b"content-length:")
        length = (
            int(head[start + 15 : head.find(b"\r\n", start) if head.find(b"\r\n", start) > 0 else None]) if start > 0 else 0
        )
        parts = [body]
        have = len(body)
        while have < length:
            part = self._receive()
            parts.append(part)
            have += len(part)
        body = b"".join(parts)
        self._rest = body[length:]
        return int(head[9:12]), body[:length]

    def _receive(self) -> bytes:
        part = self._socket.recv(262_144)
        if not part:
            raise ConnectionError("the server closed the connection")
        return part

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def request(method: str, path: str, token: str, body: bytes | None = None) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {token}", "accept: application/fhir+json"]
    if body is not None:
        lines += ["content-type: application/fhir+json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


@dataclass(slots=True)
class Measured:
    """What a run of one job gave. `latencies` in seconds."""

    seconds: float
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Operations per second."""
        return len(self.latencies) / self.seconds

    def __add__(self, other: "Measured") -> "Measured":
        return Measured(self.seconds + other.seconds, self.latencies + other.latencies)

    def quantile(self, q: float) -> float:
        """Latency in milliseconds below which the part `q` of all operations stayed."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def drive(clients: int, seconds: float, worker: Callable[[int], Callable[[], None]]) -> Measured:
    """Run `clients` threads for `seconds`. `worker(n)` prepares thread n and returns its one operation."""
    results: list[list[float]] = [[] for _ in range(clients)]
    errors: list[BaseException] = []
    start = threading.Barrier(clients + 1)
    stop = threading.Event()

    def run(n: int) -> None:
        try:
            operation = worker(n)
            start.wait()
            while not stop.is_set():
                began = time.perf_counter()
                operation()
                results[n].append(time.perf_counter() - began)
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            errors.append(error)
            start.abort()

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        start.wait()
    except threading.BrokenBarrierError:
        raise errors[0] from None
    began = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Measured(time.perf_counter() - began, [latency for result in results for latency in result])


def forever(items: list[bytes]) -> Iterator[bytes]:
    """The items again and again."""
    while True:
        yield from items
