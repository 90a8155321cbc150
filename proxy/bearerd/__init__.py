"""bearerd: a localhost HTTP reverse proxy that adds the OAuth token."""

__version__ = "0.1.0.dev0"
