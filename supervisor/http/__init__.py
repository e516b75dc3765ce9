"""The HTTP edge: parse once, authenticate, translate. Nothing is decided here."""
