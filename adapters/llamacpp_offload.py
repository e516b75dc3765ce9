"""Reads from llama.cpp's log of its start whether all of the model went to the GPUs (ORCH-3018).

Its own word, printed once while it loads, before any prompt can reach it. Silence proves nothing: builds without a GPU
print no such line, and memory on the GPUs is proved elsewhere.
"""

import re

_OFFLOADED = re.compile(r"offloaded (?P<done>\d+)/(?P<all>\d+) layers to GPU")


def find_spill(tail: str) -> str | None:
    """One sentence where some layers stayed with the host; None where all are on GPUs, or where it does not say."""
    for found in _OFFLOADED.finditer(tail):
        done, every = int(found["done"]), int(found["all"])
        if done < every:
            return f"only {done} of {every} layers of the model are on the GPU, the others run on the host"
    return None
