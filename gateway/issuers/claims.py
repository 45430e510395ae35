"""What the claims of a token mean here, by the table of its issuer.

Knows: claims common to signed and introspected tokens (RFC 7519 §4.1, RFC 7662 §2.2), paths to claims, the rules of a file.
Must not know: how claims were come by; stores.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.issuers.files import Issuer, Named, Rule

Claims = Mapping[str, Any]

_CLIENT = re.compile(r"[\x21-\x7e]{1,255}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_LONGEST_SUBJECT = 255  # OpenID Connect Core §2


class Refused(Exception):
    """A token that does not hold. The message is for the log: it names a claim or header, never what stands in it."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who bears a token, and what it grants. `user`, `patient`: what the claims of the rule say, in the rule's terms;
    `subject`: whom the issuer means, in its own; `certificate`: with which alone the token is good, if it is bound to one.
    """

    rule: Rule
    client: str
    words: tuple[str, ...]
    user: str | None
    patient: str | None
    expires: datetime
    subject: str | None
    certificate: str | None = None


def check_claims(issuer: Issuer, claims: Claims, now: datetime) -> None:
    """Refuse claims that are another issuer's, meant for somebody else, not of this time, or not as the file requires."""
    moment = now.timestamp()
    if claims.get("iss", issuer.issuer) != issuer.issuer:
        raise Refused("iss")
    audience = claims.get("aud")
    if issuer.audience is not None and issuer.audience not in (audience if isinstance(audience, list) else [audience]):
        raise Refused("aud")
    if moment >= seconds(claims, "exp") + issuer.skew:
        raise Refused("exp")
    for name in ("nbf", "iat"):
        if name in claims and moment < seconds(claims, name) - issuer.skew:
            raise Refused(name)
    bound_to(claims)
    for path, texts in issuer.require.items():
        if not set(texts).intersection(texts_of(claims, path)):
            raise Refused(f"required {path}")


def read_bearer(issuer: Issuer, claims: Claims) -> Bearer | None:
    """Who the bearer is, by the first rule that speaks of such claims; None where none does. Refuses claims of no client."""
    client, subject = claims.get("client_id") or claims.get("azp"), claims.get("sub")
    if not isinstance(client, str) or not _CLIENT.fullmatch(client):
        raise Refused("client_id")
    if subject is not None and not (isinstance(subject, str) and 0 < len(subject) <= _LONGEST_SUBJECT):
        raise Refused("sub")
    for rule in issuer.rules:
        user, patient = named_by(issuer.own, claims, rule.user), named_by(issuer.own, claims, rule.patient)
        if (rule.user and user is None) or (rule.kind == "proxy" and patient is None):
            continue
        if holds(claims, rule.when):
            words = tuple(dict.fromkeys(word for path in issuer.scopes.claims for word in _words(claims, path)))
            expires = datetime.fromtimestamp(seconds(claims, "exp"), UTC) + timedelta(seconds=issuer.skew)
            return Bearer(rule, client, words, user, patient, expires, subject, bound_to(claims))
    return None


def holds(claims: Claims, when: Mapping[str, list[str]]) -> bool:
    """Whether each of these claims has one of its texts."""
    return all(set(texts).intersection(texts_of(claims, path)) for path, texts in when.items())


def bound_to(claims: Claims) -> str | None:
    """The thumbprint of the certificate with which alone the token is good (RFC 8705 §3.1), None where any bearer will do.

    Refuses a token that is bound to a key of another kind, which nobody proves here to have (RFC 7800).
    """
    if "cnf" not in claims:
        return None
    bound = claims["cnf"]
    found = bound.get("x5t#S256") if isinstance(bound, Mapping) and len(bound) == 1 else None
    if not isinstance(found, str) or not _THUMBPRINT.fullmatch(found):
        raise Refused("cnf")
    return found


def granted(issuer: Issuer, bearer: Bearer) -> Iterator[str]:
    """The scopes a bearer has by the issuer's table. Those that only the token says may be none at all."""
    yield from bearer.rule.scopes
    for word in bearer.words:
        yield from issuer.scopes.become.get(word, [word] if issuer.scopes.smart else [])


def seconds(claims: Claims, name: str) -> float:
    """A time among the claims, in seconds since 1970. Raises Refused where it is missing or none."""
    found = claims.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 2**33:  # NaN is not, either
        raise Refused(name)
    return found


def named_by(own: str, claims: Claims, named: Named | None) -> str | None:
    """The identifier, or the id within a reference of the right type, that a claim holds; `own`: where ours lie."""
    text = next(iter(texts_of(claims, named.claim)), None) if named else None
    if named is None or text is None or named.system is not None:
        return text
    type_name, slash, identifier = text.removeprefix(own).rpartition("/")
    return identifier if type_name == named.type or not slash else None


def _find(claims: Claims, path: str) -> Any:
    """What stands at a path like `realm_access.roles`; names of claims may themselves hold dots."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def texts_of(claims: Claims, path: str) -> list[str]:
    """The texts at a path, whether one stands there or a list."""
    found = _find(claims, path)
    return [text for text in (found if isinstance(found, list) else [found]) if isinstance(text, str) and text]


def _words(claims: Claims, path: str) -> list[str]:
    return [word for text in texts_of(claims, path) for word in text.split(" ") if word]
