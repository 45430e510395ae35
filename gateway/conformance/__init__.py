"""The conformance kit: what integrators run to see whether software speaks as the specifications ask.

It speaks HTTP only and imports nothing of the gateway: a server of anybody's is judged by the same eyes.
"""
