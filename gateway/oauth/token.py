"""POST /oauth/token (RFC 6749 §3.2): who asks is looked up, the core decides, what it decided is written before the answer.

What rests on an approval is decided where its codes and refresh tokens are, with the database.
"""

import secrets
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from gateway.exchange.audit import granted
from gateway.exchange.call import Origin
from gateway.exchange.statement import Behind, read_statement
from gateway.exchange.tokens import fields_of, revoke_token
from gateway.oauth.approved import GRANTS, grant
from gateway.oauth.authenticate import Asker, authenticate, require_certificate, require_standing
from gateway.oauth.core import Asked
from gateway.oauth.respond import OAuthError, respond_json
from gateway.oauth.spend import spend
from gateway.oauth.visit import Server, read_form
from gateway.problem import Problem
from gateway.store.issuing import Issue
from gateway.store.standing import token_key


async def token(request: Request, server: Server) -> Response:
    """A token, or the reason why not."""
    form = await read_form(request)
    asker = await authenticate(server, request, form)
    asker = replace(asker, certificate=require_certificate(request, asker.entry.client))
    if form.get("grant_type") in GRANTS:
        await spend(server, Issue(None, asker.used))
        return respond_json(await grant(server, asker, form))
    behind = await _behind(server, asker)
    asked = Asked(
        form,
        asker.entry,
        asker.method,
        secrets.token_urlsafe(16),
        server.gateway.clock(),
        asker.certificate,
        reads=behind is not None or asker.entry.client.kind not in server.gateway.policy.statement_needed,
        behind=behind,
    )
    decided = server.core.decide(asked)
    await _write(server, asker, asked, Origin(request.state.request_id, request.client.host if request.client else None))
    return respond_json(decided.body, decided.status)


async def _behind(server: Server, asker: Asker) -> Behind | None:
    """Who stands behind what the client will do. Raises OAuthError where it states somebody, and not as it must."""
    try:
        return await read_statement(server.gateway, asker.entry.client, asker.extensions)
    except Problem as problem:
        if problem.status >= 500:
            raise
        issue = problem.issues[0]
        raise OAuthError("invalid_grant", f"{issue.expression}: {issue.text}") from None


async def _write(server: Server, asker: Asker, asked: Asked, origin: Origin) -> None:
    """Store what was issued; take it back where the client lost its standing meanwhile."""
    issue = Issue(None, asker.used)
    for one in asked.issued:
        key = token_key(one.token)
        issue = Issue({"_id": key, **fields_of(one.grant, asked.now)}, asker.used, granted(one.grant, key, origin))
    await spend(server, issue)
    for one in asked.issued:
        # Who suspends a client says so first and then takes its tokens: either this one was among them, or it is seen here.
        try:
            await require_standing(server, asker.entry)
        except Exception:
            await revoke_token(server.gateway, one.token)
            raise
