"""The command line, against a real HTTP server on a Unix socket and on real pseudo-terminals."""
