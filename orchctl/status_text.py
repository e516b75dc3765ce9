"""The pages of `orchctl status`: what is said about a host and about one pool, and in which order. Pure.

What comes from the daemon goes through `one_line`: the words of a model or an engine never reach a terminal raw.
"""

import textwrap
from dataclasses import replace

from orchctl.device_columns import device_columns
from orchctl.pool_columns import pool_columns
from orchctl.pool_words import pool_mark, state_style, state_word
from orchctl.rollout_text import progress_lines
from orchctl.spans import spoken
from orchctl.table import lay_out
from orchctl.terminal import Screen, Style, one_line
from supervisor.wire.pools import DeviceView, HostStatus, PoolHealth, StepStatus

LABEL_WIDTH = 12


def host_page(status: HostStatus, screen: Screen, *, is_wide: bool) -> list[str]:
    """The whole host: the daemon, what is wrong with the host, pools and devices, what is wrong with each."""
    lines = [*_daemon_lines(status, screen), ""]
    if status.pools:
        table = lay_out(pool_columns(status, screen, is_wide=is_wide), screen)
        lines.append(table[0])
        for pool, row in zip(status.pools, table[1:], strict=True):
            lines += [row, *_trouble(pool, screen)]
    else:
        lines += _wrapped("no pools yet; write one into the config", screen)
    if status.devices:
        table = lay_out(device_columns(status.devices, is_wide=is_wide), screen)
        lines += ["", table[0]]
        for device, row in zip(status.devices, table[1:], strict=True):
            lines += [row, *_withheld(device, screen)]
    return lines


def pool_page(pool: PoolHealth, screen: Screen) -> list[str]:
    """One pool: its state and cause, what it is made of, its figures, a rollout, and the steps on the way to Ready."""
    mark = screen.paint(pool_mark(pool, screen), state_style(pool))
    lines = [f"{mark} {screen.paint(one_line(pool.pool_id), Style.BOLD)}  {state_word(pool)}"]
    lines += _trouble(pool, screen)
    for label, value in _facts(pool):
        lines += _wrapped(f"{label:<{LABEL_WIDTH}}{one_line(value)}", screen, hang=LABEL_WIDTH)
    if pool.rollout is not None:
        lines += ["", screen.paint("under way", Style.BOLD)]
        plain = progress_lines(pool.rollout, replace(screen, has_colour=False))  # wrapped as plain text
        lines += [part for line in plain for part in _wrapped(f"  {line}", screen, hang=6)]
    if pool.steps:
        lines += ["", screen.paint("steps to ready", Style.BOLD)]
        lines += [line for step in pool.steps for line in _step_lines(step, screen)]
    return lines


def _daemon_lines(status: HostStatus, screen: Screen) -> list[str]:
    dot = f" {screen.signs.dot} "
    daemon = dot.join(
        [
            f"orchctl {one_line(status.version)}",
            one_line(status.state),
            f"up {spoken(status.uptime_ms)}",
            f"pid {status.pid}",
        ]
    )
    lines = _wrapped(daemon, screen)
    if status.simulated is not None:
        notice = f"SIMULATED GPUS: {one_line(status.simulated)} (NOTHING HERE RUNS ON A GPU)"
        lines += _painted(notice, screen, Style.BOLD, Style.WARN)
    if status.gpu_cause is not None:
        lines += _painted(f"no usable GPU: {one_line(status.gpu_cause)}", screen, Style.BAD)
    for cause in status.causes:
        lines += _painted(one_line(cause), screen, Style.WARN)
    if status.policy is not None and status.policy.cause is not None and status.policy.state != "active":
        state = status.policy.state.replace("_", " ")
        notice = f"the policy is {state}, the built-in one decides: {one_line(status.policy.cause)}"
        lines += _painted(notice, screen, Style.WARN)
    if not status.journal_writable:
        cause = f" ({one_line(status.journal_cause)})" if status.journal_cause else ""
        lines += _painted(f"the journal is not writable{cause}: no new task is accepted", screen, Style.BAD)
    return lines


def _trouble(pool: PoolHealth, screen: Screen) -> list[str]:
    """Why it is not ready, and when the next try is; nothing for a pool that serves without a remark."""
    parts = [one_line(pool.cause)] if pool.cause else []
    if pool.retry_in_ms is not None and not pool.ready:
        parts.append(f"next try in {spoken(pool.retry_in_ms)}")
    if pool.ready and pool.breaker is not None and pool.breaker.cause is not None:
        parts.append(f"its runs failed, the last one with: {one_line(pool.breaker.cause)}")
        if pool.breaker.retry_in_ms is not None:
            parts.append(f"next try in {spoken(pool.breaker.retry_in_ms)}")
    running = next((step.name for step in pool.steps if step.state == "running"), None)
    if not parts and not pool.ready and running is not None:
        parts.append(f"now: {one_line(running)}")
    if not parts:
        return []
    return _painted(f"  {screen.signs.hook} {'; '.join(parts)}", screen, state_style(pool), hang=4)


def _withheld(device: DeviceView, screen: Screen) -> list[str]:
    """Why a device that is there may not be used; nothing for one that may."""
    if device.withheld is None:
        return []
    return _painted(f"  {screen.signs.hook} withheld: {one_line(device.withheld)}", screen, Style.BAD, hang=4)


def _facts(pool: PoolHealth) -> list[tuple[str, str]]:
    metrics = pool.metrics
    facts = [
        ("model", pool.model_ref),
        ("revision", f"{pool.revision}, {pool.role}"),
        ("digest", pool.model_digest or ""),
        ("engine", " ".join([pool.engine, pool.engine_version or ""]).strip()),
        ("devices", ", ".join(pool.devices)),
        ("context", f"{pool.ctx} tokens" + (f", {pool.ctx_per_slot} in each slot" if pool.ctx_per_slot else "")),
        ("pid", str(pool.pid or "")),
        ("in state", spoken(pool.since_ms)),
        ("slots", f"{metrics.slots_busy} of {metrics.slots_total} busy"),
        ("queue", f"{metrics.waiting} waiting"),
        ("speed", f"{metrics.tokens_per_s:.1f} tok/s, {metrics.tokens_out_total} tokens in all"),
        ("first token", _percentiles(metrics.first_token_p50_ms, metrics.first_token_p95_ms)),
        ("queue time", _percentiles(metrics.queue_time_p50_ms, metrics.queue_time_p95_ms)),
        ("restarts", str(metrics.restarts_total)),
    ]
    return [(label, value) for label, value in facts if value]


def _percentiles(p50_ms: float | None, p95_ms: float | None) -> str:
    if p50_ms is None or p95_ms is None:
        return ""
    return f"{spoken(p50_ms)} median, {spoken(p95_ms)} p95"


def _step_lines(step: StepStatus, screen: Screen) -> list[str]:
    signs = screen.signs
    sign, style = {
        "passed": (signs.passed, Style.GOOD),
        "running": (signs.running, Style.WARN),
        "failed": (signs.failed, Style.BAD),
    }.get(step.state, (signs.pending, Style.DIM))
    took = f"  {spoken(step.took_ms)}" if step.took_ms is not None else ""
    detail = f"  {one_line(step.detail)}" if step.detail else ""
    return _painted(f"  {sign} {one_line(step.name)}{took}{detail}", screen, style, hang=4)


def _painted(text: str, screen: Screen, *styles: Style, hang: int = 2) -> list[str]:
    return [screen.paint(line, *styles) for line in _wrapped(text, screen, hang=hang)]


def _wrapped(text: str, screen: Screen, *, hang: int = 2) -> list[str]:
    """The text in lines that fit; continued ones are indented by `hang` columns where there is room."""
    indent = " " * (hang if screen.width > 2 * hang + 8 else 0)
    return textwrap.wrap(text, screen.width, subsequent_indent=indent, break_on_hyphens=False) or [""]
