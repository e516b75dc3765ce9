"""API keys as they lie on disk: who each one is, what it may do and for how long. Only digests; never a key itself.

Decides what a key file may say and how keys are made, replaced and revoked. It authenticates nobody. Times are UTC by
the wall clock, because an expiry is a date that people agree on.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from supervisor.config.secret_files import SecretFileError, Trust, editing, read_secret, replace_secret
from supervisor.wire.codes import Priority, Scope

FILE_NAME = "keys.json"
VERSION = 1
KEYS_MAX = 4096
FILE_BYTES_MAX = 4 * 1024 * 1024
PREFIX = "ok_"
SECRET_BYTES = 32
SECRET_CHARS = len(PREFIX) + 43
"""256 bits in URL-safe base64 without padding are 43 characters."""
NOTE_CHARS_MAX = 200
TENANT_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}\Z"

Tenant = Annotated[str, Meta(pattern=TENANT_PATTERN)]
Note = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{0,200}\Z")]
Moment = Annotated[datetime, Meta(tz=True)]


class KeysError(Exception):
    """A key file cannot be used, or a change to it makes no sense. One sentence without a full stop."""


class ApiKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key. `id` is public and names it in logs; `sha256` is the digest of the key, in hex."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    tenant: Tenant
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=8)]
    created: Moment
    priorities: Annotated[tuple[Priority, ...], Meta(min_length=1, max_length=8)] = tuple(Priority)
    expires: Moment | None = None
    revoked: Moment | None = None
    note: Note = ""

    def is_alive(self, now: datetime) -> bool:
        """Whether it opens anything."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class KeyFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file, oldest key first."""

    version: int = VERSION
    keys: Annotated[tuple[ApiKey, ...], Meta(max_length=KEYS_MAX)] = ()

    def key(self, key_id: str) -> ApiKey | None:
        """The key of that id."""
        return next((key for key in self.keys if key.id == key_id), None)


class Grant(Struct, frozen=True, kw_only=True):
    """What a new key is to be allowed. `lifetime` None lasts until it is revoked."""

    tenant: str
    scopes: tuple[Scope, ...]
    priorities: tuple[Priority, ...] = tuple(Priority)
    lifetime: timedelta | None = None
    note: str = ""


class Issued(Struct, frozen=True):
    """A new key: its record, and the key itself, which exists nowhere else."""

    key: ApiKey
    secret: str


def find_key_file(configured: Path | None, state_dir: Path, environ: Mapping[str, str]) -> Path:
    """1. `keys.json` among systemd's credentials; 2. what the config names; 3. `keys.json` in the state folder."""
    credentials = credentials_dir(environ)
    if credentials is not None and (credentials / FILE_NAME).exists():
        return credentials / FILE_NAME
    return configured or state_dir / FILE_NAME


def credentials_dir(environ: Mapping[str, str]) -> Path | None:
    """The folder of systemd's credentials (systemd.exec(5)), which is an absolute path."""
    given = environ.get("CREDENTIALS_DIRECTORY", "")
    return Path(given) if given.startswith("/") else None


def digest_of(secret: str) -> bytes:
    """SHA-256: a key has 256 random bits, so a slow hash would protect nothing."""
    return hashlib.sha256(secret.encode()).digest()


def read_keys(path: Path, environ: Mapping[str, str]) -> KeyFile:
    """The keys of a file. Raises KeysError, and FileNotFoundError where there is no file."""
    try:
        raw = read_secret(path, Trust(FILE_BYTES_MAX, credentials_dir=credentials_dir(environ)))
    except SecretFileError as error:
        raise KeysError(str(error)) from error
    return parse_keys(raw, path)


def parse_keys(raw: bytes, path: Path) -> KeyFile:
    """The keys in the text of a file; `path` names it in the sentence of a KeysError. No text of it is repeated."""
    try:
        version = msgspec.json.decode(raw, type=_Versioned).version
        if version != VERSION:
            raise KeysError(f"{path} has version {version}, and this orchctl knows version {VERSION}")
        file = msgspec.json.decode(raw, type=KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeysError(f"{path} is not a key file: {_harmless(error)}") from error
    for what, values in (("id", [key.id for key in file.keys]), ("digest", [key.sha256 for key in file.keys])):
        if len(set(values)) != len(values):
            raise KeysError(f"{path} has the same {what} in two keys")
    return file


class _Versioned(Struct):
    version: int


def _harmless(error: Exception) -> str:
    """What is wrong and where, without a word of the file: somebody may have pasted a key into it."""
    text = str(error)
    if text.startswith(("Expected", "Object missing", "JSON is malformed", "Input data was truncated")):
        return text
    _, at, where = text.partition(" - at ")
    return "an unknown or wrong word" + (at + where if at else "")


@contextlib.contextmanager
def changing_keys(path: Path, environ: Mapping[str, str]) -> Iterator["KeyChanges"]:
    """The keys of a file, to be changed by one editor at a time; written back whole at the end. Raises KeysError."""
    try:
        with editing(path):
            try:
                before = read_keys(path, environ)
            except FileNotFoundError:
                before = KeyFile()
            changes = KeyChanges(before)
            yield changes
            if changes.file != before:
                replace_secret(path, msgspec.json.format(msgspec.json.encode(changes.file), indent=2) + b"\n")
    except SecretFileError as error:
        raise KeysError(str(error)) from error


class KeyChanges:
    """Changes to a set of keys. Pure but for the randomness of a new key; `now` is UTC."""

    def __init__(self, file: KeyFile) -> None:
        self.file = file

    def create(self, grant: Grant, now: datetime) -> Issued:
        """A new key. Raises KeysError where there is no room."""
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        key = ApiKey(
            id=f"k{secrets.token_hex(5)}",
            sha256=digest_of(secret).hex(),
            tenant=grant.tenant,
            scopes=tuple(scope for scope in Scope if scope in grant.scopes),
            priorities=tuple(each for each in Priority if each in grant.priorities),
            created=now,
            expires=now + grant.lifetime if grant.lifetime is not None else None,
            note=grant.note,
        )
        self._keep((*self._with_room(now), _checked(key)))
        return Issued(key, secret)

    def rotate(self, key_id: str, now: datetime, *, grace: timedelta, lifetime: timedelta | None = None) -> Issued:
        """A successor with the same rights, and a grace for the old key. Raises KeysError.

        Without `lifetime` the successor lives as long as the old key was made to. The grace never prolongs a life.
        """
        old = self._alive(key_id, now)
        if lifetime is None and old.expires is not None:
            lifetime = old.expires - old.created
        end = now + grace if old.expires is None else min(now + grace, old.expires)
        self._replace(msgspec.structs.replace(old, expires=end))
        grant = Grant(tenant=old.tenant, scopes=old.scopes, priorities=old.priorities, lifetime=lifetime, note=old.note)
        return self.create(grant, now)

    def revoke(self, key_id: str, now: datetime) -> ApiKey:
        """From now on the key opens nothing; one that is revoked already stays as it is. Raises KeysError."""
        old = self._known(key_id)
        revoked = old if old.revoked is not None else msgspec.structs.replace(old, revoked=now)
        self._replace(revoked)
        return revoked

    def _known(self, key_id: str) -> ApiKey:
        key = self.file.key(key_id)
        if key is None:
            raise KeysError("there is no key of that id")
        return key

    def _alive(self, key_id: str, now: datetime) -> ApiKey:
        key = self._known(key_id)
        if not key.is_alive(now):
            raise KeysError(f"the key {key_id} is {'expired' if key.revoked is None else 'revoked'} already")
        return key

    def _with_room(self, now: datetime) -> tuple[ApiKey, ...]:
        """The present keys, without the oldest dead one where the file is full."""
        if len(self.file.keys) < KEYS_MAX:
            return self.file.keys
        dead = next((key for key in self.file.keys if not key.is_alive(now)), None)
        if dead is None:
            raise KeysError(f"there are {KEYS_MAX} keys already; revoke one first")
        return tuple(key for key in self.file.keys if key is not dead)

    def _replace(self, new: ApiKey) -> None:
        self._keep(tuple(new if key.id == new.id else key for key in self.file.keys))

    def _keep(self, keys: tuple[ApiKey, ...]) -> None:
        self.file = KeyFile(keys=keys)


def _checked(key: ApiKey) -> ApiKey:
    """The key, within the bounds of the file. Raises KeysError with the field that is wrong."""
    try:
        return msgspec.json.decode(msgspec.json.encode(key), type=ApiKey)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise KeysError(f"{where.rstrip('`') or 'the key'}: {what[:1].lower()}{what[1:]}") from error
