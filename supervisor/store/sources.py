"""What `orchctl models pull` is asked for: a repository of a hub, or a URL. Parses and names it; fetches nothing."""

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from supervisor.store.faults import Kind, StoreError
from supervisor.store.names import require_file_name, shown
from supervisor.store.reach import target_of

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
DEFAULT_REVISION = "main"


@dataclass(frozen=True, slots=True)
class HubSource:
    """Files of a repository. `file` names one; without it the repository must have one model only."""

    repo: str
    revision: str
    file: str | None

    @property
    def key(self) -> str:
        """Names the download: two callers who want the same share one."""
        return _key("hub", self.repo, self.revision, self.file or "")


@dataclass(frozen=True, slots=True)
class UrlSource:
    """One file at a URL."""

    url: str

    @property
    def key(self) -> str:
        """As that of a repository."""
        return _key("url", self.url)

    @property
    def file_name(self) -> str:
        """The last part of its path. Raises StoreError where that is no name."""
        return require_file_name(unquote(urlsplit(self.url).path).rsplit("/", 1)[-1])

    @property
    def public_url(self) -> str:
        """Without what may be a secret."""
        return self.url.partition("?")[0]


def parse_source(text: str, revision: str | None, file: str | None) -> HubSource | UrlSource:
    """`repo:org/name`, `hf:org/name` or a URL. Raises StoreError of kind `wrong`."""
    scheme, _, rest = text.partition(":")
    if scheme in {"repo", "hf"}:
        return _hub_source(rest, revision, file)
    if scheme not in {"http", "https"}:
        raise StoreError(
            f"{shown(text)} is not a source", "write repo:org/name, hf:org/name or an https URL", Kind.WRONG
        )
    target_of(text)
    if "@" in urlsplit(text).netloc or "#" in text or not text.isprintable():
        raise StoreError("the URL carries a user, a fragment or control characters", "leave them out", Kind.WRONG)
    if revision is not None or file is not None:
        raise StoreError("--revision and --file choose in a repository, and a URL has one file", None, Kind.WRONG)
    source = UrlSource(text)
    try:
        _ = source.file_name
    except StoreError:
        raise StoreError(
            f"{shown(text)} does not end in the name of a file", "give the URL of one", Kind.WRONG
        ) from None
    return source


def _hub_source(repo: str, revision: str | None, file: str | None) -> HubSource:
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise StoreError(f"{shown(repo)} is not a repository", "write it as repo:org/name", Kind.WRONG)
    chosen = revision if revision is not None else DEFAULT_REVISION
    if not _REVISION.fullmatch(chosen) or ".." in chosen:
        raise StoreError(f"{shown(chosen)} is not a revision", "give a branch, a tag or a commit", Kind.WRONG)
    if file is not None:
        try:
            require_file_name(file)
        except StoreError:
            cause = f"{shown(file)} is not a file of a repository"
            raise StoreError(cause, "name one of its files", Kind.WRONG) from None
    return HubSource(repo, chosen, file)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
