"""What this authorization server can do, as one object: every discovery document is a view of it, so they cannot disagree.

Knows: RFC 8414, OpenID Connect Discovery §3, https://hl7.org/fhir/smart-app-launch/conformance.html. What is listed follows
from the addresses and grants that there are. Must not know: who asks.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.access.policy import PERMISSIONS
from gateway.fhir.registry import Registry

TOKEN, INTROSPECT, REVOKE, AUTHORIZE, JWKS, LAUNCH, PAR = (
    f"/oauth/{name}" for name in ("token", "introspect", "revoke", "authorize", "jwks", "launch", "par")
)
_PAGE_OF_PEOPLE = "/me"
# https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html#registering-a-client-communicating-public-keys
ASSERTION_ALGORITHMS = ("RS384", "ES384")
_CONFIDENTIAL = ("private_key_jwt", "client_secret_basic")
_ENDPOINTS: Mapping[str, str] = {
    TOKEN: "token_endpoint",
    INTROSPECT: "introspection_endpoint",
    REVOKE: "revocation_endpoint",
    AUTHORIZE: "authorization_endpoint",
}
_OF_OPENID = ("subject_types_supported", "id_token_signing_alg_values_supported", "claims_supported")
_OF_SMART = ("capabilities",)


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is: `paths` below the site, `grants` of the token endpoint, what else is worked out from them.

    `levels`: those of the resource scopes that the grants give; `others`: scopes that are for no resources;
    `binds_certificates`: whether tokens are bound to the certificates of clients that want it (RFC 8705 §3.3).
    """

    paths: Collection[str]
    grants: Collection[str]
    levels: Collection[str]
    others: Collection[str] = ()
    capabilities: Collection[str] = ()
    binds_certificates: bool = False


def build_metadata(offer: Offer, registry: Registry, site: str) -> dict[str, Any]:
    """Everything there is to say."""
    asymmetric = {
        "_auth_methods_supported": _CONFIDENTIAL,
        "_auth_signing_alg_values_supported": ASSERTION_ALGORITHMS,
    }
    metadata: dict[str, Any] = {"issuer": site, "jwks_uri": site + JWKS}
    for path, name in _ENDPOINTS.items():
        if path in offer.paths:
            metadata[name] = site + path
            if path != AUTHORIZE:
                metadata |= {name + ending: [*value] for ending, value in asymmetric.items()}  # (each has its own)
    has_codes = AUTHORIZE in offer.paths
    if has_codes:
        # Who keeps no secret says who it is.
        for path in (TOKEN, REVOKE):
            if path in offer.paths:
                metadata[f"{_ENDPOINTS[path]}_auth_methods_supported"].append("none")
        metadata["authorization_response_iss_parameter_supported"] = True
        metadata["management_endpoint"] = site + _PAGE_OF_PEOPLE
    if PAR in offer.paths:
        metadata["pushed_authorization_request_endpoint"] = site + PAR
    if offer.binds_certificates:
        metadata["tls_client_certificate_bound_access_tokens"] = True
    return metadata | {
        "grant_types_supported": list(offer.grants),
        "response_types_supported": ["code"] if has_codes else [],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": [*offer.others, *_resource_scopes(registry, offer.levels)],
        "capabilities": list(offer.capabilities),
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nonce", "auth_time", "fhirUser"],
    }


def smart_configuration(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The view at `[base]/.well-known/smart-configuration`."""
    signs_people_in = "sso-openid-connect" in metadata["capabilities"]
    left_out = {*_OF_OPENID, *(() if signs_people_in else ("issuer", "jwks_uri"))}
    return {name: value for name, value in metadata.items() if name not in left_out}


def server_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The view of RFC 8414, at `/.well-known/oauth-authorization-server`."""
    return {name: value for name, value in metadata.items() if name not in (*_OF_OPENID, *_OF_SMART)}


def openid_configuration(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The view of OpenID Connect, at `/.well-known/openid-configuration`."""
    return {name: value for name, value in metadata.items() if name not in _OF_SMART}


def security_uris(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The addresses that a CapabilityStatement names, by what its extension `oauth-uris` calls them."""
    named = {TOKEN: "token", AUTHORIZE: "authorize", INTROSPECT: "introspect", REVOKE: "revoke"}
    return {word: metadata[_ENDPOINTS[path]] for path, word in named.items() if _ENDPOINTS[path] in metadata}


def _resource_scopes(registry: Registry, levels: Collection[str]) -> list[str]:
    """The widest scope of each type at each level; any narrower one is understood as well."""
    found = []
    for level in levels:
        for kind in registry.resource_types.values():
            offered = {PERMISSIONS[interaction] for interaction in kind.interactions}
            found.append(f"{level}/{kind.name}.{''.join(sorted(offered, key='cruds'.index))}")
        found.append(f"{level}/*.cruds")
        rights = [one for one in registry.operations.values() if one.own_right and level != "patient"]
        found += [f"{level}/{name}.${one.code}" for one in rights for name in one.types]
    return found
