"""A config that this user may not read: 77, for nothing is known of what is in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchctl.app import run

NOBODY = 65534
ROOT = Path(__file__).parents[2]
MODELS = "import sys, os, supervisor.config.load, supervisor.config.places, orchctl.commands.models, orchctl.verbs; "
MODELS += (
    "from orchctl.app import run; os.setuid(int(sys.argv[1])); sys.exit(run(['models', 'list', '-c', sys.argv[2]]))"
)
PLAN = (
    "import sys, os; from supervisor.planning import main; os.setuid(int(sys.argv[1])); main(['--config', sys.argv[2]])"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("program", [MODELS, PLAN], ids=["models", "plan"])
def test_it_is_a_right_that_is_missing(tmp_path: Path, program: str) -> None:
    config = tmp_path / "pools.yaml"
    config.write_text("pools: []\n")
    config.chmod(0o600)

    done = subprocess.run(
        [sys.executable, "-c", program, str(NOBODY), str(config)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 77, done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_cannot_be_used_is_named_and_not_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["install", "--root", str(tmp_path), "--config", "/" + "x" * 300, "--yes"])

    assert code == 1
    assert "standard output" not in capsys.readouterr().err
