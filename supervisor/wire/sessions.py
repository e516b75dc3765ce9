"""Replies about sessions: what a caller may know of its own conversations and their KV (spec §6.2)."""

from msgspec import Struct


class SessionView(Struct, kw_only=True):
    """`GET /v1/sessions/:id` (ORCH-3021). `turns` counts those that began since the session's first one.

    `kv_bytes` is what its KV holds, as far as the engine said so and the model's shape is known, else 0. `kv_warmth`
    says that a KV lies in a slot: the next turn finds it if it is dispatched there before the time is over.
    """

    session_id: str
    ttl_ms_remaining: int
    turns: int
    kv_bytes: int
    kv_warmth: bool


class SessionPage(Struct, kw_only=True):
    """`GET /v1/sessions`: the caller's own, last used first; `truncated` says that older ones were left out."""

    sessions: list[SessionView]
    truncated: bool
