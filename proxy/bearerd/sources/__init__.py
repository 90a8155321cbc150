"""Tokens that do not come from a token endpoint of ours: a program, a file, the configuration."""
