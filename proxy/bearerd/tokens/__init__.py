"""The token manager: the only thing that turns events into tokens."""
