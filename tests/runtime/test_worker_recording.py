"""Word of an engine that cannot be left: the cause is fit for whoever asks, and names no place on this machine."""

from pathlib import Path

import pytest

from supervisor.runtime import worker_records
from supervisor.runtime.processes_env import SpawnError
from supervisor.runtime.worker_recording import store_record
from supervisor.runtime.worker_records import WorkerRecord

RECORD = WorkerRecord(
    pool_id="p", incarnation=1, pid=2, start_ticks=1, boot_id="b", port=1, api_key="k", mark="m", engine="e",
    devices=(), model_digest="d", launch_digest="l",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "link", "below a file"])
def test_the_cause_names_no_path(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "state"
    if kind == "link":
        place.symlink_to(tmp_path)
    else:
        place.write_text("")

    with pytest.raises(SpawnError, match=r"^the engine cannot be recorded: [a-zA-Z ]+$"):
        store_record(place / "deeper" if kind == "below a file" else place, RECORD)


def test_a_folder_in_the_place_of_a_record_stays_and_is_named(tmp_path: Path) -> None:
    for name in ("worker-x-1.json", "worker-y-1.json"):
        (tmp_path / name).mkdir()
    (tmp_path / "worker-z-1.json").write_text("broken")
    found = worker_records.read_all(tmp_path)
    stay = worker_records.discard(tmp_path, found.unreadable)

    assert found.unreadable == ("worker-x-1.json", "worker-y-1.json", "worker-z-1.json")
    assert stay == ("worker-x-1.json", "worker-y-1.json")
    assert not (tmp_path / "worker-z-1.json").exists()
