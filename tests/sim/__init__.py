"""A simulated world around the core: same seed, same story."""
