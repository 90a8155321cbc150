"""bearerd's own pages, under the reserved prefix ``/-/``."""
