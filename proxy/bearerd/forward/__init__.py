"""Calls: from the client's bytes to the upstream's and back."""
