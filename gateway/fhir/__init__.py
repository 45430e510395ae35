"""Knows FHIR: pure functions over typed resources. Must not know HTTP, MongoDB or who is calling."""
