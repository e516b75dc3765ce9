"""Models of many gigabytes are read beside all other work, and no longer than somebody wants them."""

import asyncio
import os
import threading
from pathlib import Path

from supervisor.config.models import ModelArtifact
from supervisor.runtime.model_files import MODELS_READ_AT_ONCE, ModelFiles
from supervisor.store.digests import model_digest, read_sha256
from supervisor.store.holding import is_held
from supervisor.store.parts import open_model
from tests.support.waiting import until

MANY = 40
"""More than the threads that asyncio shares."""
HUGE_BYTES = 1 << 40


def a_huge_model(folder: Path, number: int) -> ModelArtifact:
    """All zeros and no blocks on disk, but hours to read."""
    path = folder / f"{number}.gguf"
    path.touch()
    os.truncate(path, HUGE_BYTES)
    return ModelArtifact(path, "sha256:" + "0" * 64)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "model digest"]


def is_somebodys(path: Path) -> bool:
    with path.open("rb") as file:
        return is_held(file.fileno())


async def test_models_that_are_read_for_hours_hold_up_nothing_else_and_end_when_nobody_wants_them(
    tmp_path: Path,
) -> None:
    files = ModelFiles()
    models = [a_huge_model(tmp_path, number) for number in range(MANY)]
    readings = [asyncio.create_task(files.verify(each, ("pool", number))) for number, each in enumerate(models)]
    await until(lambda: len(readers()) == MODELS_READ_AT_ONCE, what="the readers")
    try:
        async with asyncio.timeout(5):
            other = await asyncio.to_thread(lambda: "done")
    finally:
        for reading in readings:
            reading.cancel()
    await asyncio.wait(readings)
    await until(lambda: not readers(), what="the end of the readers")

    assert other == "done"
    assert all(reading.cancelled() for reading in readings)
    assert not any(is_somebodys(each.path) for each in models)


async def test_the_size_of_a_model_is_known_after_its_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + b"a" * 996)
    with open_model(path, None) as parts:
        artifact = ModelArtifact(path, model_digest([(part.name, read_sha256(part.fd)) for part in parts]))
    files = ModelFiles()
    await files.verify(artifact, ("pool", 1))
    path.unlink()
    found = files.size_bytes(("pool", 1))
    files.release(("pool", 1))

    assert found == 1_000
    assert files.size_bytes(("pool", 1)) is None


async def test_the_files_of_a_worker_that_never_came_to_a_process_are_let_go_by_the_next_of_its_pool(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + b"a" * 996)
    with open_model(path, None) as parts:
        digest = model_digest([(part.name, read_sha256(part.fd, lambda _: None)) for part in parts])
    files = ModelFiles()
    model = ModelArtifact(path, digest)

    for incarnation in range(5):
        await files.verify(model, ("pool", incarnation))
    await files.verify(model, ("other", 9))

    held = [key for key in (*(("pool", number) for number in range(5)), ("other", 9)) if files.size_bytes(key)]
    assert held == [("pool", 4), ("other", 9)]


async def test_the_files_of_a_key_that_is_gone_for_good_are_let_go(tmp_path: Path) -> None:
    """A revision whose worker never came to a process is stopped by nobody."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + b"a" * 996)
    with open_model(path, None) as parts:
        digest = model_digest([(part.name, read_sha256(part.fd, lambda _: None)) for part in parts])
    files = ModelFiles()
    await files.verify(ModelArtifact(path, digest), ("pool+2", 3))
    await files.verify(ModelArtifact(path, digest), ("pool", 1))
    files.release_all("pool+2")

    assert [files.size_bytes(key) for key in (("pool+2", 3), ("pool", 1))] == [None, 1_000]
