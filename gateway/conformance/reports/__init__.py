"""Reports: the same verdicts, told to a terminal, a manager, a build server and other FHIR software."""
