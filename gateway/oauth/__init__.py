"""The authorization server: speaks HTTP to OAuth clients, one file per endpoint."""
