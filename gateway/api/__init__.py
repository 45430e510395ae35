"""Speaks HTTP to FHIR clients: one file per FHIR interaction."""
