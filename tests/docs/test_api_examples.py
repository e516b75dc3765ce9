"""Every example of docs/api.md is typed into a shell, against a real daemon, and prints what the page says."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.http.routes import ROUTES
from supervisor.wire.codes import Code, Reason
from tests.daemon.conftest import MakeDaemon, make_daemon
from tests.docs.likeness import mismatch
from tests.docs.page import read_examples
from tests.docs.shell import Shell
from tests.support.daemon import Daemon
from tests.support.pools import ROOT, a_fake_pool, a_model, a_oneshot_pool, a_ranker, an_embedder
from tests.support.waiting import wait_until

__all__ = ["make_daemon"]

PAGE = ROOT / "docs" / "api.md"
EXAMPLES = read_examples(PAGE)
MODEL = "smollm2-135m"


@pytest.fixture
def daemon(make_daemon: MakeDaemon, tmp_path: Path) -> Daemon:
    """The demo's pool on the fake engine, and two small models that embed and rank."""
    classes = [{"name": "interactive", "queue_capacity": 64}, {"name": "batch", "queue_capacity": 1}]
    pool = a_fake_pool("smollm2", model=MODEL, ctx=2_048, admission={"priorities": classes})
    pools = [pool, a_oneshot_pool("bge-small", "embedding"), a_oneshot_pool("bge-reranker", "rerank")]
    models = a_model(tmp_path, MODEL) | an_embedder(tmp_path, "bge-small") | a_ranker(tmp_path, "bge-reranker")
    return make_daemon(*pools, settings={"models": models}, simulate="1x24GiB").start_ready()


@contextmanager
def a_full_queue(daemon: Daemon) -> Iterator[None]:
    """One task that runs and, in its class, one that waits: the class has room for one."""
    running, waiting = (slow(daemon, "interactive"), slow(daemon, "batch"))
    yield
    for task_id in (waiting, running):
        daemon.ask("POST", f"/v1/tasks/{task_id}/cancel")


@contextmanager
def keys_in_force(daemon: Daemon) -> Iterator[None]:
    """The daemon has seen that there are keys now."""
    wait_until(lambda: daemon.ask("GET", "/v1/tasks").status == 401, within_s=20, what="a daemon that wants keys")
    yield


def slow(daemon: Daemon, priority: str) -> str:
    return daemon.accept(
        model_ref=MODEL, ctx=2_048, priority=priority, prompt="x [[slow_ms@20]]", max_tokens=2_000, seed=1
    )


SITUATIONS: dict[str, Callable[[Daemon], Any]] = {"full queue": a_full_queue, "keys in force": keys_in_force}


@pytest.mark.engines
@pytest.mark.orch("ORCH-2007")
@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples of docs/api.md need curl")
def test_every_example_prints_what_the_page_says(daemon: Daemon, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ORCHCTL_SOCKET": str(daemon.socket_path),
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
    }
    problems: list[str] = []
    with Shell(tmp_path, environ) as shell:
        for example in EXAMPLES:
            command = of_this_daemon(example.command, daemon)
            if example.situation:
                with SITUATIONS[example.situation](daemon):
                    printed = shell.run(command)
            else:
                printed = shell.run(command)
            problem = mismatch(example.kind, example.answer, printed)
            if problem is not None:
                problems.append(f"docs/api.md:{example.line}: {problem}\n{printed[:1500]}")

    assert not problems, "\n".join(problems)


def of_this_daemon(command: str, daemon: Daemon) -> str:
    """The two addresses of the page are those of the demo."""
    tcp = f"http://127.0.0.1:{daemon.port}"
    return command.replace("http://127.0.0.1:8090", tcp).replace(".demo/control.sock", str(daemon.socket_path))


def test_every_route_has_an_example_or_a_row() -> None:
    typed = [word for example in EXAMPLES for word in example.command.replace('"', " ").split()]
    paths = {word.split("?")[0] for word in typed if word.startswith(("$O/", "http://localhost/"))}
    shown = {"/" + path.split("/", 1 if path.startswith("$O") else 3)[-1] for path in paths}

    missing = [
        route.path
        for route in ROUTES
        if f"| `{route.method} {route.path}` |" not in PAGE.read_text(encoding="utf-8")
        and not any(
            len(a := path.split("/")) == len(b := route.path.split("/"))
            and all(y == "{id}" or x == y for x, y in zip(a, b, strict=True))
            for path in shown
        )
    ]

    assert missing == []


def test_every_code_and_every_reason_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert [code for code in Code if f"| {code} |" not in text and f" {code}" not in text] == []
    assert [reason for reason in Reason if f"`{reason}`" not in text] == []
