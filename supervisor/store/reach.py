"""Which hosts may be fetched from (SSRF). Decides for each request, also for every redirect, before anything is sent.

1. `https`, or `http` where the endpoint itself speaks it. 2. The host and port are the endpoint's, or are listed.
3. Every address behind the name is public, unless the operator named that very host. Pure but for the look-up of names.
"""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from supervisor.store.faults import Kind, StoreError
from supervisor.store.names import shown

PUBLIC_ENDPOINT = "https://huggingface.co"
PUBLIC_HOSTS = ("huggingface.co", "*.huggingface.co", "hf.co", "*.hf.co")
_PORTS = {"https": 443, "http": 80}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
"""Of one network's own translator (RFC 8215): it may lead anywhere inside."""


@dataclass(frozen=True, slots=True)
class Target:
    """One origin of a request."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Reach:
    """The rule. `endpoint` None is the public hub; `hosts` are name, name:port or *.domain, as the operator lists."""

    endpoint: str | None = None
    hosts: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """The address of the hub."""
        return self.endpoint or PUBLIC_ENDPOINT

    def addresses(self, target: Target) -> tuple[str, ...]:
        """The addresses that may be connected to. Raises StoreError."""
        is_trusted = self._is_named(target)
        if not is_trusted and not self._is_listed(target):
            raise self._refusal(target, "is not among the hosts that may be fetched from", can_be_listed=True)
        found = _resolve(target)
        if not is_trusted and (inner := [one for one in found if not is_public(one)]):
            raise self._refusal(target, f"leads to {inner[0]}, an address that is not public", can_be_listed=False)
        return found

    def _is_named(self, target: Target) -> bool:
        """The operator named this very host and port: its address is his business."""
        if self.endpoint is not None and target == target_of(self.endpoint):
            return True
        return self._has_fitting_scheme(target) and any(
            _names(entry, target) for entry in self.hosts if not entry.startswith("*")
        )

    def _is_listed(self, target: Target) -> bool:
        if target == target_of(self.base):
            return True
        listed = (*self.hosts, *(PUBLIC_HOSTS if self.endpoint is None else ()))
        return self._has_fitting_scheme(target) and any(_names(entry, target) for entry in listed)

    def _has_fitting_scheme(self, target: Target) -> bool:
        return target.scheme == "https" or self.base.startswith("http:")

    @staticmethod
    def _refusal(target: Target, why: str, *, can_be_listed: bool) -> StoreError:
        step = "add it to `hub.hosts` of the config if it is to be trusted" if can_be_listed else None
        return StoreError(f"{target.scheme}://{shown(target.host)[1:-1]}:{target.port} {why}", step, Kind.DENIED)


def target_of(url: str) -> Target:
    """The origin of a URL. Raises StoreError for one that cannot be fetched."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise StoreError(f"{shown(url)} is not a URL", None, Kind.WRONG) from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise StoreError(f"{shown(url)} is not a URL that can be fetched", "give an https URL", Kind.WRONG)
    return Target(parts.scheme, parts.hostname.lower(), port if port is not None else _PORTS[parts.scheme])


def is_public(address: str) -> bool:
    """Whether an address belongs to nobody's inner network, link or machine; also where it is wrapped in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64_LOCAL:
            return False
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip.sixtofour is not None:
            ip = ip.sixtofour
    return ip.is_global and not ip.is_multicast


def _names(entry: str, target: Target) -> bool:
    host, _, port = entry.partition(":")
    if int(port or _PORTS[target.scheme]) != target.port:
        return False
    return target.host.endswith(host[1:]) if host.startswith("*.") else target.host == host


def _resolve(target: Target) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        cause = f"the host {shown(target.host)} is not known: {error}"
        raise StoreError(cause, "check its name, or try again later", Kind.LATER) from None
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))
