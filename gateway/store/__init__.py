"""Speaks to MongoDB. Nothing outside this package imports a driver, and within it only `mongo.py` does."""
