"""The bounds of the HTTP edge, each with a name and a unit. Decides nothing; who enforces one reads it from here.

The public ones also stand in `/openapi.json`.
"""

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds. Defaults are the contract's; tests pass smaller ones."""

    body_bytes_max: int = 1024 * KIB
    header_bytes_max: int = 16 * KIB
    header_count_max: int = 100
    url_bytes_max: int = 2 * KIB
    framing_bytes_max: int = 256 * KIB
    """Chunk sizes and chunk extensions of one body, beyond its first read: they are no payload, yet cost time."""
    json_depth_max: int = 32
    header_s: float = 5.0
    """From the first byte of a header block, or from accept on a new connection, to its empty line."""
    body_s: float = 10.0
    """For a whole request body, however steadily it drips."""
    keepalive_s: float = 75.0
    linger_s: float = 2.0
    """How long the rest of a refused body is swallowed, so that the client can read the refusal instead of a reset."""
    connections_max: int = 4096
    socket_connections_max: int = 256
    """The control socket has room of its own: a flood on TCP cannot lock the operator out."""
    write_stall_s: float = 30.0
    """A client that does not take `write_high_bytes - write_low_bytes` in this time is cut off."""
    write_high_bytes: int = 8 * KIB
    write_low_bytes: int = 2 * KIB
    """Beyond what the kernel holds. Frames that wait here one by one cost ten times their bytes, in a log not."""
    push_bytes_max: int = 64 * KIB
    """A larger batch of frames is not pushed to its readers: each reads it, in pieces of `replay_bytes_max`."""
    replay_bytes_max: int = 16 * KIB
    """Written to one reader in one turn of the loop while it catches up."""
    send_buffer_bytes: int = 256 * KIB
    """SO_SNDBUF: without it the kernel would hold up to 4 MiB for every reader that does not read."""
    comment_s: float = 15.0
    """The longest silence on a stream."""
    tasks_page_max: int = 1000
    log_lines_max: int = 10_000
