"""Pure descriptions of inference engines: how to launch one, what to send it, how to read what it answers."""
