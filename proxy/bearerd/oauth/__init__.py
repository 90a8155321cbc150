"""Talking to authorization servers."""
