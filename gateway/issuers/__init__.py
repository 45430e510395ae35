"""Speaks to other people's authorization servers: whose access tokens hold here, and what they say. Decides no right."""
