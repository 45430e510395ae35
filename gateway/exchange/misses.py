"""How often each client asked of late for patients who are not here: to be seen in the log, and nothing more.

Knows: the last hour of this process. Must not know: who was asked for.
"""

from collections import deque
from datetime import datetime, timedelta

_SPAN = timedelta(hours=1)
_MOST_COUNTED, _MOST_CLIENTS = 10_000, 1_000


class Misses:
    """Counts misses by client."""

    def __init__(self) -> None:
        self._times: dict[str, deque[datetime]] = {}

    def count(self, client: str, now: datetime) -> int:
        """One more; how many it has been in the last hour."""
        times = self._times.pop(client, None) or deque(maxlen=_MOST_COUNTED)
        self._times[client] = times  # the client that was quiet for longest stands first
        times.append(now)
        while times[0] <= now - _SPAN:
            times.popleft()
        if len(self._times) > _MOST_CLIENTS:
            del self._times[next(iter(self._times))]
        return len(times)
