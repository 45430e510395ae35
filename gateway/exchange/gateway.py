"""The wired system as the exchange needs it, made once and handed to every function.

Knows: the parts. Must not know: HTTP, where the parts came from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from gateway.access.consent import Provision
from gateway.access.policy import Policy
from gateway.access.scope import Scope
from gateway.exchange.cursor import Cursors
from gateway.exchange.lanes import Lanes
from gateway.exchange.misses import Misses
from gateway.exchange.passwords import Passwords
from gateway.exchange.patient_keys import PatientKeys
from gateway.exchange.refresh_tokens import RefreshTokens
from gateway.exchange.sealer import Sealer
from gateway.exchange.throttle import Throttle
from gateway.fhir.codec import Codec
from gateway.fhir.identifiers import Identifiers
from gateway.fhir.identity import Identities
from gateway.fhir.index import Index
from gateway.fhir.media import MediaTypes
from gateway.fhir.plausible import Plausibility
from gateway.fhir.references import References
from gateway.fhir.registry import Registry
from gateway.fhir.submissions import Submissions
from gateway.fhir.subset import Subsets
from gateway.fhir.xml_read import XmlReader
from gateway.issuers.issuers import Issuers
from gateway.issuers.openid import Providers
from gateway.scanner import Scanner
from gateway.settings import Limits, Settings
from gateway.store.audit import AuditWriter
from gateway.store.catalogue import Clients
from gateway.store.commit import Committer
from gateway.store.ids import Ids
from gateway.store.lookups import Lookups
from gateway.store.mongo import Mongo
from gateway.store.receipts import Receipts
from gateway.store.standing import Standings


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything a request needs.

    `clock` gives the present time in UTC. `scopes` parses a token's scopes and `provision_of` the bytes of a stored Consent:
    both remember what they parsed, which is a matter of the text alone. *Which* texts hold is looked up on every request.
    """

    settings: Settings
    limits: Limits
    registry: Registry
    codec: Codec
    xml: XmlReader
    references: References
    index: Index
    subsets: Subsets
    identities: Identities
    policy: Policy
    plausible: Plausibility
    ids: Ids
    mongo: Mongo
    issuers: Issuers
    providers: Providers
    clients: Clients
    standings: Standings
    lookups: Lookups
    receipts: Receipts
    audit: AuditWriter
    committer: Committer
    cursors: Cursors
    misses: Misses
    media_types: MediaTypes
    identifiers: Identifiers
    scanner: Scanner | None
    submissions: Submissions
    patient_keys: PatientKeys
    throttle: Throttle
    lanes: Lanes
    passwords: Passwords
    sealer: Sealer
    refresh_tokens: RefreshTokens
    clock: Callable[[], datetime]
    scopes: Callable[[str], tuple[Scope, ...]]
    provision_of: Callable[[bytes], Provision | None]
