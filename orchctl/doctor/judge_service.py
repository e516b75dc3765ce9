"""What the facts about orchctl's own things mean: config, daemon, units, user, files, engines. Pure."""

from orchctl.doctor.facts import FileFact, HostFacts
from orchctl.doctor.findings import Finding, failure, ok, warning

OTHERS_ANY = 0o077
OTHERS_WRITE = 0o022


def judge_config(facts: HostFacts) -> list[Finding]:
    """It is there and can be used."""
    if facts.config_problems is None:
        return [
            warning("config", f"there is no config at {facts.config}", "name it with `--config FILE`, or write one")
        ]
    if facts.config_problems:
        text = f"{facts.config} cannot be used: {facts.config_problems[0]}"
        return [failure("config", text, f"orchctl validate {facts.config}")]
    return [ok("config", f"{facts.config} is valid")]


def judge_daemon(facts: HostFacts, version: str) -> list[Finding]:
    """It answers, and is of this version."""
    daemon = facts.daemon
    if daemon is None:
        text = f"no daemon was asked: {facts.daemon_trouble}"
        return [warning("daemon", text, "systemctl start orchctl, or `orchctl serve --config FILE`")]
    found = [failure("daemon", cause, "mend the file, then systemctl reload orchctl") for cause in daemon.causes]
    if daemon.version != version:
        text = f"the daemon is version {daemon.version}, this is {version}"
        found.append(warning("daemon", text, "systemctl restart orchctl"))
    return found or [ok("daemon", f"version {daemon.version} answers (pid {daemon.pid})")]


def judge_units(facts: HostFacts) -> list[Finding]:
    """The service is installed, enabled, and what this version would install."""
    units = facts.units
    if not units.has_systemd:
        return [ok("service", "this host does not run systemd; nothing to look at")]
    if not units.is_installed:
        return [
            warning(
                "service", "orchctl is not installed as a service: it does not start with the host", "orchctl install"
            )
        ]
    if units.differing:
        text = f"{', '.join(units.differing)} is not what this version installs"
        return [warning("service", text, "see the difference with `orchctl install --dry-run`, then `orchctl install`")]
    if not units.is_enabled:
        return [warning("service", "the service does not start with the host", "systemctl enable orchctl")]
    return [ok("service", "installed, current and enabled")]


def judge_user(facts: HostFacts) -> list[Finding]:
    """Who the service runs as exists, and is not root."""
    if facts.service_uid is None:
        if not facts.units.is_installed:
            return [ok("user", "there is no service yet, so it needs no user")]
        return [failure("user", f"there is no user {facts.user}", "systemd-sysusers orchctl.conf")]
    if facts.service_uid == 0:
        return [warning("user", "the daemon runs as root, and so do its engines", "orchctl install")]
    return [ok("user", f"the daemon is for the user {facts.user}")]


def judge_files(facts: HostFacts) -> list[Finding]:
    """State and keys belong to the daemon's user and are closed to others."""
    found = [
        *_judge_owner("state_dir", facts.state_dir, facts, "700"),
        *_judge_owner("keys_file", facts.keys_file, facts, "600"),
    ]
    return found or [ok("files", "state and keys are closed to others")]


def _judge_owner(what: str, file: FileFact | None, facts: HostFacts, mode: str) -> list[Finding]:
    if file is None:
        return []
    found = []
    forbidden = (
        OTHERS_ANY if what == "keys_file" else OTHERS_ANY & ~0o050
    )  # a folder's name and existence are no secret
    if file.mode & forbidden:
        verb = "read or change" if what == "keys_file" else "enter or change"
        level = failure if what == "keys_file" or file.mode & OTHERS_WRITE else warning
        found.append(
            level("files", f"others may {verb} {file.path} (mode {file.mode:04o})", f"chmod {mode} {file.path}")
        )
    if facts.service_uid is not None and file.uid not in (0, facts.service_uid):
        text = f"{file.path} belongs to user {file.uid}, and the daemon runs as {facts.user}"
        found.append(failure("files", text, f"chown -R {facts.user}: {file.path}"))
    elif facts.service_uid not in (None, 0) and file.uid == 0:
        text = f"{file.path} belongs to root, and the daemon runs as {facts.user}"
        found.append(failure("files", text, f"chown -R {facts.user}: {file.path}"))
    return found


def judge_engines(facts: HostFacts) -> list[Finding]:
    """Every program that a pool starts can be started."""
    return [
        failure(
            "engine",
            f"{each.program} of {', '.join(each.pools)} {each.trouble}",
            "install it, or name it in engines.<engine>.binary",
        )
        if each.trouble
        else ok("engine", f"{each.program}: {each.version or 'can be started'}")
        for each in facts.engines
    ]
