"""Benchmarks: ratios against raw driver calls on the same mongod in the same run. Never run by pytest."""
