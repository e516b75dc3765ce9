"""One task from handing in to its last word, with somebody at this end who may leave at any time.

Whoever stops watching (Ctrl-C, a closed pipe) stops the task on the daemon too. Says nothing about what is asked.
"""

import time
from dataclasses import dataclass

from orchctl.answering import Answer, Collector, Listener, summary
from orchctl.asking import Wish, plan_task
from orchctl.client import Client
from orchctl.exits import BrokenOffError, ExitCode, RefusedError, VerbError
from orchctl.following import follow
from orchctl.listening import EventPrinter, Silent, TextPrinter
from orchctl.progress import WaitingLine, task_words
from orchctl.render import OutputKind, print_document, say, show
from orchctl.terminal import Style, err_screen, out_screen
from supervisor.wire.tasks import Accepted, SubmitTask

HAND_IN_TRIES_MAX = 3


@dataclass(frozen=True, slots=True)
class Manner:
    """How the caller wants to be told. `is_left_alone`: print the id and go; `as_events`: every event, as JSON."""

    output: OutputKind
    is_left_alone: bool = False
    as_events: bool = False
    is_quiet: bool = False

    @property
    def is_for_programs(self) -> bool:
        """Whether standard output holds documents and nothing else."""
        return self.as_events or self.output.is_for_programs


def converse(client: Client, wish: Wish, manner: Manner) -> None:
    """Hand in, follow, report. Raises VerbError where the task or the stream failed."""
    task = plan_task(wish, None if wish.is_complete else client.status())
    if manner.is_left_alone:
        accepted = hand_in(client, task)
        show(accepted, manner.output, lambda: [accepted.task_id])
        return
    _report(_ask(client, task, manner), manner)


def hand_in(client: Client, task: SubmitTask) -> Accepted:
    """Submit, again where the connection broke: the task id makes that safe."""
    for _ in range(HAND_IN_TRIES_MAX - 1):
        try:
            return client.submit(task)
        except BrokenOffError:
            continue
    return client.submit(task)


def _ask(client: Client, task: SubmitTask, manner: Manner) -> Answer:
    """Hand in and follow to the end. Whatever takes the reader away ends the task."""
    asked_at_s = time.monotonic()
    with WaitingLine(err_screen(), lambda: _waiting_words(client, task.task_id)) as line:
        try:
            accepted = hand_in(client, task)
            answer = Answer(task_id=accepted.task_id, job_id=accepted.job_id)
            return Collector(answer, _listener(manner, line), asked_at_s).take(follow(client, task.task_id))
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


def _waiting_words(client: Client, task_id: str) -> str:
    try:
        return task_words(client.task(task_id))
    except RefusedError:
        return "handing the task in"
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
    if not manner.is_for_programs and out_screen().is_terminal and not answer.text.endswith("\n"):
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
