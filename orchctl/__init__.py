"""The orchctl command line: asks the daemon over its Unix socket, prints, exits; decides nothing."""

__version__ = "0.1.0"
