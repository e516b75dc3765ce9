import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.runtime import worker_records
from supervisor.runtime.worker_records import RECORD_BYTES_MAX, WorkerRecord


def a_record(pool_id: str = "pool-a", incarnation: int = 1, **changes: object) -> WorkerRecord:
    record = WorkerRecord(
        pool_id=pool_id,
        incarnation=incarnation,
        pid=4242,
        start_ticks=1_000,
        boot_id=worker_records.current_boot_id(),
        port=40_001,
        api_key="the-key-of-this-worker",
        mark="mark",
        engine="llamacpp",
        devices=("GPU-1",),
        model_digest="sha256:11",
        launch_digest="sha256:00",
    )
    return msgspec.structs.replace(record, **changes)


def of_process(pid: int) -> WorkerRecord:
    facts = worker_records.process_facts(pid)
    assert facts is not None
    return a_record(pid=pid, start_ticks=facts.start_ticks)


def test_what_is_written_is_read_again_by_pool_and_incarnation(tmp_path: Path) -> None:
    records = [a_record("pool-b", 1), a_record("pool-a", 10), a_record("pool-a", 9)]
    for record in records:
        worker_records.write(tmp_path, record)

    found = worker_records.read_all(tmp_path)

    assert found.records == (a_record("pool-a", 9), a_record("pool-a", 10), a_record("pool-b", 1))
    assert found.unreadable == ()


def test_a_record_is_replaced_as_a_whole(tmp_path: Path) -> None:
    worker_records.write(tmp_path, a_record(port=40_001))
    (tmp_path / ".worker-pool-a-1.json.new").write_bytes(b"what a crash left")

    worker_records.write(tmp_path, a_record(port=40_002))

    assert worker_records.read_all(tmp_path).records == (a_record(port=40_002),)
    assert [file.name for file in tmp_path.iterdir()] == ["worker-pool-a-1.json"]


def test_removing_one_incarnation_leaves_the_other(tmp_path: Path) -> None:
    worker_records.write(tmp_path, a_record(incarnation=1))
    worker_records.write(tmp_path, a_record(incarnation=2))

    worker_records.remove(tmp_path, "pool-a", 1)
    worker_records.remove(tmp_path, "pool-a", 1)

    assert worker_records.read_all(tmp_path).records == (a_record(incarnation=2),)


def test_nobody_else_can_read_the_keys(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        worker_records.write(tmp_path / "state", a_record())
    finally:
        os.umask(old)

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}

    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_the_key_is_not_in_what_is_printed() -> None:
    record = a_record()

    assert record.api_key not in f"{record!r} {record}"
    assert record.api_key_digest == hashlib.sha256(record.api_key.encode()).hexdigest()


def test_garbage_is_named_and_hides_nothing(tmp_path: Path) -> None:
    worker_records.write(tmp_path, a_record())
    whole = (tmp_path / "worker-pool-a-1.json").read_bytes()
    (tmp_path / "worker-cut-1.json").write_bytes(whole[:-10])
    (tmp_path / "worker-empty-1.json").touch()
    (tmp_path / "worker-huge-1.json").write_bytes(whole + b" " * RECORD_BYTES_MAX)
    (tmp_path / "worker-init-1.json").write_bytes(whole.replace(b"4242", b"1"))
    (tmp_path / "worker-link-1.json").symlink_to(tmp_path / "worker-pool-a-1.json")
    (tmp_path / "worker-type-1.json").write_bytes(whole.replace(b"4242", b'"4242"'))
    (tmp_path / "worker-utf-1.json").write_bytes(whole.replace(b"pool-a", b"pool-\xff"))
    os.mkfifo(tmp_path / "worker-wait-1.json", 0o600)
    (tmp_path / "unrelated.json").write_bytes(b"{}")

    found = worker_records.read_all(tmp_path)

    names = ("cut", "empty", "huge", "init", "link", "type", "utf", "wait")
    assert found.records == (a_record(),)
    assert found.unreadable == tuple(f"worker-{name}-1.json" for name in names)


def test_garbage_can_be_discarded_by_the_names_given(tmp_path: Path) -> None:
    worker_records.write(tmp_path, a_record())
    (tmp_path / "worker-bad-1.json").write_bytes(b"{")

    worker_records.discard(tmp_path, worker_records.read_all(tmp_path).unreadable)

    assert worker_records.read_all(tmp_path) == worker_records.WorkerRecords((a_record(),), ())


def test_a_missing_directory_holds_no_records(tmp_path: Path) -> None:
    assert worker_records.read_all(tmp_path / "missing").records == ()


@given(pool_id=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20))
def test_no_pool_id_leads_out_of_the_directory(tmp_path_factory: pytest.TempPathFactory, pool_id: str) -> None:
    state_dir = tmp_path_factory.mktemp("outer") / "state"

    worker_records.write(state_dir, a_record(pool_id))

    assert worker_records.read_all(state_dir).records == (a_record(pool_id),)
    assert [entry.name for entry in state_dir.parent.iterdir()] == ["state"]
    shutil.rmtree(state_dir.parent)


def test_a_process_is_the_same_by_start_time_and_boot() -> None:
    mine = of_process(os.getpid())

    assert worker_records.is_same_process(mine)
    assert not worker_records.is_same_process(msgspec.structs.replace(mine, start_ticks=mine.start_ticks + 1))
    assert not worker_records.is_same_process(msgspec.structs.replace(mine, boot_id="another-boot"))


def test_a_dead_process_is_not_the_same_though_nobody_has_reaped_it() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        record = of_process(process.pid)
        is_same_alive = worker_records.is_same_process(record)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        is_same_dead = worker_records.is_same_process(record)

    assert is_same_alive
    assert not is_same_dead
    assert not worker_records.is_same_process(record)


def test_a_process_cannot_hide_behind_its_name(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("cat") or "/bin/cat", program)
    with subprocess.Popen([str(program)], stdin=subprocess.PIPE, start_new_session=True) as process:
        facts = worker_records.process_facts(process.pid)
        process.kill()

    assert facts is not None
    assert facts.session == process.pid
