"""What a verb is given besides its own options: the daemon to ask."""

import os
from pathlib import Path

import typer

from orchctl.client import Client
from orchctl.sockets import find_socket


def client_of(ctx: typer.Context) -> Client:
    """The daemon at `--socket`, ORCHCTL_SOCKET or the usual place. Nothing is connected yet."""
    given = ctx.obj if isinstance(ctx.obj, Path) else None
    return Client(find_socket(given, os.environ, os.geteuid()))
