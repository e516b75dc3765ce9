"""The model store, against a hub that speaks the real protocol."""
