"""Exams: what real life does to a client, done on purpose by a proxy in front of a sandbox; and a grade for what it then did.

The proxy is the kit's own: nothing of it is in a gateway, so no request can ever switch it on there.
"""
