"""The same events give the same effects in every process, whatever the seed of its hashes."""

import os
import subprocess
import sys
from pathlib import Path

from supervisor.core import effects as ef
from supervisor.core import events as ev
from tests.core.builders import DIGEST, make_plan, make_task, only, ready_stage

SETS = 12


def play() -> str:
    """Twelve sets become movable in one step, for their tasks reach the disk together; gives all effects, in order."""
    models = [f"m{number}" for number in range(SETS)]
    stage = ready_stage(
        *(
            make_plan(model, model_ref=model, model_refs=frozenset({model}), model_digest=DIGEST + model)
            for model in models
        )
    )
    names = [f"t-{model}" for model in models]
    for name, model in zip(names, models, strict=True):
        stage.give(ev.TaskSubmitted(make_task(name, model_ref=model)))
    effects = stage.give(ev.AcceptsCommitted(tuple(names)))
    assert len(only(effects, ef.StartRun)) == SETS
    return "\n".join(map(repr, effects))


def play_elsewhere(hash_seed: str) -> str:
    """The same story in another process."""
    done = subprocess.run(
        [sys.executable, "-c", "from tests.core.test_hash_seed import play; print(play())"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.rstrip("\n")


def test_sets_that_become_movable_in_one_step_move_in_the_same_order_everywhere() -> None:
    one, other = play_elsewhere("1"), play_elsewhere("2")

    assert one == other
    assert one.count("StartRun(") == SETS
