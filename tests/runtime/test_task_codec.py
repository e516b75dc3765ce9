"""A task on its way to the journal and back: what the next daemon knows of where it waited."""

from zlib import crc32

import msgspec
import pytest

from supervisor.core.tasks import Task
from supervisor.runtime.caller import Caller
from supervisor.runtime.journal import rows
from supervisor.runtime.journal.records import RestoredTask
from supervisor.runtime.task_codec import accept_record, new_task, restore_unfinished
from supervisor.wire.codes import Determinism
from tests.runtime.submitted import REQUEST

CRC_BYTES = 4
FIELDS_OF_BEFORE = 12


def admitted(kind: str) -> tuple[Task, tuple[bytes, bytes]]:
    """A task that was admitted to a set of that kind, and its row."""
    task, request = new_task(Caller("tenant"), "job", REQUEST, Determinism.STRICT, 0.0)
    task.set_kind = kind
    return task, rows.pack_accept(accept_record(task, request, 0.0))


def taken_up(meta: bytes, body: bytes) -> Task:
    return restore_unfinished(RestoredTask(accept=rows.unpack_accept(meta, body), attempts=()), None, 0.0)


@pytest.mark.orch("ORCH-3024")
def test_the_kind_of_set_and_the_side_of_the_session_come_back() -> None:
    task, row = admitted("rs-kind")

    again = taken_up(*row)

    assert (again.set_kind, again.bucket) == ("rs-kind", task.bucket)


def test_a_row_of_before_has_no_kind_of_set() -> None:
    _, (meta, body) = admitted("rs-kind")
    fields = msgspec.msgpack.decode(meta[CRC_BYTES:])[:FIELDS_OF_BEFORE]

    packed = msgspec.msgpack.encode(fields)
    again = taken_up(crc32(packed).to_bytes(CRC_BYTES, "little") + packed, body)

    assert (again.set_kind, again.task_id) == ("", REQUEST.task_id)
