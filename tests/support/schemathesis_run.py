"""Runs schemathesis against a daemon's own /openapi.json, with every check, in a process of its own and from a seed."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
[warnings]
fail-on = true
display = ["validation_mismatch", "unused_openapi_auth"]

[checks.not_a_server_error]
# 503 is an answer of its own (POOL_UNREADY, POOL_UNAVAILABLE): documented, with an envelope and a hint when to come
# again, all of which the other checks hold it to.
expected-statuses = ["2xx", "3xx", "4xx", 503]

[checks.negative_data_rejection]
# To the defaults, the refusals of what is too long, too large or comes too slowly: a generated query has no bound.
expected-statuses = [400, 401, 403, 404, 405, 406, 408, 409, 413, 414, 415, 422, 428, 429, 431, "5xx"]

[generation]
database = "none"
"""


@dataclass(frozen=True)
class Report:
    """What one run found."""

    is_clean: bool
    cases: int
    operations: int
    text: str


def run_schemathesis(port: int, folder: Path, *, examples: int, seed: int, key: str | None = None) -> Report:
    """`examples` is per operation and phase; `key` goes into every request and is then tried without, too."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [
        str(Path(sys.executable).with_name("st")),
        f"--config-file={config}",
        "run",
        f"http://127.0.0.1:{port}/openapi.json",
        "--checks=all",
        "--phases=examples,coverage,fuzzing,stateful",
        f"--max-examples={examples}",
        f"--seed={seed}",
        "--continue-on-failure",
        "--no-color",
        *([f"--header=Authorization:Bearer {key}"] if key else []),
    ]
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    if key:
        env["SCHEMATHESIS_KEY"] = f"Bearer {key}"
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    return Report(
        is_clean=done.returncode == 0,
        cases=_number(r"(\d+) generated", text),
        operations=_number(r"Tested: (\d+)", text),
        text=text,
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
