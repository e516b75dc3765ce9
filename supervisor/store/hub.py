"""Asks a hub of Hugging Face's kind what a repository holds: its commit and its files. Fetches no file.

Files are fetched by `fetching`: the library's own download names its partial file anew in every process, so it begins
again after a kill. Its telemetry, its other transport and the token it finds by itself are off.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import httpx2

from supervisor.store.faults import Kind, StoreError
from supervisor.store.hub_transport import unreachable
from supervisor.store.reach import target_of
from supervisor.store.selection import Listed
from supervisor.store.sources import HubSource

LISTING_MAX = 10_000
_COMMIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
}


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit."""

    commit: str
    listing: tuple[Listed, ...]
    url_of: Callable[[str], str]


def look_into(source: HubSource, endpoint: str, token: str | None, client: httpx2.Client) -> Repository:
    """The files of a revision. Raises StoreError."""
    library = _library()
    library.set_client_factory(lambda: client)
    api = library.HfApi(endpoint=endpoint, token=token or False)
    with _translated(endpoint):
        commit = _commit(api.model_info(source.repo, revision=source.revision).sha)
        tree = api.list_repo_tree(source.repo, recursive=True, revision=commit)
        found = list(itertools.islice(tree, LISTING_MAX + 1))
        if len(found) > LISTING_MAX:
            raise StoreError(f"the repository has more than {LISTING_MAX} files", "name another")
        listing = tuple(_listed(each) for each in found if isinstance(each, library.hf_api.RepoFile))

    def url_of(path: str) -> str:
        return str(library.hf_hub_url(source.repo, path, revision=commit, endpoint=endpoint))

    return Repository(commit, listing, url_of)


def _library() -> ModuleType:
    """The library reads its switches from the environment when it is loaded, so they are set just before that."""
    os.environ.update(_QUIET)
    import huggingface_hub  # noqa: PLC0415  (as above; and nobody else pays for it)
    import huggingface_hub.hf_api  # noqa: PLC0415

    return huggingface_hub


def _commit(text: object) -> str:
    """It becomes part of addresses and of the catalogue."""
    if not isinstance(text, str) or not _COMMIT.fullmatch(text):
        raise TypeError("a revision that is no id of a commit")
    return text


def _listed(file: object) -> Listed:
    """A file of the library as one of ours; what a hub says of it is not yet believed."""
    path, size, git_id, lfs = (getattr(file, name) for name in ("path", "size", "blob_id", "lfs"))
    sha256 = lfs.sha256 if lfs is not None else None
    if not isinstance(path, str) or not isinstance(size, int) or size < 0 or not isinstance(git_id, str):
        raise TypeError("a file without a name, a size or an id")
    if sha256 is not None and not isinstance(sha256, str):
        raise TypeError("a digest that is no text")
    return Listed(path, size, sha256, git_id)


@contextmanager
def _translated(endpoint: str) -> Iterator[None]:
    """The library's errors as sentences of ours; what the server wrote into them is left out."""
    from huggingface_hub import errors  # noqa: PLC0415  (loaded by now)

    host = target_of(endpoint).host
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        what = "repository" if isinstance(error, errors.RepositoryNotFoundError) else "revision"
        if getattr(error.response, "status_code", None) in (401, 403):
            raise _denied(host) from None
        raise StoreError(f"{host} has no such {what}, or does not show it", "check its name, or give a token") from None
    except errors.HfHubHTTPError as error:
        raise _of_status(host, error.response) from None
    except errors.OfflineModeIsEnabled:
        raise StoreError("HF_HUB_OFFLINE forbids to ask a hub", "unset it") from None
    except httpx2.TransportError as error:
        raise unreachable(host, error) from None
    except httpx2.HTTPError as error:
        raise StoreError(f"{host} answers nonsense ({type(error).__name__})", "check `hub.endpoint`") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{host} does not answer as a hub ({type(error).__name__})", "check `hub.endpoint`") from None


def _of_status(host: str, response: httpx2.Response) -> StoreError:
    status = response.status_code
    if status in (401, 403):
        return _denied(host)
    return StoreError(f"{host} answers {status}", "check the name, the revision and `hub.endpoint`")


def _denied(host: str) -> StoreError:
    step = "set `hub.token_file` or HF_TOKEN to a token that may read it"
    return StoreError(f"{host} does not show that repository without a token, or not for this one", step, Kind.DENIED)
