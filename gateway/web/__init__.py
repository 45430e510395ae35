"""HTML for people: logging in, deciding who may see what, taking it back."""
