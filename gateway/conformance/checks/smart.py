"""Tokens, and what is told about getting them.

Knows: https://hl7.org/fhir/smart-app-launch/, RFC 6750. Must not know: whose server it is.
"""

import re

from gateway.conformance.checks.core import TYPE
from gateway.conformance.rule import rule
from gateway.conformance.server import Server, not_applicable, reference_of
from gateway.conformance.wire import Caller

ENDPOINTS = ("authorization_endpoint", "token_endpoint")


@rule("EXT-01", "SHALL", "The SMART configuration is public; PKCE is S256, never plain.", "HL7 SMART", "conformance.html")
def check_configuration(server: Server) -> None:
    """.well-known/smart-configuration."""
    server.needs_tokens()
    answer = server.anonymous().get(".well-known/smart-configuration", {"accept": "application/json"})
    assert answer.status_code == 200, "it is there for everybody"
    told = answer.json()
    for name in ("token_endpoint", "capabilities", "grant_types_supported"):
        assert told.get(name), f"{name} is told"
    methods = told.get("code_challenge_methods_supported", [])
    assert "S256" in methods, "PKCE with S256"
    assert "plain" not in methods, "PKCE never plain"
    for name in ENDPOINTS:
        assert name not in told or re.match(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])", told[name]), f"{name}: https"


@rule(
    "EXT-05",
    "SHALL",
    'Without a good token: 401, with WWW-Authenticate: Bearer; for a bad one error="invalid_token".',
    "RFC 6750",
    "#section-3",
)
def check_bad_tokens(server: Server, owner: Caller) -> None:
    """None; one that nobody issued; one that claims to need no signature."""
    server.needs_tokens()
    path = reference_of(server.made_by(owner, server.heart_rate()))
    none = server.anonymous().get(path)
    assert none.status_code == 401, "without a token: 401"
    assert none.headers.get("www-authenticate", "").lower().startswith("bearer"), "WWW-Authenticate: Bearer"
    unsigned = "eyJhbGciOiJub25lIn0.eyJzY29wZSI6InVzZXIvKi4qIn0."
    for token in ("kit-nobody-issued-this", unsigned):
        answer = server.bearer(token).get(path)
        assert answer.status_code == 401, "a bad token: 401"
        assert 'error="invalid_token"' in answer.headers.get("www-authenticate", ""), 'error="invalid_token"'


@rule(
    "EXT-04",
    "SHALL",
    "An app sees the record of its own patient only, whatever it asks for.",
    "HL7 SMART",
    "scopes-and-launch-context.html",
)
def check_other_patient(server: Server, app: Caller) -> None:
    """Another patient in the query."""
    server.needs_tokens()
    server.needs(TYPE, "search-type")
    answer = app.get(TYPE, patient=server.stranger)
    assert answer.status_code in (200, 403), "refused, or nothing found"
    if answer.status_code == 200:
        assert not answer.json().get("entry"), "nothing is found"
        assert not answer.json().get("total"), "nothing is counted"


@rule("EXT-02", "SHALL", "An app can write only what its scopes name.", "HL7 SMART", "scopes-and-launch-context.html")
def check_scopes(server: Server, app: Caller) -> None:
    """An app of measurements deposits no document."""
    server.needs_tokens()
    server.needs("DocumentReference", "create")
    document = {
        "resourceType": "DocumentReference",
        "status": "current",
        "subject": {"reference": f"Patient/{server.patient}"},
        "content": [{"attachment": {"contentType": "text/plain", "data": "a2l0"}}],
    }
    answer = app.create(document)
    if answer.status_code == 201:
        not_applicable("the token of the role 'app' may write documents")
    assert answer.status_code in (401, 403, 404), "refused for its scopes"


@rule("SEC-060", "SHALL", "No token is taken from an address.", "RFC 6750", "#section-2.3")
def check_token_in_address(server: Server, owner: Caller) -> None:
    """access_token in the query."""
    server.needs_tokens()
    token = server.target.tokens["owner"]
    path = reference_of(server.made_by(owner, server.heart_rate()))
    answer = server.anonymous().get(path, access_token=token)
    assert answer.status_code in (400, 401), "it counts as no token"


@rule("SEC-061", "SHOULD", "What is told about a person is kept by no cache.", "RFC 9110", "#caching")
def check_no_store(server: Server, owner: Caller) -> None:
    """Cache-Control of a read."""
    server.needs_tokens()
    answer = owner.get(reference_of(server.made_by(owner, server.heart_rate())))
    kept = answer.headers.get("cache-control", "")
    assert "no-store" in kept or "private" in kept, "no-store, or private"


def configured(server: Server, name: str) -> str:
    """An address of the SMART configuration; not applicable where it has none."""
    server.needs_tokens()
    answer = server.anonymous().get(".well-known/smart-configuration", {"accept": "application/json"})
    told = answer.json().get(name) if answer.status_code == 200 else None
    if not told:
        not_applicable(f"the SMART configuration has no {name}")
    return str(told)


@rule("SEC-006", "SHALL", "Nobody is sent to an address that no client registered.", "RFC 6749", "#section-3.1.2.4")
def check_redirect(server: Server) -> None:
    """An unknown client, and an address of our own."""
    address = "https://kit.example/stolen"
    asked = {"response_type": "code", "client_id": "kit-nobody", "redirect_uri": address, "state": "kit", "scope": "openid"}
    answer = server.anonymous().get(configured(server, "authorization_endpoint"), {"accept": "text/html"}, **asked)
    assert not answer.headers.get("location", "").startswith(address), "nobody is sent there"
    assert answer.status_code >= 400, "it is refused"


@rule(
    "SEC-009",
    "SHALL",
    "The token endpoint refuses an unknown client as OAuth does, and its answers are kept by no cache.",
    "RFC 6749",
    "#section-5",
)
def check_unknown_client(server: Server) -> None:
    """client_credentials of nobody."""
    address = configured(server, "token_endpoint")
    form = "grant_type=client_credentials&client_id=kit-nobody&client_secret=kit&scope=system%2F*.rs"
    sent = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    answer = server.anonymous().ask("POST", address, form, sent)
    assert answer.status_code in (400, 401), "it is refused"
    assert answer.json().get("error") in ("invalid_client", "unauthorized_client", "invalid_request"), "with an error of OAuth"
    assert "no-store" in answer.headers.get("cache-control", ""), "Cache-Control: no-store"


@rule(
    "SEC-024", "SHALL", "What a token is good for is told to nobody who does not show who they are.", "RFC 7662", "#section-2.1"
)
def check_introspection(server: Server) -> None:
    """The token of the owner, asked for by nobody."""
    address = configured(server, "introspection_endpoint")
    token = server.target.tokens.get("owner")
    if token is None:
        not_applicable("the kit has no token for the role 'owner'")
    sent = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    answer = server.anonymous().ask("POST", address, f"token={token}", sent)
    assert answer.status_code in (400, 401, 403), "it is refused"
    assert '"active"' not in answer.text.replace(" ", ""), "nothing is told of the token"
