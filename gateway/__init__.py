"""A FHIR document exchange gateway: FHIR R4 over HTTP, SMART scopes, FHIR Consent, MongoDB."""

__version__ = "0.1.0"
