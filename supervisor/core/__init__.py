"""The pure decision core: events go in, effects come out. No await, clock, random, log, os, pydantic or aiohttp."""
