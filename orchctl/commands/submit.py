"""`orchctl submit`: what may be said about a task on the command line, and where its prompt comes from."""

import sys
import uuid
from dataclasses import replace
from typing import Annotated, TypeVar

import typer
from msgspec import UNSET, UnsetType

from orchctl.asking import Subject, Wish, task_id_of
from orchctl.context import client_of
from orchctl.conversation import Manner, converse
from orchctl.durations import duration_ms
from orchctl.exits import usage
from orchctl.render import Output, OutputKind
from supervisor.wire.codes import Determinism, Engine, KvHint, Priority, Workload
from supervisor.wire.tasks import Sampler

PROMPT_BYTES_MAX = 2**20

T = TypeVar("T")


def submit(  # noqa: PLR0913  (one parameter for each option: that is what typer reads)
    ctx: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - or nothing reads standard input.")] = None,
    *,
    workload: Annotated[Workload, typer.Option(help="What is asked of the model.")] = Workload.COMPLETION,
    text: Annotated[
        list[str] | None, typer.Option("--input", metavar="TEXT", help="To embed or rank; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option("-m", "--model", help="Default: the only one here.")] = None,
    engine: Annotated[Engine | None, typer.Option(help="Default: the only one that serves the model.")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="Default: 256.", show_default=False)] = None,
    ctx_tokens: Annotated[int | None, typer.Option("--ctx", metavar="N", help="Default: that of the pool.")] = None,
    priority: Annotated[Priority, typer.Option(help="The class to wait in.")] = Priority.INTERACTIVE,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Default: derived from the task id.")] = None,
    strict: Annotated[bool | None, typer.Option("--strict/--best-effort", help="The same bytes every time.")] = None,
    deadline: Annotated[str, typer.Option(metavar="TIME", help="Give up after this, waiting included.")] = "300s",
    temperature: Annotated[float | None, typer.Option(metavar="X", help="0 takes the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(metavar="N", help="Only the N likeliest tokens; 0: all.")] = None,
    top_p: Annotated[float | None, typer.Option(metavar="X", help="Only the likeliest that sum to X.")] = None,
    min_p: Annotated[float | None, typer.Option(metavar="X", help="Only from X times the likeliest up.")] = None,
    repeat_penalty: Annotated[float | None, typer.Option(metavar="X", help="Above 1: repeat less.")] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text; repeatable.")] = None,
    session: Annotated[str | None, typer.Option(metavar="UUID", help="The session that this turn belongs to.")] = None,
    reuse: Annotated[bool, typer.Option("--reuse", help="Where the session was before, its KV cache.")] = False,
    task_id: Annotated[str | None, typer.Option(metavar="UUID", help="The same id twice is one task.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the task id and leave the task alone.")] = False,
    no_retry: Annotated[bool, typer.Option("--no-retry", help="Ask a busy daemon only once.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Print every event as a line of JSON.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No line of figures.")] = False,
    output: Output = OutputKind.TABLE,
) -> None:
    """Ask a model.

    The answer is printed as it comes; vectors and scores as one line of JSON each. Ctrl-C cancels the task on the
    daemon too. A daemon that is busy is asked again when it says so, for half a minute.
    """
    told = Wish(
        subject=_subject(workload, prompt, text or []),
        kv_hint=KvHint.REUSE if reuse else UNSET,
        task_id=task_id_of(task_id, "--task-id") if task_id else str(uuid.uuid4()),
        session_id=task_id_of(session, "--session") if session else str(uuid.uuid4()),
        deadline_ms=duration_ms(deadline, "--deadline"),
        seed=_or_unset(seed),
        determinism=UNSET if strict is None else Determinism.STRICT if strict else Determinism.BEST_EFFORT,
        stop=stop or (),
        sampler=_sampler(temperature, top_k, top_p, min_p, repeat_penalty),
    )
    wish = replace(told, model=model, engine=engine, ctx=ctx_tokens, max_tokens=max_tokens, priority=priority)
    manner = Manner(output, is_left_alone=no_wait, is_asked_once=no_retry, as_events=events, is_quiet=quiet)
    converse(client_of(ctx), wish, manner)


def _subject(workload: Workload, prompt: str | None, texts: list[str]) -> Subject:
    """The texts; standard input is read only where there is no other one, or where it is asked for."""
    if texts and workload is Workload.COMPLETION:
        raise usage("--input is for embedding and rerank", "name one with `--workload`")
    return Subject(prompt if texts and prompt != "-" else _prompt(prompt), workload, texts)


def _prompt(given: str | None) -> str:
    """The prompt from the line or from standard input, which must be UTF-8 and at most 1 MiB."""
    if given is not None and given != "-":
        return given
    if given is None and sys.stdin.isatty():
        raise usage("a prompt is missing", 'write `orchctl submit "your prompt"` or pipe one in')
    raw = sys.stdin.buffer.read(PROMPT_BYTES_MAX + 1)
    if len(raw) > PROMPT_BYTES_MAX:
        raise usage(f"the prompt is longer than {PROMPT_BYTES_MAX} bytes", "shorten it")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise usage("the prompt is not valid UTF-8", "convert it first, for example with iconv") from None


def _sampler(
    temperature: float | None, top_k: int | None, top_p: float | None, min_p: float | None, repeat: float | None
) -> Sampler | UnsetType:
    if temperature is top_k is top_p is min_p is repeat is None:
        return UNSET
    return Sampler(
        temperature=_or_unset(temperature),
        top_k=_or_unset(top_k),
        top_p=_or_unset(top_p),
        min_p=_or_unset(min_p),
        repeat_penalty=_or_unset(repeat),
    )


def _or_unset(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value
