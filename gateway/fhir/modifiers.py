"""What the modifiers of https://hl7.org/fhir/R4/search.html#modifiers mean as clauses, as far as they need more than one line.

Knows: how the values they look at are spelled (`values.py`). Must not know: how a parameter is written in a URL, the registry.
Every function raises ValueError saying what is wrong with the value.
"""

from gateway.fhir.clause import Clause, Test, every, some
from gateway.fhir.values import escape, fold

_MOST_STEPS = 50


def contains(name: str, text: str) -> Clause:
    """`:contains`, and what `:text` asks of texts beside codes: the words anywhere, compared as strings are."""
    wanted = fold(text)
    if not wanted:
        raise ValueError("has nothing to compare")
    return Test(name, "contains", wanted)


def uri_below(name: str, uri: str) -> Clause:
    """`:below` of a URI: it and what lies within it, by whole steps of the path."""
    _require_url(uri)
    within = f"{uri.rstrip('/')}/"
    return some(Test(name, "is", within[:-1]), Test(name, "starts", within))


def uri_above(name: str, uri: str) -> Clause:
    """`:above` of a URI: it and all that it lies within, with a slash at the end or without."""
    host = _require_url(uri)
    steps = uri[host:].rstrip("/").split("/")
    if len(steps) > _MOST_STEPS:
        raise ValueError("has too many steps")
    paths = [uri[:host] + "/".join(steps[:n]) for n in range(len(steps), 0, -1)]
    return some(*(Test(name, "is", f"{path}{end}") for path in paths for end in ("", "/")))


def _require_url(uri: str) -> int:
    """Where the path of a URL begins; other URIs (`urn:…`) have no levels."""
    scheme, colon, rest = uri.partition("://")
    host = rest.split("/")[0]
    if not colon or not scheme or not host:
        raise ValueError("is not a URL, and nothing else has levels")
    return len(scheme) + len(colon) + len(host)


def of_type(name: str, parts: list[str]) -> Clause:
    """`:of-type` of an identifier: `system|code|value`, where system and code say of which type the identifier is."""
    if len(parts) != 3 or not all(parts):
        raise ValueError("is system|code|value")
    # (what is in the first index is asked for as well)
    return every(Test(name, "is", escape(parts[2])), Test(f"{name}:of-type", "is", "|".join(map(escape, parts))))
