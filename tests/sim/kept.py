"""The seeds that once failed: a text file, one a line, kept for good."""

from pathlib import Path

SEEDS_FILE = Path(__file__).parent / "seeds.txt"


def kept_seeds(path: Path = SEEDS_FILE) -> list[int]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [int(line) for line in lines if line]


def keep_seed(seed: int, path: Path = SEEDS_FILE) -> None:
    """Add a seed, unless it is kept already."""
    if seed not in kept_seeds(path):
        with path.open("a") as file:
            file.write(f"{seed}\n")
