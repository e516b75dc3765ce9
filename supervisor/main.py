"""The composition root: arguments, configuration, GPUs, journal; then one daemon until it is told to stop.

Exit codes: 0 stopped as asked, 70 a bug, 71 one image of the daemon could not replace another (start it again), 73 the
state directory or the journal cannot be used, 75 another daemon has it, 76 cannot listen, 78 the config is wrong.
"""

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Coroutine, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from supervisor.config.keys import KeysError
from supervisor.config.known_models import load_known, parse_known
from supervisor.config.load import Loaded
from supervisor.config.paths import defaults_from_environ
from supervisor.config.places import Places, plan_places
from supervisor.config.problems import ConfigError
from supervisor.daemon import Daemon, DaemonOrder, ensure_log_dir
from supervisor.http.given_sockets import GivenSockets
from supervisor.http.tls import Tls, TlsError
from supervisor.http.unix_socket import ListenError, SocketFile
from supervisor.runtime import handover, systemd
from supervisor.runtime.config_store import ConfigStore
from supervisor.runtime.gpus import GpuSource
from supervisor.runtime.gpus_nvml import NvmlReader
from supervisor.runtime.gpus_simulated import (
    SimulatedGpus,
    SimulationRefusedError,
    SimulationTextError,
    parse_simulated,
    require_no_real_gpu,
)
from supervisor.runtime.handover import Handover, Received
from supervisor.runtime.journal.faults import JournalError, JournalLockedError, JournalTooNewError
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import Durability, Restored
from supervisor.runtime.json_log import JsonLog
from supervisor.runtime.key_ring import KeyRing
from supervisor.runtime.side_thread import open_pool
from supervisor.runtime.signals import hold_signals
from supervisor.runtime.systemd import Notifier, watchdog_interval_s
from supervisor.runtime.upgrade import own_command

HTTP_SOCKET = "orchctl-http"
CONTROL_SOCKET = "orchctl-control"
"""The names of the sockets in a unit of systemd."""
EXIT_NOT_REPLACED = 71
"""The engines go on; the service manager shall start a daemon that takes them up, whatever it was that failed."""
EXIT_CANNOT_CREATE = 73
EXIT_TEMPORARY = 75
EXIT_CANNOT_LISTEN = 76
EXIT_CONFIG = 78


class Refusal(Exception):  # noqa: N818  (it is an answer, not an error of the program)
    """The daemon does not start: the exit code, and sentences for the operator."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def main(argv: Sequence[str] | None = None) -> None:
    """Run the daemon and exit with its code."""
    arguments = _parse(argv)
    simulated = arguments.simulate_gpus
    log = JsonLog({} if simulated is None else {"simulated": simulated})
    received = handover.take_over(os.environ)
    if received is not None:
        _ask_for_patience()
    try:
        loaded, is_file = _load(arguments.config, received)
        if arguments.check:
            _check(loaded)
            return
        given = _given_sockets(received)
        hold_signals()
        log.start()
        outcome: int | Handover = _run(_serve(loaded, simulated, given, log, is_file=is_file))
    except Refusal as refusal:
        sys.stderr.write(f"{refusal}\n")
        outcome = refusal.exit_code if received is None else EXIT_NOT_REPLACED
    finally:
        is_written = log.stop()
    exit_code = outcome if isinstance(outcome, int) else _become_next(outcome)
    if not is_written:  # the interpreter would wait for the thread that holds standard error, and then abort
        os._exit(exit_code)
    sys.exit(exit_code)


def _become_next(given: Handover) -> int:
    """Replace this process by the next image of the daemon; gives an exit code only where that cannot be."""
    _ask_for_patience()
    try:
        given.replace_process(own_command(), os.environ)
    except OSError as error:
        sys.stderr.write(f"the next daemon cannot be started: {error.strerror}\n")
    return EXIT_NOT_REPLACED


def _ask_for_patience() -> None:
    """Between two images nobody tells the service manager that all is well: let its watchdog wait longer."""
    notifier = Notifier(os.environ)
    notifier.send(*systemd.extended())
    notifier.close()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="orchctl serve", description="Run the orchctl daemon.")
    parser.add_argument("--config", type=Path, required=True, help="the YAML file of pools")
    parser.add_argument("--simulate-gpus", metavar="1x8GiB", help="try orchctl on a machine without an NVIDIA GPU")
    parser.add_argument("--check", action="store_true", help="load the configuration and start nothing")
    return parser.parse_args(argv)


def _check(loaded: Loaded) -> None:
    """See whether a daemon could begin with this configuration, beside one that runs. Raises Refusal."""
    places = _plan(loaded)
    _read_keys(loaded, places)
    _read_certificate(loaded)


def _given_sockets(received: Received | None) -> GivenSockets:
    """What the image before this one left, or systemd. The environment forgets them."""
    if received is not None:
        file = msgspec.json.decode(received.control_file, type=SocketFile)
        return GivenSockets(received.http, received.control, file)
    passed = {
        name: handover.adopt_listener(fd)
        for name, fd in systemd.passed_sockets(os.environ).items()
        if name in {HTTP_SOCKET, CONTROL_SOCKET}
    }
    if None in passed.values():
        raise Refusal(EXIT_CANNOT_LISTEN, "a socket of the service manager is not a listening stream socket")
    return GivenSockets(passed.get(HTTP_SOCKET), passed.get(CONTROL_SOCKET), is_from_manager=bool(passed))


def _load(path: Path, received: Received | None) -> tuple[Loaded, bool]:
    """The configuration of the file, and True; where that is broken, the one that the image before this one left."""
    is_file = True
    try:
        loaded = load_known(path, os.environ, os.geteuid())
    except ConfigError as error:
        if received is None or received.config is None:
            raise Refusal(EXIT_CONFIG, str(error)) from None
        sys.stderr.write(f"{error}\n")
        loaded, is_file = _parse_kept(received.config, path), False
    for warning in loaded.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return loaded, is_file


def _parse_kept(text: str, path: Path) -> Loaded:
    try:
        return parse_known(text, path.absolute(), os.environ, os.geteuid())
    except ConfigError as error:
        raise Refusal(EXIT_CONFIG, str(error)) from None


class FileReader:
    """The operator's file as it is now, or a text in its place; the one way to a config while the daemon runs."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def read(self) -> Loaded:
        """Blocks. Raises ConfigError."""
        return load_known(self._source, os.environ, os.geteuid())

    def parse(self, text: str) -> Loaded:
        """Blocks. Raises ConfigError."""
        return parse_known(text, self._source, os.environ, os.geteuid())


def _run(work: Coroutine[Any, Any, int | Handover]) -> int | Handover:
    """On uvloop where it is installed, else on asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415  (optional on other interpreters than CPython)
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def _plan(loaded: Loaded) -> Places:
    return plan_places(loaded.config, defaults_from_environ(os.environ, os.geteuid()), os.environ)


async def _serve(
    loaded: Loaded, simulated: str | None, given: GivenSockets, log: JsonLog, *, is_file: bool
) -> int | Handover:
    asyncio.get_running_loop().set_default_executor(open_pool())
    places = _plan(loaded)
    keys, tls = _read_keys(loaded, places), _read_certificate(loaded)
    gpus = await _choose_gpus(simulated)
    journal, restored = await asyncio.to_thread(_open_journal, loaded, places)
    watchdog_s = watchdog_interval_s(os.environ)
    reader = FileReader(loaded.source)
    store = ConfigStore(places.state_dir)
    brought_back = await asyncio.to_thread(_bring_back, loaded, reader, store) if is_file else None
    order = DaemonOrder(
        brought_back or loaded,
        reader,
        places,
        gpus,
        simulated,
        version("orchctl"),
        watchdog_s,
        keys,
        tls,
        given,
        log,
        store,
        is_file and brought_back is None,
    )
    daemon = Daemon(order, journal, restored, Notifier(os.environ))
    _spare_the_collector()
    try:
        exit_code = await daemon.run()
    except ListenError as error:
        raise Refusal(EXIT_CANNOT_LISTEN, str(error)) from error
    return daemon.handover or exit_code


def _spare_the_collector() -> None:
    """Let it begin, and leave out what is there by now and stays: a look through that is a pause of 25 ms for all."""
    gc.freeze()
    gc.enable()


def _bring_back(loaded: Loaded, reader: FileReader, store: ConfigStore) -> Loaded | None:
    """What an operator reverted to, where the file still says what was refused.

    The two agree in every key that needs a restart, so what was read of the file so far holds for both.
    """
    text = store.brought_back(loaded.text)
    if text is None:
        return None
    try:
        return reader.parse(text)
    except ConfigError as error:
        sys.stderr.write(
            f"the config file is in force again, for what was brought back cannot be used any more: {error}\n"
        )
        return None


def _read_keys(loaded: Loaded, places: Places) -> KeyRing:
    """The API keys. Whoever can be reached from other machines must have one."""
    keys = KeyRing(places.keys_file, os.environ)
    try:
        keys.take_up()
    except KeysError as error:
        raise Refusal(EXIT_CONFIG, f"the API keys cannot be used: {error}") from None
    listen = loaded.config.listen
    if not keys.needs_key and not listen.is_loopback:
        make = f"orchctl keys create --config {loaded.source} --tenant default --scope data"
        text = f"other machines reach {listen.host}, and there is no API key in {places.keys_file}; run: {make}"
        raise Refusal(EXIT_CONFIG, text)
    return keys


def _read_certificate(loaded: Loaded) -> Tls | None:
    files = loaded.config.listen.tls
    if files is None:
        return None
    tls = Tls(files.cert_file, files.key_file, os.environ)
    try:
        tls.take_up()
    except TlsError as error:
        raise Refusal(EXIT_CONFIG, f"TLS cannot be used: {error}") from None
    return tls


async def _choose_gpus(simulated: str | None) -> GpuSource:
    """The real GPUs; simulated ones only where that is asked for, and never beside real ones."""
    if simulated is None:
        return NvmlReader()
    reader = NvmlReader()
    try:
        devices = parse_simulated(simulated)
        require_no_real_gpu(await reader.inventory())
    except (SimulationTextError, SimulationRefusedError) as error:
        raise Refusal(EXIT_CONFIG, f"--simulate-gpus: {error}") from None
    finally:
        await reader.close()
    return SimulatedGpus(devices)


def _open_journal(loaded: Loaded, places: Places) -> tuple[Journal, Restored]:
    try:
        opened = Journal.open(places.state_dir, Durability(loaded.config.durability))
        ensure_log_dir(places.log_dir)
    except JournalLockedError as error:
        raise Refusal(EXIT_TEMPORARY, str(error)) from None
    except JournalTooNewError as error:
        raise Refusal(EXIT_CONFIG, str(error)) from None
    except (JournalError, OSError) as error:
        raise Refusal(EXIT_CANNOT_CREATE, str(error)) from None
    return opened
