"""TLS on the TCP listener: what is spoken, what is refused, and a certificate that is renewed under way."""

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from supervisor.http.limits import Limits
from supervisor.http.server import HttpServer
from supervisor.http.tls import Tls, TlsError
from tests.support.certificates import make_certificate
from tests.support.memory_service import MemoryService, submit_body
from tests.support.rawhttp import RawClient, request

Files = tuple[Path, Path]
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl program makes the certificates")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Files]:
    folder = tmp_path_factory.mktemp("certificates")
    return make_certificate(folder, "first"), make_certificate(folder, "second")


@pytest.fixture
def files(made: tuple[Files, Files], tmp_path: Path) -> Files:
    """The first certificate, at the path that the edge is told."""
    install(made[0], (tmp_path / "c.pem", tmp_path / "k.pem"))
    return tmp_path / "c.pem", tmp_path / "k.pem"


def install(source: Files, target: Files) -> None:
    for before, after in zip(source, target, strict=True):
        shutil.copy(before, after.with_suffix(".new"))
        after.with_suffix(".new").replace(after)


Serve = Callable[[Tls], Awaitable[HttpServer]]


@pytest.fixture
async def serve(service: MemoryService) -> AsyncIterator[Serve]:
    started: list[HttpServer] = []

    async def start(tls: Tls) -> HttpServer:
        server = HttpServer(service, tls=tls, limits=Limits(header_s=0.3, linger_s=0.1))
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.close()


@pytest.fixture
def tls(files: Files) -> Tls:
    tls = Tls(*files, {})
    tls.take_up()
    return tls


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


async def connect(port: int, context: ssl.SSLContext) -> RawClient:
    return RawClient(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost"))


def subject(client: RawClient) -> str:
    peer = client.writer.get_extra_info("peercert")
    return str(peer["subject"][0][0][1])


async def test_requests_and_streams_go_over_tls(serve: Serve, tls: Tls, service: MemoryService) -> None:
    server = await serve(tls)
    async with await connect(server.port, trusting(tls.cert_file)) as client:
        accepted = await client.ask("POST", "/v1/tasks", submit_body())
        held = service.task_of(accepted.json["task_id"])
        client.send(request("GET", f"/v1/tasks/{accepted.json['task_id']}/stream"))
        await client.head()
        held.start()
        held.emit("a", "b")
        held.finish()
        body = b"".join([chunk async for chunk in client.chunks()])

    assert accepted.status == 202
    assert body.count(b"event: token") == 2
    assert body.count(b"event: end") == 1


async def test_what_is_refused_is_refused_over_tls_too(serve: Serve, tls: Tls) -> None:
    server = await serve(tls)
    async with await connect(server.port, trusting(tls.cert_file)) as client:
        client.send(b"\x00\xff nonsense\r\n\r\n")
        answer = await client.answer()
    async with await connect(server.port, trusting(tls.cert_file)) as client:
        client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        slow = await client.answer()

    assert (answer.status, slow.status) == (405, 408)


async def test_plain_http_on_the_tls_port_is_closed_and_hurts_nobody(
    serve: Serve, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve(tls)
    async with await RawClient.tcp(server.port) as plain:
        plain.send(request("GET", "/healthz"))
        rest = await plain.closed()
    async with await connect(server.port, trusting(tls.cert_file)) as client:
        answer = await client.ask("GET", "/healthz")

    assert b"HTTP/1.1" not in rest
    assert answer.status == 200
    assert caplog.records == []


async def test_a_client_that_does_not_shake_hands_is_closed(serve: Serve, tls: Tls) -> None:
    server = await serve(tls)
    async with await RawClient.tcp(server.port) as silent:
        assert await silent.closed() == b""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_before_1_2_is_not_spoken(serve: Serve, tls: Tls) -> None:
    server = await serve(tls)
    old = trusting(tls.cert_file)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(server.port, old)


async def test_a_renewed_certificate_is_for_new_connections_and_cuts_none(
    serve: Serve, tls: Tls, files: Files, made: tuple[Files, Files]
) -> None:
    (first, _), (second, _) = made
    server = await serve(tls)
    async with await connect(server.port, trusting(first)) as before:
        install(made[1], files)
        tls.take_up()
        async with await connect(server.port, trusting(second)) as after:
            subjects = [subject(before), subject(after)]
            statuses = [(await each.ask("GET", "/healthz")).status for each in (before, after)]

    assert subjects == ["first", "second"]
    assert statuses == [200, 200]


async def test_a_bad_new_pair_leaves_the_old_one_in_force(
    serve: Serve, tls: Tls, files: Files, made: tuple[Files, Files]
) -> None:
    (first, _), (second, _) = made
    server = await serve(tls)
    shutil.copy(second, files[0])  # the new certificate beside the old key

    with pytest.raises(TlsError, match="are not a certificate and its key: key values mismatch"):
        tls.take_up()

    async with await connect(server.port, trusting(first)) as client:
        assert (await client.ask("GET", "/healthz")).status == 200


def encrypt(files: Files) -> None:
    key = files[1]
    os.system(f"openssl ec -aes256 -passout pass:secret -in {key} -out {key}.enc 2>/dev/null")
    key.with_suffix(".pem.enc").replace(key)
    key.chmod(0o600)


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BAD: dict[str, tuple[Callable[[Files], object], str]] = {
    "no certificate": (lambda files: files[0].unlink(), "c.pem cannot be read: No such file"),
    "no key": (lambda files: files[1].unlink(), "k.pem cannot be read: No such file"),
    "a key for all": (lambda files: files[1].chmod(0o644), r"others may read .*k.pem .* run: chmod 600"),
    "a key for the group": (lambda files: files[1].chmod(0o640), "others may read"),
    "a key that is a directory": (lambda files: as_directory(files[1]), "k.pem is not a regular file"),
    "an empty certificate": (lambda files: files[0].write_text(""), "are not a certificate and its key"),
    "an endless key": (lambda files: os.truncate(files[1], 2**21), "k.pem is larger than 1048576 bytes"),
    "an empty key": (lambda files: files[1].write_text(""), "are not a certificate and its key"),
    "swapped": (lambda files: shutil.copy(files[1], files[0]), "are not a certificate and its key"),
    "a passphrase": (encrypt, "are not a certificate and its key"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_certificate_or_key_is_a_sentence(files: Files, name: str) -> None:
    spoil, words = BAD[name]
    spoil(files)

    with pytest.raises(TlsError, match=words):
        Tls(*files, {}).take_up()


@pytest.fixture
def linked(files: Files, tmp_path: Path) -> Files:
    """As tools that renew certificates have it: links in one folder, files in another."""
    live = tmp_path / "live"
    live.mkdir()
    for path in files:
        (live / path.name).symlink_to(path)
    return live / "c.pem", live / "k.pem"


def test_links_to_a_certificate_are_followed_and_the_mode_is_that_of_the_file(linked: Files, files: Files) -> None:
    Tls(*linked, {}).take_up()

    files[1].chmod(0o644)
    with pytest.raises(TlsError, match="others may read"):
        Tls(*linked, {}).take_up()
