"""The $operations: one file for each, free of HTTP. What is offered where, and with which rights, `schemas/operations` says."""
