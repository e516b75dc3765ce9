"""What is allowed and yet not what an operator wants: warnings about a valid config. Changes nothing."""

from supervisor.config.fields import ELIDED_DIGEST, Finding
from supervisor.config.model import Config


def find_warnings(config: Config) -> list[Finding]:
    """Everything worth a line in the log, in no particular order."""
    return [*_models_without_file(config), *_open_to_others(config)]


def _models_without_file(config: Config) -> list[Finding]:
    findings = []
    for index, pool in enumerate(config.pools):
        if pool.model == ELIDED_DIGEST:
            message = f"fill in the digest: pool {pool.id} cannot become Ready before"
        elif config.artifact(pool.model) is None:
            message = f"{pool.model} is not declared in `models`, so pool {pool.id} cannot become Ready"
        else:
            continue
        findings.append(Finding(("pools", index, "model"), message))
    return findings


def _open_to_others(config: Config) -> list[Finding]:
    listen = config.listen
    if listen.is_loopback or listen.tls is not None:
        return []
    return [Finding(("listen", "host"), "without `listen.tls` API keys and prompts cross the network in the clear")]
