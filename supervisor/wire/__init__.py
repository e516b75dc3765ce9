"""The public words of OrchQueue v1: requests, replies, codes and SSE frames, defined once.

The same msgspec Structs parse the hot path and give `/openapi.json` its schemas. Imports nothing of ours.
"""
