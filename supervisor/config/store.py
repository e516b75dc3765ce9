"""The `store` and `hub` sections: where pulled models lie, how much they may take, which hosts they may come from."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from supervisor.config.fields import Count, FilePath, Section, quoted, wrong

HOSTS_MAX = 64
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?")


def _check_endpoint(text: str) -> str:
    """A bare origin, with no path or secrets in it."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise wrong(f"{quoted(text)} is not the address of a hub: https://host or https://host:port")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise wrong("carries more than an address; a token goes into `hub.token_file`")
    return text.rstrip("/")


def _check_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise wrong(f"{quoted(text)} is not a host: name, name:port or *.domain")
    return text.lower()


class StoreConfig(Section):
    """The folder of pulled models and its quota (ORCH-3042). Without `max_bytes` the disk is the only bound."""

    dir: FilePath | None = None
    max_bytes: Annotated[Count, Field(ge=1_048_576, le=2**60)] | None = None


class HubConfig(Section):
    """Where `orchctl models pull` may fetch from. The daemon itself never fetches anything.

    `hosts` is added to the endpoint's own; a name without a star may also have a private address.
    """

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    hosts: Annotated[tuple[Annotated[str, AfterValidator(_check_host)], ...], Field(max_length=HOSTS_MAX)] = ()
    token_file: FilePath | None = None
    model_bytes_max: Annotated[Count, Field(ge=1_048_576, le=2**60)] = 1_099_511_627_776
