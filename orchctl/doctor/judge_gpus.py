"""What the facts about the NVIDIA driver mean. Pure."""

import stat

from orchctl.doctor.facts import FileFact, HostFacts
from orchctl.doctor.findings import Finding, failure, ok, warning

MIB = 2**20
HOLDER_BYTES_MIN = 64 * MIB
"""Less than this on a GPU keeps no model from fitting: a display, a monitor."""


def judge_driver(facts: HostFacts) -> list[Finding]:
    """1. simulated; 2. kernel module and library differ; 3. no module; 4. NVML fails; 5. no GPU; 6. well."""
    driver = facts.driver
    if facts.daemon is not None and facts.daemon.simulated is not None:
        return [ok("driver", f"GPUs are simulated ({facts.daemon.simulated}); nothing here is real")]
    if driver.is_mismatch or (driver.module and driver.library and driver.module != driver.library):
        text = f"the kernel runs driver {driver.module or 'unknown'}, the library is {driver.library or 'another one'}"
        return [failure("driver", f"{text}: it was upgraded and not loaded anew", "reboot")]
    if driver.module is None:
        fix = "install it (Debian: apt-get install nvidia-driver), or load it: modprobe nvidia"
        return [failure("driver", "the NVIDIA kernel driver is not loaded", fix)]
    if driver.trouble is not None:
        return [
            failure(
                "driver", f"NVML does not answer: {driver.trouble}", "run `nvidia-smi`, and read `dmesg | grep -i nvrm`"
            )
        ]
    if not driver.gpus:
        return [failure("driver", "the driver sees no GPU", "run `nvidia-smi -L` and `lspci | grep -i nvidia`")]
    return [ok("driver", f"driver {driver.module}, {len(driver.gpus)} GPUs")]


def judge_uvm(facts: HostFacts) -> list[Finding]:
    """CUDA needs the module nvidia_uvm and its node."""
    if not _is_real(facts):
        return []
    if not facts.driver.has_uvm:
        return [
            failure(
                "uvm", "the kernel module nvidia_uvm is not loaded, so CUDA cannot start", "nvidia-modprobe -c 0 -u"
            )
        ]
    return [ok("uvm", "nvidia_uvm is loaded")]


def judge_nodes(facts: HostFacts) -> list[Finding]:
    """Every GPU and the three common nodes are there, and the service's user may use them."""
    if not _is_real(facts):
        return []
    nodes = {node.path: node for node in facts.driver.nodes}
    wanted = ["/dev/nvidiactl", "/dev/nvidia-uvm", *(f"/dev/nvidia{gpu.index}" for gpu in facts.driver.gpus)]
    missing = [path for path in wanted if path not in nodes]
    if missing:
        return [failure("device_nodes", f"{', '.join(missing)} is missing", "nvidia-modprobe -c 0 -u")]
    closed = [path for path in wanted if not _may_use(nodes[path], facts)]
    if closed:
        group = "video" if any(nodes[path].gid for path in closed) else None
        fix = f"usermod -aG {group} {facts.user}" if group else f"chmod a+rw {' '.join(closed)}"
        return [failure("device_nodes", f"the user {facts.user} may not use {', '.join(closed)}", fix)]
    return [ok("device_nodes", f"{len(wanted)} nodes can be used by {facts.user}")]


def _may_use(node: FileFact, facts: HostFacts) -> bool:
    uid = facts.service_uid
    both = stat.S_IROTH | stat.S_IWOTH
    if uid in (0, None) or node.mode & both == both:
        return True
    if node.uid == uid:
        return node.mode & (both << 6) == both << 6
    return node.gid in facts.service_gids and node.mode & (both << 3) == both << 3


def judge_persistence(facts: HostFacts) -> list[Finding]:
    """Without it the driver is loaded anew for every first engine."""
    if not _is_real(facts):
        return []
    without = [str(gpu.index) for gpu in facts.driver.gpus if gpu.is_persistent is False]
    if without:
        sentence = (
            f"persistence mode is off on GPU {', '.join(without)}: each first start of an engine waits for the driver"
        )
        return [warning("persistence", sentence, "systemctl enable --now nvidia-persistenced, or nvidia-smi -pm 1")]
    return [ok("persistence", "persistence mode is on")]


def judge_vram(facts: HostFacts) -> list[Finding]:
    """Memory that others hold is missing where a model is to fit."""
    if not _is_real(facts):
        return []
    foreign = [
        holder
        for holder in facts.driver.holders
        if not holder.is_ours and (holder.used_bytes is None or holder.used_bytes >= HOLDER_BYTES_MIN)
    ]
    return [
        warning(
            "vram",
            f"process {holder.pid} ({holder.name}) holds {_mib(holder.used_bytes)} on GPU {holder.gpu} and is not ours",
            f"look at it with `ps -fp {holder.pid}`; if it is not needed: kill {holder.pid}",
        )
        for holder in foreign
    ] or [ok("vram", "nobody else holds memory on a GPU")]


def _is_real(facts: HostFacts) -> bool:
    """Whether there is a driver to look at; where there is none, one finding says so."""
    is_simulated = facts.daemon is not None and facts.daemon.simulated is not None
    return not is_simulated and facts.driver.module is not None


def _mib(size: int | None) -> str:
    return "some memory" if size is None else f"{size // MIB} MiB"
