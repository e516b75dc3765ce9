"""The composition root: arguments, configuration, GPUs, journal; then one daemon until it is told to stop.

Exit codes: 0 stopped as asked, 70 a bug, 73 the state directory or the journal cannot be used, 75 another daemon has
it, 76 cannot listen, 78 the configuration is wrong.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from supervisor.config.keys import KeysError
from supervisor.config.load import Loaded, load
from supervisor.config.paths import defaults_from_environ
from supervisor.config.places import Places, plan_places
from supervisor.config.problems import ConfigError
from supervisor.daemon import Daemon, DaemonOrder, ensure_log_dir
from supervisor.http.tls import Tls, TlsError
from supervisor.http.unix_socket import ListenError
from supervisor.runtime.gpus import GpuSource
from supervisor.runtime.gpus_nvml import NvmlReader
from supervisor.runtime.gpus_simulated import (
    SimulatedGpus,
    SimulationRefusedError,
    SimulationTextError,
    parse_simulated,
    require_no_real_gpu,
)
from supervisor.runtime.journal.faults import JournalError, JournalLockedError, JournalTooNewError
from supervisor.runtime.journal.journal import Journal
from supervisor.runtime.journal.records import Durability, Restored
from supervisor.runtime.json_log import JsonLog
from supervisor.runtime.key_ring import KeyRing
from supervisor.runtime.systemd import Notifier, watchdog_interval_s

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
    try:
        loaded = _load(arguments.config)
        log.start()
        exit_code = _run(_serve(loaded, simulated))
    except Refusal as refusal:
        sys.stderr.write(f"{refusal}\n")
        exit_code = refusal.exit_code
    finally:
        log.stop()
    sys.exit(exit_code)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="orchctl serve", description="Run the orchctl daemon.")
    parser.add_argument("--config", type=Path, required=True, help="the YAML file of pools")
    parser.add_argument("--simulate-gpus", metavar="1x8GiB", help="try orchctl on a machine without an NVIDIA GPU")
    return parser.parse_args(argv)


def _load(path: Path) -> Loaded:
    try:
        loaded = load(path)
    except ConfigError as error:
        raise Refusal(EXIT_CONFIG, str(error)) from None
    for warning in loaded.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return loaded


def _run(work: Coroutine[Any, Any, int]) -> int:
    """On uvloop where it is installed, else on asyncio's own loop."""
    try:
        import uvloop  # noqa: PLC0415  (optional on other interpreters than CPython)
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def _serve(loaded: Loaded, simulated: str | None) -> int:
    places = plan_places(loaded.config, defaults_from_environ(os.environ, os.geteuid()), os.environ)
    keys, tls = _read_keys(loaded, places), _read_certificate(loaded)
    gpus = await _choose_gpus(simulated)
    journal, restored = await asyncio.to_thread(_open_journal, loaded, places)
    watchdog_s = watchdog_interval_s(os.environ)
    order = DaemonOrder(loaded, places, gpus, simulated, version("orchctl"), watchdog_s, keys, tls)
    daemon = Daemon(order, journal, restored, Notifier(os.environ))
    try:
        return await daemon.run()
    except ListenError as error:
        raise Refusal(EXIT_CANNOT_LISTEN, str(error)) from error


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
