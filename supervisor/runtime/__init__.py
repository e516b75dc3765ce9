"""The I/O shell: performs the core's effects; every slow thing ends in an event. Decides nothing."""
