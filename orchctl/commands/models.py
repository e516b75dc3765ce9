"""`orchctl models`: models fetched, taken in, listed, read again and thrown away, with a daemon or without one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from orchctl.context import client_of
from orchctl.exits import ExitCode, VerbError, usage
from orchctl.model_store import Needs, Rules, find_rules, verb_error
from orchctl.model_text import (
    CheckView,
    ModelList,
    list_lines,
    prune_lines,
    size_bytes,
    size_text,
    view_model,
    view_prune,
)
from orchctl.pull_progress import PullProgress
from orchctl.render import Output, OutputKind, say, show
from orchctl.terminal import err_screen, out_screen
from supervisor.config.catalogue import Catalogue, Entry
from supervisor.store.checking import find_damage
from supervisor.store.eviction import EvictionPlan, plan_eviction
from supervisor.store.faults import StoreError
from supervisor.store.leftovers import clear_leftovers, count_leftovers
from supervisor.store.needed import digests_held, digests_named, digests_open
from supervisor.store.shelf import Needed
from supervisor.store.sources import parse_source

HELP = "Fetch, list, verify and throw away models."

Config = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", readable=False, help="The config of the daemon.")
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]


def pull(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="repo:org/name, hf:org/name or an https URL.")],
    *,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What pools call it.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", metavar="R", help="Branch, tag or commit.")] = None,
    file: Annotated[str | None, typer.Option("--file", metavar="F", help="One file of the repository.")] = None,
    sha256: Annotated[str | None, typer.Option("--sha256", metavar="D", help="The digest that it must have.")] = None,
    config: Config = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Fetch a model into the store.

    A pull that was broken off goes on where it was.
    """
    with _translated():
        wanted = parse_source(source, revision, file)
    digest = _digest(sha256)
    from supervisor.store.pulling import Means, Wish, pull as fetch  # noqa: I001, PLC0415  (an HTTP client: nobody else pays)

    rules, needs = find_rules(client_of(ctx), config)
    with _translated(), PullProgress(err_screen(), name or source.partition("?")[0]) as progress:
        means = Means(
            rules.shelf,
            rules.reach,
            rules.token(),
            rules.model_bytes_max,
            _room_maker(rules, needs, _needed_now(ctx, config)),
            progress.tell,
            rules.max_bytes,
        )
        pulled = fetch(Wish(wanted, name, digest), means)
    done = "is there already" if pulled.was_there else "is in the store"
    _show_entry(pulled.entry, rules, output, done)
    if pulled.is_believed:
        say("no `--sha256` was given: it is believed as it came; from now on every load is checked against this digest")


def add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", readable=False, help="A model file, or a folder of one.")],
    *,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What pools call it.")],
    config: Config = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Copy a model of this machine into the store."""
    from supervisor.store.adding import add as take_in  # noqa: PLC0415  (it shares its rules with a pull)

    rules, needs = find_rules(client_of(ctx), config)
    with _translated(), PullProgress(err_screen(), name) as progress:
        make_room = _room_maker(rules, needs, _needed_now(ctx, config))
        entry = take_in(path, name, rules.shelf, make_room, progress.tell)
    _show_entry(entry, rules, output, "is in the store")


def list_models(ctx: typer.Context, *, config: Config = None, output: Output = OutputKind.TABLE) -> None:
    """Show what is in the store."""
    rules, _ = find_rules(client_of(ctx), config)
    shelf = rules.shelf
    with _translated():
        entries = shelf.catalogue().models
    sizes = {entry.digest: entry.size for entry in entries}
    page = ModelList(
        dir=str(shelf.root),
        size=sum(sizes.values()),
        max_bytes=rules.max_bytes,
        models=[view_model(entry, str(shelf.root), shelf.used_at(entry)) for entry in entries],
    )
    show(page, output, lambda: list_lines(page, out_screen(), is_wide=output is OutputKind.WIDE))


def verify(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One model. Without it: all.")] = None,
    *,
    config: Config = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Read models again, and say which are no longer what they were."""
    rules, _ = find_rules(client_of(ctx), config)
    shelf = rules.shelf
    with _translated():
        catalogue = shelf.catalogue()
        entries = [_require(catalogue, name)] if name is not None else list(catalogue.models)
    checks = []
    for entry in entries:
        with PullProgress(err_screen(), entry.name) as progress:
            cause = find_damage(entry, shelf.root, progress.tell)
        checks.append(CheckView(name=entry.name, digest=entry.digest, valid=cause is None, cause=cause))
    show(checks, output, lambda: [f"{one.name}: {'as it was' if one.valid else one.cause}" for one in checks])
    if damaged := [one.name for one in checks if not one.valid]:
        step = f"remove it with `orchctl models remove {damaged[0]}`, and pull it again"
        raise VerbError(ExitCode.FAILED, f"{len(damaged)} of {len(checks)} models are damaged", step)


def prune(
    ctx: typer.Context,
    *,
    to: Annotated[str | None, typer.Option("--to", metavar="SIZE", help="How large the store may stay.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; remove nothing.")] = False,
    yes: Yes = False,
    config: Config = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Throw away the models that were used longest ago.

    Never one that a pool names, a daemon still keeps or any process has open. The plan is shown first.
    """
    rules, needs = find_rules(client_of(ctx), config, are_pools_needed=True)
    limit = size_bytes(to, "--to") if to is not None else rules.max_bytes
    if limit is None:
        raise usage("there is no quota to prune to", "say `--to SIZE`, or set `store.max_bytes`")
    with _translated():
        plan = _plan(rules, needs, limit)
        leftovers = count_leftovers(rules.shelf.partial)
        if not dry_run and (plan.victims or leftovers):
            if not yes:
                _confirm(plan, leftovers)
            plan = _drop(plan, rules, _needed_now(ctx, config), limit)
            leftovers = clear_leftovers(rules.shelf.partial)
    view = view_prune(plan, leftovers, dry_run=dry_run)
    show(view, output, lambda: prune_lines(view))
    if not plan.is_enough:
        cause = f"{size_text(plan.after_bytes)} are in use, above {size_text(limit)}"
        raise VerbError(ExitCode.FAILED, cause, "take models out of pools first, or allow more")


def remove(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that `orchctl models list` shows.")],
    *,
    yes: Yes = False,
    config: Config = None,
    output: Output = OutputKind.TABLE,
) -> None:
    """Forget a name, and throw its files away where no other name has them."""
    rules, needs = find_rules(client_of(ctx), config, are_pools_needed=True)
    shelf = rules.shelf
    with _translated():
        catalogue = shelf.catalogue()
        entry = _require(catalogue, name)
        _require_known(needs)
        if entry.digest in digests_named(catalogue, needs.refs) | digests_held(catalogue, shelf.root):
            raise VerbError(ExitCode.FAILED, f"{name} is in use", "take it out of its pools first")
        if not yes:
            _ask(f"Remove {name} ({size_text(entry.size)})?", f"removing {name} throws its files away")
        if not shelf.forget(entry, _needed_now(ctx, config)):
            raise VerbError(ExitCode.FAILED, f"{name} came into use meanwhile", "take it out of its pools first")
    view = view_model(entry, str(shelf.root), entry.added.timestamp())
    show(view, output, lambda: [f"{name} is removed"])


ACTIONS = {"pull": pull, "add": add, "list": list_models, "verify": verify, "prune": prune, "remove": remove}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise verb_error(error) from None


def _require(catalogue: Catalogue, name: str) -> Entry:
    entry = catalogue.find(name)
    if entry is None:
        raise VerbError(ExitCode.FAILED, "there is no model of that name in the store", "see `orchctl models list`")
    return entry


def _digest(text: str | None) -> str | None:
    if text is None:
        return None
    digest = text.lower().removeprefix("sha256:")
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise usage("--sha256 is 64 hex digits", "copy it from where the model is published")
    return f"sha256:{digest}"


def _show_entry(entry: Entry, rules: Rules, output: OutputKind, done: str) -> None:
    view = view_model(entry, str(rules.models_dir), rules.shelf.used_at(entry))
    show(view, output, lambda: [f"{entry.name} {done}: {size_text(entry.size)}, {entry.digest}"])


def _plan(rules: Rules, needs: Needs, limit: int) -> EvictionPlan:
    _require_known(needs)
    shelf = rules.shelf
    return plan_eviction(shelf.catalogue(), limit, needs.digests(shelf), shelf.used_at)


def _require_known(needs: Needs) -> None:
    """Nothing is thrown away by one who does not know what is needed."""
    if not needs.is_known:
        raise usage(
            "no daemon runs, so it is not known which models are needed", "name its config with `--config FILE`"
        )


def _needed_now(ctx: typer.Context, config: Path | None) -> Needed:
    """Asks daemon and config once more: between a plan and its end a person thinks, and a daemon goes on."""

    def needed(catalogue: Catalogue) -> set[str]:
        rules, needs = find_rules(client_of(ctx), config, are_pools_needed=True)
        _require_known(needs)
        return digests_named(catalogue, needs.refs) | digests_open(catalogue, rules.models_dir)

    return needed


def _drop(plan: EvictionPlan, rules: Rules, needed: Needed, limit: int) -> EvictionPlan:
    """Throw the victims away; gives the plan as it came out, for what came into use meanwhile stays."""
    gone = tuple(victim for victim in plan.victims if rules.shelf.drop(victim.digest, needed))
    for victim in plan.victims:
        if victim not in gone:
            say(f"{', '.join(victim.names)} came into use meanwhile, and stays")
    after = plan.before_bytes - sum(victim.size for victim in gone)
    return EvictionPlan(gone, plan.before_bytes, after, after <= limit)


def _room_maker(rules: Rules, needs: Needs, needed: Needed) -> Callable[[int], None]:
    """Makes room within the quota, by what was used longest ago; says what goes."""

    def make_room(size: int) -> None:
        if rules.max_bytes is None:
            return
        plan = _plan(rules, needs, rules.max_bytes - size)
        if not plan.is_enough or size > rules.max_bytes:
            cause = f"{size_text(size)} do not fit into the quota of {size_text(rules.max_bytes)} beside what is in use"
            raise StoreError(cause, "raise `store.max_bytes`, or take models out of pools")
        limit = rules.max_bytes - size
        done = _drop(plan, rules, needed, limit)
        for victim in done.victims:
            say(f"removed {', '.join(victim.names)} ({size_text(victim.size)}) to stay within the quota")
        if not done.is_enough:
            raise StoreError(f"{size_text(size)} do not fit into the quota beside what is in use", "try the same again")

    return make_room


def _confirm(plan: EvictionPlan, leftovers: int) -> None:
    for line in prune_lines(view_prune(plan, leftovers, dry_run=True)):
        say(line)
    _ask("Remove them?", "removing models cannot be undone")


def _ask(question: str, cause: str) -> None:
    """Only a person at a terminal can be asked."""
    if not sys.stdin.isatty():
        raise usage(cause, "say `--yes`, or look first with `orchctl models list`")
    if not typer.confirm(question, err=True):
        raise VerbError(ExitCode.FAILED, "nothing was removed", "see `orchctl models list`")
