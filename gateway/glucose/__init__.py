"""The mathematics of glucose: pure functions over numbers, without FHIR, stores or clocks."""
