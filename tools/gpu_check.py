"""`make gpu-check`: whether what the daemon sees and decides holds on a real NVIDIA GPU. Says so and ends elsewhere.

Prints a table of named checks, each passed, failed or skipped with its reason, and a JSON report: to `--report FILE`,
else after the table. Runs the daemon's own reader, listener, room, residency and metrics. Starts one small CUDA process
for each GPU and changes nothing of them.
"""

import argparse
import asyncio
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from supervisor.runtime.gpus import Inventory
from supervisor.runtime.gpus_nvml import NvmlReader
from tools import gpu_checks, gpu_memory_checks, nvidia_smi
from tools.gpu_verdicts import Outcome, Verdict, document, failed, skipped, table

HEARD_WITHIN_S = 10.0
_LISTENER_LOG = "supervisor.runtime.gpus_nvml_events"
_HEARD = "GPU events are heard"


class Heard(logging.Handler):
    """Takes from the listener's log which GPUs it registered."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.uuids: list[str] = []
        self.is_told = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        """Called in the listener's thread."""
        if record.getMessage() == _HEARD:
            self.uuids = list(vars(record)["devices"])
            self._loop.call_soon_threadsafe(self.is_told.set)


async def check(found: Inventory, reader: NvmlReader) -> list[Verdict]:
    """All checks, in the order of the report."""
    verdicts = [*_against_smi(found), *await _events(found, reader), *gpu_checks.metrics_page(found, reader)]
    for device in gpu_checks.whole_gpus(found):
        verdicts += await gpu_memory_checks.headroom(device, reader)
        verdicts += await gpu_memory_checks.residency(device, reader)
    return verdicts


def _against_smi(found: Inventory) -> list[Verdict]:
    if shutil.which(nvidia_smi.COMMAND[0]) is None:
        return [skipped("nvidia-smi", "it is not installed: nothing can be compared")]
    try:
        return list(gpu_checks.compare(found, nvidia_smi.ask()))
    except nvidia_smi.SmiError as error:
        return [failed("nvidia-smi", str(error))]


async def _events(found: Inventory, reader: NvmlReader) -> list[Verdict]:
    """Let the daemon's listener register, and hear from its log for which GPUs it did."""
    log, heard = logging.getLogger(_LISTENER_LOG), Heard()
    log.setLevel(logging.INFO)
    log.addHandler(heard)
    try:
        reader.listen(lambda _: None)
        async with asyncio.timeout(HEARD_WITHIN_S):
            await heard.is_told.wait()
    except TimeoutError:
        return [failed("events", f"the listener registered nothing within {HEARD_WITHIN_S:g} s")]
    finally:
        log.removeHandler(heard)
    return list(gpu_checks.subscription(found, heard.uuids))


async def run() -> tuple[Inventory, list[Verdict]]:
    """One look, and where it finds a GPU all checks."""
    reader = NvmlReader()
    try:
        found = await reader.inventory()
        return found, (await check(found, reader) if found.devices else [])
    finally:
        await reader.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 where nothing failed, or where there is no GPU; 1 where a check failed."""
    parser = argparse.ArgumentParser(prog="gpu-check", description="Checks orchctl against a real NVIDIA GPU.")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the JSON report there, not to the output")
    options = parser.parse_args(arguments)
    found, verdicts = asyncio.run(run())
    if not found.devices:
        print(f"gpu-check SKIPPED: {found.trouble}")
        return 0
    devices = {each.uuid: f"{each.name}, {each.vram_total_mib} MiB" for each in found.devices}
    report = json.dumps(document(verdicts, {"driver": found.driver_version, "devices": devices}), indent=2)
    print("\n".join(table(verdicts)))
    if options.report is None:
        print(report)
    else:
        options.report.write_text(f"{report}\n", encoding="utf-8")
    return 1 if any(each.outcome is Outcome.FAILED for each in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
