"""TLS of the TCP listener: a context from two files, and a new one for new connections when the files change.

Decides which certificates and versions of TLS are good enough. Connections that stand keep the context they began with.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path

from supervisor.config.keys import credentials_dir
from supervisor.config.secret_files import SecretFileError, Trust, open_secret

PEM_BYTES_MAX = 1024 * 1024


class TlsError(Exception):
    """The certificate or its key cannot be used. One sentence without a full stop."""


class Tls:
    """`take_up()` reads both files; `context` is what the listener is made with, once they were read."""

    def __init__(self, cert_file: Path, key_file: Path, environ: Mapping[str, str]) -> None:
        self.cert_file = cert_file
        self.key_file = key_file
        # Certificates are commonly links that a renewal turns; what counts is the file at their end.
        self._trust = Trust(
            PEM_BYTES_MAX,
            is_link_followed=True,
            is_folder_checked=False,
            credentials_dir=credentials_dir(environ),
        )
        self._current: ssl.SSLContext | None = None
        self._first: ssl.SSLContext | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """For the listener; every handshake takes the newest context out of it."""
        assert self._first is not None, "take_up comes first"
        return self._first

    def take_up(self) -> None:
        """Read both files. Raises TlsError, and what was in force stays in force."""
        fresh = self._load()
        if self._first is None:
            self._first = fresh
            fresh.sni_callback = self._on_hello
        self._current = fresh

    def _on_hello(self, connection: ssl.SSLObject, name: str | None, listening: ssl.SSLContext) -> None:  # noqa: ARG002
        """Called in every handshake, whether the client names a host or not."""
        if self._current is not None:
            connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            with open_secret(self.key_file, self._trust) as key:
                # The path of the descriptor: what is loaded is what was checked. An encrypted key is not asked about.
                context.load_cert_chain(self.cert_file, f"/proc/self/fd/{key}", password=lambda: b"")
        except SecretFileError as error:
            raise TlsError(str(error)) from error
        except ssl.SSLError as error:
            detail = (error.reason or "not PEM").lower().replace("_", " ")
            raise TlsError(
                f"{self.cert_file} and {self.key_file} are not a certificate and its key: {detail}"
            ) from error
        except OSError as error:
            raise TlsError(f"{error.filename or self.cert_file} cannot be read: {error.strerror}") from error
        return context
