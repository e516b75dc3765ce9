"""Which model store a verb works on, under which rules, and which of its models are needed. It changes nothing."""

import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from orchctl.client import Client
from orchctl.exits import ExitCode, UnreachableError, VerbError
from supervisor.config.paths import defaults_from_environ
from supervisor.config.secret_files import SecretFileError, Trust, read_secret
from supervisor.store.faults import Kind, StoreError
from supervisor.store.needed import digests_held, digests_named
from supervisor.store.reach import Reach
from supervisor.store.shelf import Shelf
from supervisor.wire.pools import HostStatus

TOKEN_BYTES_MAX = 4096
MODEL_BYTES_MAX = 1_099_511_627_776
_CODES = {
    Kind.FAILED: ExitCode.FAILED,
    Kind.WRONG: ExitCode.USAGE,
    Kind.LATER: ExitCode.TRY_LATER,
    Kind.DENIED: ExitCode.NOT_PERMITTED,
}
_TOKEN = re.compile(r"[\x21-\x7e]{1,1024}")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the config says of store and hub. `refs` are the models of its pools; None: no config and no daemon."""

    models_dir: Path
    max_bytes: int | None = None
    model_bytes_max: int = MODEL_BYTES_MAX
    endpoint: str | None = None
    hosts: tuple[str, ...] = ()
    token_file: Path | None = None
    refs: frozenset[str] | None = None

    @property
    def shelf(self) -> Shelf:
        """The store itself."""
        return Shelf(self.models_dir)

    @property
    def reach(self) -> Reach:
        """Where models may come from: the config's hub, else that of HF_ENDPOINT, else the public one."""
        return Reach(self.endpoint or os.environ.get("HF_ENDPOINT") or None, self.hosts)

    def token(self) -> str | None:
        """The token for the hub, None where there is none. It is printed nowhere. Raises VerbError."""
        if self.token_file is None:
            text = os.environ.get("HF_TOKEN", "").strip()
        else:
            try:
                text = read_secret(self.token_file, Trust(TOKEN_BYTES_MAX)).decode("ascii", "replace").strip()
            except FileNotFoundError:
                raise VerbError(ExitCode.CONFIG, f"there is no token file {self.token_file}", "write it") from None
            except SecretFileError as error:
                raise VerbError(ExitCode.NOT_PERMITTED, str(error)) from None
        if text and not _TOKEN.fullmatch(text):
            raise VerbError(
                ExitCode.CONFIG, "the token for the hub is not one line of printable ASCII", "write it anew"
            )
        return text or None


@dataclass(slots=True)
class Needs:
    """What is known of the use of models. `refs` are texts that may be references."""

    refs: set[str] = field(default_factory=set)
    is_known: bool = False

    def digests(self, shelf: Shelf) -> set[str]:
        """The digests that must stay."""
        catalogue = shelf.catalogue()
        return digests_named(catalogue, self.refs) | digests_held(catalogue, shelf.root)


def find_rules(client: Client, config: Path | None, *, are_pools_needed: bool = False) -> tuple[Rules, Needs]:
    """The rules: 1. of the named config; 2. of the daemon that runs; 3. the defaults of this user.

    What a daemon mentions in its status is needed, whatever for: a pool, a standby, the former revision of a rollout.
    """
    needs = Needs()
    page = _status(client, must_answer=config is None or are_pools_needed)
    store = page.store if page is not None else None
    if page is not None:
        needs.refs.update(_texts(msgspec.to_builtins(page)))
        needs.is_known = True
    named = config if config is not None else Path(store.config_file) if store is not None else None
    rules = _rules_of(named) if named is not None else _defaults()
    if store is not None and named == Path(store.config_file):
        rules = dataclasses.replace(rules, models_dir=Path(store.models_dir))
    if rules.refs is not None:
        needs.refs.update(rules.refs)
        needs.is_known = True
    return rules, needs


def _status(client: Client, *, must_answer: bool) -> HostStatus | None:
    """What the daemon says; None where none runs, or where one that will not talk to us does not matter."""
    try:
        return client.status()
    except UnreachableError:
        return None
    except VerbError:
        if must_answer:
            raise
        return None


def _texts(value: object) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _defaults() -> Rules:
    return Rules(defaults_from_environ(os.environ, os.geteuid()).state_dir / "models")


def _rules_of(path: Path) -> Rules:
    from supervisor.config.load import load  # noqa: PLC0415  (pydantic: a verb without a config must not wait for it)
    from supervisor.config.places import find_models_dir  # noqa: PLC0415  (as above)
    from supervisor.config.problems import ConfigError, is_denied  # noqa: PLC0415  (as above)

    try:
        config = load(path).config
    except ConfigError as error:
        if is_denied(error):
            raise VerbError(ExitCode.NOT_PERMITTED, str(error.problems[0]), "run it as who may read it") from None
        raise VerbError(ExitCode.CONFIG, str(error.problems[0]), f"see all with `orchctl validate {path}`") from None
    return Rules(
        models_dir=find_models_dir(config, defaults_from_environ(os.environ, os.geteuid()).state_dir),
        max_bytes=config.store.max_bytes,
        model_bytes_max=config.hub.model_bytes_max,
        endpoint=config.hub.endpoint,
        hosts=config.hub.hosts,
        token_file=config.hub.token_file,
        refs=frozenset(pool.model for pool in config.pools),
    )


def verb_error(error: StoreError) -> VerbError:
    """A refusal of the store as the end of a verb."""
    return VerbError(_CODES[error.kind], error.cause, error.next_step)
