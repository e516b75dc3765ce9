"""What an engine has loaded is what was verified: files that change hands between the two are found (ORCH-3037)."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.config.models import ModelArtifact
from supervisor.runtime.model_files import ModelFileError, ModelFiles
from supervisor.store.digests import model_digest, read_sha256
from supervisor.store.holding import is_held
from supervisor.store.parts import open_model

WORKER = ("pool", 1)
MAPS = "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); f.close()"
OPENS = "import sys; f = open(sys.argv[1], 'rb')"
FORGETS = "import sys; open(sys.argv[1], 'rb').read()"
WAITS = "; print('loaded', flush=True); sys.stdin.read()"

Load = Callable[[Path, str], int]


@pytest.fixture
def load() -> Iterator[Load]:
    """Starts a process that loads a file in some way and keeps running; gives its pid."""
    processes: list[subprocess.Popen[str]] = []

    def start(path: Path, how: str) -> int:
        line = [sys.executable, "-c", how + WAITS, str(path)]
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        return process.pid

    yield start
    for process in processes:
        process.communicate()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + b"a" * 9000)
    return path


def put_a_twin(model: Path) -> None:
    """Another file with the same bytes, renamed over this one."""
    twin = model.with_name("twin")
    twin.write_bytes(model.read_bytes())
    twin.replace(model)


def lend_the_name(model: Path) -> None:
    """Another file takes the name, the model lies aside."""
    model.rename(model.with_name("aside"))
    model.write_bytes(b"GGUF" + b"b" * 9000)


def harm(model: Path, change: str) -> None:
    """Damage it in place, hiding the time of it where there is one, or remove it."""
    stat = model.stat()
    if change == "flip":
        with model.open("r+b") as file:
            file.seek(100)
            file.write(b"x")
        os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "truncate":
        os.truncate(model, 10)
    else:
        model.unlink()


def artifact(path: Path) -> ModelArtifact:
    with open_model(path, None) as parts:
        return ModelArtifact(path, model_digest([(part.name, read_sha256(part.fd)) for part in parts]))


@pytest.mark.parametrize(("how", "proof"), [(MAPS, "mapped"), (OPENS, "mapped"), (FORGETS, "unchanged")])
async def test_the_file_that_was_verified_passes(model: Path, load: Load, how: str, proof: str) -> None:
    files = ModelFiles()
    await files.verify(artifact(model), WORKER)

    assert (await files.prove_loaded(WORKER, load(model, how))).startswith(proof)
    files.release(WORKER)


@pytest.mark.parametrize("how", [MAPS, OPENS, FORGETS])
async def test_a_file_renamed_over_the_verified_one_is_found(model: Path, load: Load, how: str) -> None:
    files = ModelFiles()
    await files.verify(artifact(model), WORKER)
    put_a_twin(model)

    with pytest.raises(ModelFileError, match=r"m\.gguf (was replaced|changed) while the engine loaded it"):
        await files.prove_loaded(WORKER, load(model, how))
    files.release(WORKER)


@pytest.mark.parametrize("how", [MAPS, OPENS, FORGETS])
async def test_a_file_that_was_only_lent_its_name_is_found(model: Path, load: Load, how: str) -> None:
    files = ModelFiles()
    await files.verify(artifact(model), WORKER)
    lend_the_name(model)
    pid = load(model, how)
    model.with_name("aside").replace(model)

    with pytest.raises(ModelFileError, match="while the engine loaded it"):
        await files.prove_loaded(WORKER, pid)
    files.release(WORKER)


async def verified_then_replaced(root: Path) -> tuple[ModelFiles, Path]:
    """A model is verified in its folder, then another folder has its name; the first one lies aside."""
    folder = root / "now"
    for name in ("now", "other"):
        (root / name).mkdir()
        (root / name / "m.gguf").write_bytes(b"GGUF" + name.encode() * 3000)
    files = ModelFiles()
    await files.verify(artifact(folder / "m.gguf"), WORKER)
    folder.rename(root / "aside")
    (root / "other").rename(folder)
    return files, folder


async def test_another_folder_under_the_same_name_is_found_by_what_is_mapped(tmp_path: Path, load: Load) -> None:
    files, folder = await verified_then_replaced(tmp_path)
    pid = load(folder / "m.gguf", MAPS)
    folder.rename(tmp_path / "other")
    (tmp_path / "aside").rename(folder)

    with pytest.raises(ModelFileError, match="was replaced while the engine loaded it"):
        await files.prove_loaded(WORKER, pid)
    files.release(WORKER)


async def test_another_folder_that_keeps_the_name_is_found(tmp_path: Path, load: Load) -> None:
    files, folder = await verified_then_replaced(tmp_path)

    with pytest.raises(ModelFileError, match="was replaced while the engine loaded it"):
        await files.prove_loaded(WORKER, load(folder / "m.gguf", FORGETS))
    files.release(WORKER)


@pytest.mark.parametrize("change", ["flip", "truncate", "remove"])
async def test_a_file_that_changed_after_it_was_read_is_found(model: Path, load: Load, change: str) -> None:
    files = ModelFiles()
    await files.verify(artifact(model), WORKER)
    pid = load(model, FORGETS)
    harm(model, change)

    with pytest.raises(ModelFileError, match=r"m\.gguf (changed|is gone)"):
        await files.prove_loaded(WORKER, pid)
    files.release(WORKER)


@pytest.mark.orch("ORCH-3037")
async def test_a_change_that_hides_its_time_is_read_again(model: Path) -> None:
    files = ModelFiles()
    wanted = artifact(model)
    await files.verify(wanted, WORKER)
    harm(model, "flip")

    with pytest.raises(ModelFileError, match="is not the model that is configured"):
        await files.verify(wanted, WORKER)
    files.release(WORKER)


@pytest.mark.orch("ORCH-3037")
async def test_every_shard_is_verified(tmp_path: Path) -> None:
    paths = [tmp_path / f"m-{index:05d}-of-00002.gguf" for index in (1, 2)]
    for path in paths:
        path.write_bytes(b"GGUF" + path.name.encode())
    wanted, files = artifact(paths[0]), ModelFiles()
    await files.verify(wanted, WORKER)
    paths[1].write_bytes(b"GGUF" + b"another second shard.....")

    with pytest.raises(ModelFileError, match="is not the model that is configured"):
        await files.verify(wanted, WORKER)
    assert files.identity(paths[0]) is None
    files.release(WORKER)


async def test_a_model_of_the_store_is_not_found_through_a_link(tmp_path: Path, model: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    (root / "m.gguf").symlink_to(model)
    found = artifact(model)

    with pytest.raises(ModelFileError, match="symbolic link"):
        await ModelFiles().verify(ModelArtifact(root / "m.gguf", found.digest, root), WORKER)


async def test_a_file_is_held_until_its_worker_is_gone(model: Path) -> None:
    files = ModelFiles()
    await files.verify(artifact(model), WORKER)
    fd = os.open(model, os.O_RDONLY)

    held = is_held(fd)
    files.release(WORKER)

    assert (held, is_held(fd)) == (True, False)
    os.close(fd)
