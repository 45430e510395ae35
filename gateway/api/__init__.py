"""Speaks HTTP to FHIR clients: one file per FHIR interaction.

An endpoint knows its path, its method and what its request must say of itself. It must not know scopes, consents or stores:
it makes a `Call`, has the exchange carry it out, and turns the `Answer` into a response.
"""
