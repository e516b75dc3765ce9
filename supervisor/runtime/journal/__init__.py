"""The journal: what was accepted and how it ended, on disk before anybody is told. Decides nothing about tasks.

`journal` is the door; `records` are the words. SQLite in WAL mode, one connection, one writer thread, group commit.
"""
