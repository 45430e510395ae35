"""Assertions are used once: that one was is written down before anything is answered.

Knows: what is told where it was used before. Must not know: what is issued for it.
"""

from gateway.oauth.assertion import refused
from gateway.oauth.visit import Server
from gateway.store.issuing import Issue
from gateway.store.mongo import Stale


async def spend(server: Server, issue: Issue) -> None:
    """Write what is issued and by which assertion. Raises OAuthError where that was used before, in whatever process."""
    if issue.token is None and issue.used is None:
        return
    try:
        await server.issuing.write(issue)
    except Stale:
        raise refused("the assertion was used before (jti)") from None
