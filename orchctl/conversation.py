"""One task from handing in to its last word, with somebody at this end who may leave at any time.

Whoever stops watching (Ctrl-C, a closed pipe) stops the task on the daemon too. Says nothing about what is asked.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchctl.answering import Answer, Collector, Listener, summary
from orchctl.asking import Wish, plan_task
from orchctl.client import Client
from orchctl.exits import ExitCode, RefusedError, VerbError
from orchctl.listening import EventPrinter, Silent, TextPrinter
from orchctl.progress import WaitingLine, task_words
from orchctl.render import OutputKind, json_line, print_document, say, show
from orchctl.spans import spoken
from orchctl.terminal import Style, err_screen, out_screen
from supervisor.wire.tasks import SubmitTask

if TYPE_CHECKING:
    from orchctl.streaming import Following
    from supervisor.client.errors import ClientError


@dataclass(frozen=True, slots=True)
class Manner:
    """How the caller wants to be told. `is_left_alone`: print the id and go; `as_events`: every event, as JSON.

    `is_asked_once`: a busy daemon is not asked a second time.
    """

    output: OutputKind
    is_left_alone: bool = False
    is_asked_once: bool = False
    as_events: bool = False
    is_quiet: bool = False

    @property
    def is_for_programs(self) -> bool:
        """Whether standard output holds documents and nothing else."""
        return self.as_events or self.output.is_for_programs


def converse(client: Client, wish: Wish, manner: Manner) -> None:
    """Hand in, follow, report. Raises VerbError where the task or the stream failed."""
    task = plan_task(wish, None if wish.is_complete else client.status())
    remark = Remark(client.path)
    with _following(client, remark, manner) as following:
        if manner.is_left_alone:
            accepted = following.hand_in(task)
            show(accepted, manner.output, lambda: [accepted.task_id])
            return
        answer = _ask(client, following, task, manner, remark)
    _report(answer, manner)


def _following(client: Client, remark: "Remark", manner: Manner) -> "Following":
    # Loaded here and not above: the help page of every verb loads this module.
    from orchctl.streaming import Following  # noqa: PLC0415

    return Following(client.path, remark.on_retry, is_asked_once=manner.is_asked_once)


class Remark:
    """What is said of a task that the daemon does not have yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.text = "handing the task in"

    def on_retry(self, error: "ClientError", wait_s: float) -> None:
        """The daemon wants to be asked later, or was lost."""
        from orchctl.streaming import verb_error  # noqa: PLC0415  (as above)

        self.text = f"{verb_error(error, self._path).cause}, trying again in {spoken(round(wait_s * 1_000))}"


def _ask(client: Client, following: "Following", task: SubmitTask, manner: Manner, remark: Remark) -> Answer:
    """Hand in and follow to the end. Whatever takes the reader away ends the task."""
    asked_at_s = time.monotonic()
    with WaitingLine(err_screen(), lambda: _waiting_words(client, task.task_id, remark)) as line:
        try:
            accepted = following.hand_in(task)
            answer = Answer(task_id=accepted.task_id, job_id=accepted.job_id)
            return Collector(answer, _listener(manner, line), asked_at_s).take(following.frames(task.task_id))
        except KeyboardInterrupt:
            line.clear()
            if out_screen().is_terminal:
                # Behind the text and the terminal's own ^C.
                print_document("\n")
            _cancel(client, task.task_id)
            raise
        except OSError:
            # Standard output is gone (a closed pipe, a full disk): nobody will read the rest.
            line.clear()
            _cancel(client, task.task_id)
            raise


def _listener(manner: Manner, line: WaitingLine) -> Listener:
    if manner.as_events:
        return EventPrinter(line)
    return Silent() if manner.is_for_programs else TextPrinter(out_screen(), line)


def _waiting_words(client: Client, task_id: str, remark: Remark) -> str:
    try:
        return task_words(client.task(task_id))
    except RefusedError:
        return remark.text
    except VerbError as error:
        return f"{error.cause}, trying again"


def _cancel(client: Client, task_id: str) -> None:
    """End the task on the daemon and say so, or say how to."""
    try:
        emitted = client.cancel(task_id)
    except RefusedError:
        say("orchctl: interrupted before the task was handed in")
    except VerbError as error:
        say(f"orchctl: task {task_id} may go on, because {error.cause}; end it with `orchctl cancel {task_id}`")
    else:
        say(f"orchctl: task {task_id} is cancelled after {emitted} tokens")


def _report(answer: Answer, manner: Manner) -> None:
    """The end of the answer: figures for a person, one document for a program, or the error that ended it."""
    if answer.outputs is not None and not manner.is_for_programs:
        print_document("".join(json_line(output) for output in answer.outputs))
    elif not manner.is_for_programs and out_screen().is_terminal and not answer.text.endswith("\n"):
        print_document("\n")
    if manner.output.is_for_programs and not manner.as_events:
        show(answer, manner.output, list)
    if answer.error is not None:
        raise RefusedError(answer.error)
    if answer.state == "canceled":
        cause = f"the task was cancelled by somebody else after {answer.tokens_out} tokens"
        raise VerbError(ExitCode.FAILED, cause, "submit it again")
    if not manner.is_quiet and not manner.is_for_programs:
        screen = err_screen()
        say(screen.paint(summary(answer, screen.signs.dot), Style.DIM))
