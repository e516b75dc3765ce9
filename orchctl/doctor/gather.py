"""Puts the facts about this host together: config, daemon, service, and what the others look at. Judges nothing."""

import grp
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from orchctl import install_steps, unit_files
from orchctl.client import Client
from orchctl.doctor import driver, host
from orchctl.doctor.facts import DaemonFacts, EngineFact, HostFacts, UnitFacts
from orchctl.exits import VerbError
from orchctl.install_plan import WANTS, plan_install
from supervisor.config.keys import find_key_file
from supervisor.config.paths import Defaults, defaults_from_environ
from supervisor.wire.pools import HostStatus

if TYPE_CHECKING:
    from supervisor.config.model import Config

VERSION_S = 10.0
"""The longest wait for an engine to say its version."""
SERVICE_DEFAULTS = Defaults(state_dir=Path("/var/lib/orchctl"), socket=Path("/run/orchctl/control.sock"))
_EXEC = re.compile(r"(?m)^ExecStart=(\S+) serve --config (\S+)")
_USER = re.compile(r"(?m)^User=(\S+)")


def gather(config_path: Path | None, client: Client) -> HostFacts:
    """Everything. Raises nothing: what cannot be seen is None."""
    units, service_config, user = _units(config_path)
    path = config_path or service_config
    status, trouble = _status(client)
    config, problems = _config(path)
    daemon = None if status is None else _daemon(status)
    pid = None if daemon is None else daemon.pid
    defaults = SERVICE_DEFAULTS if units.is_installed else defaults_from_environ(os.environ, os.geteuid())
    state_dir = (config.state_dir if config else None) or defaults.state_dir
    log_dir = (config.log_dir if config else None) or state_dir / "logs"
    our_pids = frozenset(pool.pid for pool in (status.pools if status else ()) if pool.pid is not None)
    version, controllers = host.cgroup_facts(pid)
    uid, gids = _identity(user, pid)
    keys = (
        Path(status.keys_file)
        if status is not None and status.keys_file
        else find_key_file(config.auth.keys_file if config else None, state_dir, {})
    )
    listen = None if config is None else config.listen
    return HostFacts(
        config=str(path),
        config_problems=problems,
        daemon=daemon,
        daemon_trouble=trouble,
        driver=driver.gather_driver(our_pids),
        ports=() if listen is None or listen.port == 0 else (host.port_fact(listen.host, listen.port),),
        disks=host.disk_facts((state_dir, log_dir)),
        state_dir=host.file_fact(state_dir),
        keys_file=host.file_fact(keys),
        engines=() if config is None else _engines(config),
        limits=host.limit_fact(pid),
        shm_bytes=host.shm_bytes(),
        clock=host.clock_fact(state_dir),
        units=units,
        user=user,
        service_uid=uid,
        service_gids=gids,
        cgroup_version=version,
        cgroup_controllers=controllers,
    )


def _units(config_path: Path | None) -> tuple[UnitFacts, Path, str]:
    """The service, the config that it names and the user that it runs as."""
    service = Path(unit_files.UNIT_DIR / unit_files.SERVICE)
    has_systemd = Path("/run/systemd/system").is_dir()
    try:
        text = service.read_text()
    except OSError:
        default = config_path or Path(unit_files.CONFIG)
        return UnitFacts(has_systemd=has_systemd, is_installed=False, is_enabled=False), default, unit_files.USER
    found, user = _EXEC.search(text), _USER.search(text)
    program, config = (PurePosixPath(each) for each in (found.groups() if found else ("/nowhere", unit_files.CONFIG)))
    name = user[1] if user else "root"
    wanted = unit_files.draw_files(_agreed(unit_files.Setting(program=program, config=config, user=name)))
    try:
        facts = install_steps.gather(wanted, name, config, None)
    except VerbError:
        return UnitFacts(has_systemd=has_systemd, is_installed=True, is_enabled=True), Path(config), name
    plan = plan_install(wanted, name, config, facts)
    units = UnitFacts(
        has_systemd=has_systemd,
        is_installed=True,
        is_enabled=frozenset(WANTS[:1]) <= facts.enabled,
        differing=tuple(step.path for step in plan.files),
    )
    return units, Path(config), name


def _agreed(setting: unit_files.Setting) -> unit_files.Setting:
    from orchctl.commands.install import agreed  # noqa: PLC0415  (pydantic)

    try:
        return agreed(setting, Path(setting.config))
    except VerbError:
        return setting


def _status(client: Client) -> tuple[HostStatus | None, str | None]:
    try:
        return client.status(), None
    except VerbError as error:
        return None, error.cause


def _daemon(status: HostStatus) -> DaemonFacts:
    return DaemonFacts(pid=status.pid, version=status.version, simulated=status.simulated, causes=tuple(status.causes))


def _config(path: Path) -> "tuple[Config | None, tuple[str, ...] | None]":
    """The config, or what is wrong with it; None and None where there is none."""
    from supervisor.config.load import load  # noqa: PLC0415  (pydantic)
    from supervisor.config.problems import ConfigError  # noqa: PLC0415  (as above)

    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, (f"{path} cannot be seen by this user ({error.strerror})",)
    try:
        return load(path).config, ()
    except ConfigError as error:
        return None, tuple(str(error).splitlines())


def _engines(config: "Config") -> tuple[EngineFact, ...]:
    """Each program once, with the pools that start it."""
    pools: dict[str, list[str]] = {}
    for pool in config.pools:
        command = pool.launch.command
        program = command[0] if command else config.binary(pool)
        if program is not None and program != "{python}":
            pools.setdefault(str(program), []).append(pool.id)
    return tuple(_engine(program, tuple(ids)) for program, ids in pools.items())


def _engine(program: str, pools: tuple[str, ...]) -> EngineFact:
    found = shutil.which(program)
    if found is None:
        is_there = host.is_seen(Path(program))
        return EngineFact(program=program, pools=pools, trouble="may not be executed" if is_there else "is not there")
    try:
        said = subprocess.run(
            [found, "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=VERSION_S,
            stdin=subprocess.DEVNULL,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return EngineFact(program=program, pools=pools, trouble=f"cannot be started ({type(error).__name__})")
    lines = [line.strip() for line in (said.stdout + said.stderr).splitlines() if "version" in line.lower()]
    return EngineFact(program=program, pools=pools, version=lines[0][:80] if lines else None)


def _identity(user: str, pid: int | None) -> tuple[int | None, tuple[int, ...]]:
    """Whom the daemon runs as, or would."""
    try:
        known = pwd.getpwuid(Path(f"/proc/{pid}").stat().st_uid) if pid is not None else pwd.getpwnam(user)
    except (KeyError, OSError):
        return None, ()
    groups = [each.gr_gid for each in grp.getgrall() if known.pw_name in each.gr_mem]
    return known.pw_uid, (known.pw_gid, *groups)
