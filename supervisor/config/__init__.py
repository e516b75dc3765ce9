"""The configuration file: its model, its loader and the difference between two of them."""
