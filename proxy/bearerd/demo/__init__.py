"""A made-up API and its authorization server on loopback, so that a new user has something to call."""
