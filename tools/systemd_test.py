"""`make systemd-test`: the service under a real systemd, booted in a folder of its own.

Builds the wheel, installs it into a copy of a small Debian, boots that, and runs tests/systemd/story.py inside. Prints
one line for each thing shown; exit code 1 where one was not. Nothing of this host's systemd is touched.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.debian_root import DEPENDENCIES, VENV, RootError, booted, cached_root, enter

ROOT = Path(__file__).resolve().parent.parent
STORY_S = 420
SITE = Path(shutil.__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the story; gives the exit code."""
    parser = argparse.ArgumentParser(prog="systemd-test", description=__doc__)
    parser.add_argument("--source", type=Path, default=ROOT, help="the work tree to build and test")
    parser.add_argument("--keep", action="store_true", help="leave the tree of the system for a look")
    parser.add_argument("story", nargs="*", help="arguments of the story, after --")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="orchctl-systemd-"))
    try:
        return _run(options.source, folder, options.story)
    except RootError as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 1
    finally:
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _run(source: Path, folder: Path, story: Sequence[str]) -> int:
    root = folder / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", str(cached_root()), str(root)], check=True)
    lent = f"--bind-ro={_dependencies()}:{DEPENDENCIES}"
    _install_wheel(source, folder, root, lent)
    _furnish(source, root)
    with booted(root, folder / "console.log", lent) as machine:
        told = machine.run([f"{VENV}/bin/python", "/srv/story.py", *story], STORY_S)
    print(told.stdout, end="")
    return told.returncode


def _dependencies() -> Path:
    """The packages of this environment, which the system inside borrows."""
    import msgspec  # noqa: PLC0415  (only to find out where packages lie)

    return Path(msgspec.__file__).parent.parent


def _install_wheel(source: Path, folder: Path, root: Path, lent: str) -> None:
    wheels = root / "srv" / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={wheels}", str(source)]
    if subprocess.run(command, check=False, cwd=folder).returncode:
        raise RootError("the wheel cannot be built")
    (wheel,) = wheels.glob("orchctl-*.whl")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    enter(root, [f"{VENV}/bin/python", *install, f"/srv/wheels/{wheel.name}"], lent)


def _furnish(source: Path, root: Path) -> None:
    """A model, an engine and the story, where a service may read them."""
    from tests.support.tiny_gguf import make_tiny_gguf  # noqa: PLC0415  (numpy)

    make_tiny_gguf(root / "srv" / "tiny.gguf")
    shutil.copy(source / "examples" / "engines" / "xllamacpp_server.py", root / "srv" / "engine.py")
    shutil.copy(source / "tests" / "systemd" / "story.py", root / "srv" / "story.py")
    for path in (root / "srv").glob("*.*"):
        path.chmod(0o644)


if __name__ == "__main__":
    sys.exit(main())
