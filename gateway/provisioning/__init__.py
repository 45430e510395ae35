"""Bringing whole directories and identities into the gateway from files: `gateway import`."""
