"""The recipes of the documentation at work: their routes, their clients' lines, and servers as those clients know them."""
