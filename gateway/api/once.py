"""`Idempotency-Key`: a client that heard no answer sends its request again, and it is done once.

Knows: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/; what of a request must be the same.
Must not know: what is done with it, how it is remembered.
"""

import re

from starlette.requests import Request

from gateway.api.visit import gateway_of
from gateway.problem import Problem
from gateway.store.receipts import Once

KEY_HEADER = "Idempotency-Key"
# A string of https://www.rfc-editor.org/rfc/rfc8941#section-3.3.3 without escapes, or what many clients send: the bare text.
_KEY = re.compile(r'"([ !#-\[\]-~]{1,255})"|([0-9A-Za-z!#-&\'*+./:=@^_`|~-]{1,255})')
# What else tells what is asked for.
_CONDITIONS = ("if-match", "if-none-exist", "if-none-match")


def read_once(request: Request, body: bytes) -> Once | None:
    """What the client of this request wants done once, None without a key. Raises Problem 400 for what is no key."""
    given = request.headers.getlist(KEY_HEADER)
    if not given:
        return None
    found = _KEY.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        text = f"the header {KEY_HEADER} is one string of 1 to 255 visible ASCII characters"
        raise Problem("invalid", text, KEY_HEADER)
    url = request.url
    conditions = (request.headers.get(name, "") for name in _CONDITIONS)
    asked: list[str | bytes] = [request.method, url.path.rstrip("/"), url.query, *conditions, body]
    return Once(found[1] or found[2], gateway_of(request).receipts.digest(asked))
