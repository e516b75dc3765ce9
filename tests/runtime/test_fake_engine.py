"""The fake engine is llama.cpp to the adapter, and each of its faults is seen for what it is."""

import socket
from pathlib import Path

import pytest

from adapters.base import EngineError, ExitKind, Fault, Finished
from supervisor.runtime import probes
from supervisor.runtime.self_test import self_test
from tests.runtime.engine_story import ADAPTER, call, worker
from tests.runtime.processes_story import is_alive, processes
from tests.support.fake_engine_decode import split_at_stop, tokenize
from tests.support.fake_engine_launch import FakeServer
from tests.support.fake_engine_script import Script, load_script
from tests.support.waiting import until

TERM_ONLY = ((15, 20.0),)


async def test_it_passes_all_that_a_worker_is_asked_before_it_serves(tmp_path: Path) -> None:
    async with processes() as every, worker(every, FakeServer(tmp_path), slots=3, ctx=700) as engine:
        props = await probes.read_props(engine.http, ADAPTER)
        results = await self_test(engine.http, ADAPTER, props)

    assert (props.slots, props.ctx_per_slot, props.engine_version) == (3, 700, "b11434-fake")
    assert [(result.name, result.passed) for result in results] == [
        ("minimal_decode", True),
        ("cancel", True),
        ("telemetry", True),
    ]


async def test_the_same_prompt_and_seed_give_the_same_words_also_from_another_process(tmp_path: Path) -> None:
    server = FakeServer(tmp_path)
    async with processes() as every:
        async with worker(every, server) as engine:
            first = await engine.complete(call("Tell me", max_tokens=40))
            other_seed = await engine.complete(call("Tell me", max_tokens=40, seed=2))
        async with worker(every, server) as engine:
            again = await engine.complete(call("Tell me", max_tokens=40))

    assert first.last == again.last
    assert first.text == again.text != other_seed.text
    assert isinstance(first.last, Finished)
    assert (first.last.reason, first.last.tokens_in, first.last.tokens_out) == ("length", len(tokenize("Tell me")), 40)


async def test_a_stop_string_ends_the_answer_before_it(tmp_path: Path) -> None:
    server = FakeServer(tmp_path, Script(tokens=("1, ", "2, ", "EN", "D of it", " more")))
    async with processes() as every, worker(every, server) as engine:
        reader = await engine.complete(call("count", stop=("END",)))

    assert reader.text == "1, 2, "
    assert isinstance(reader.last, Finished)
    assert (reader.last.reason, reader.last.tokens_out) == ("stop", 4)


def test_text_that_may_begin_a_stop_string_is_held_back() -> None:
    assert split_at_stop("one EN", ["END"]) == ("one ", "EN", None)
    assert split_at_stop("one ENx", ["END"]) == ("one ENx", "", None)
    assert split_at_stop("one END two", ["two", "END"]) == ("one ", "", "END")


async def test_a_prompt_that_does_not_fit_is_the_clients_fault(tmp_path: Path) -> None:
    async with processes() as every, worker(every, FakeServer(tmp_path), ctx=16) as engine:
        reader = await engine.complete(call("word " * 100))

    assert isinstance(reader.last, EngineError)
    assert (reader.last.fault, reader.last.kind) == (Fault.CLIENT, "ctx")


async def test_its_key_is_asked_for_everywhere_but_at_health(tmp_path: Path) -> None:
    server = FakeServer(tmp_path)
    async with processes() as every, worker(every, server) as engine:
        stranger = engine.http.with_key("wrong")
        statuses = [(await stranger.request(request, 5)).status for request in ADAPTER.request_props()]
        health = (await stranger.request(ADAPTER.request_health(), 5)).status
        server.set(Script(ignore_key=True))
        foreign = [(await stranger.request(request, 5)).status for request in ADAPTER.request_props()]
        stranger.close()

    assert statuses == [401, 401]
    assert health == 200
    assert foreign == [200, 200]


async def test_it_loads_for_as_long_as_the_script_says(tmp_path: Path) -> None:
    server = FakeServer(tmp_path, Script(never_ready=True))
    async with processes() as every, worker(every, server, is_ready=False) as engine:
        await until(lambda: "listening" in engine.last_words())
        loading = (await engine.http.request(ADAPTER.request_props()[0], 5)).status
        with pytest.raises(probes.ProbeError, match="loading"):
            await probes.wait_healthy(engine.http, ADAPTER, 0.05, poll_s=0.01)
        server.set(Script())
        await probes.wait_healthy(engine.http, ADAPTER, 20, poll_s=0.01)

    assert loading == 503


async def test_a_health_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    server = FakeServer(tmp_path)
    async with processes() as every, worker(every, server) as engine:
        server.set(Script(health_hangs=True))
        with pytest.raises(probes.ProbeError, match="was not healthy"):
            await probes.wait_healthy(engine.http, ADAPTER, 0.2, poll_s=0.01)


@pytest.mark.parametrize(
    ("script", "status", "kind"),
    [
        (Script(exit_rc=1, exit_text="error: invalid argument: --no-such-flag"), 1, ExitKind.BAD_FLAG),
        (Script(exit_rc=1, exit_text="ggml: cudaMalloc failed: out of memory"), 1, ExitKind.OOM_VRAM),
    ],
)
async def test_an_end_at_the_start_has_its_status_and_its_words(
    tmp_path: Path, script: Script, status: int, kind: ExitKind
) -> None:
    async with processes() as every, worker(every, FakeServer(tmp_path, script), is_ready=False) as engine:
        _, returncode = await engine.exits.first()
        assert returncode is not None
        explanation = ADAPTER.explain_exit(returncode, engine.last_words())

    assert returncode == status
    assert explanation.kind is kind


async def test_a_missing_model_is_said_as_llamacpp_says_it(tmp_path: Path) -> None:
    server = FakeServer(tmp_path)
    server.model.unlink()
    async with processes() as every, worker(every, server, is_ready=False) as engine:
        _, returncode = await engine.exits.first()
        assert returncode is not None
        explanation = ADAPTER.explain_exit(returncode, engine.last_words())

    assert explanation.kind in {ExitKind.MODEL_MISSING, ExitKind.MODEL_BAD}


async def test_a_taken_port_is_said_as_llamacpp_says_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with processes() as every, worker(every, FakeServer(tmp_path), port=port, is_ready=False) as engine:
            _, returncode = await engine.exits.first()
            assert returncode is not None
            explanation = ADAPTER.explain_exit(returncode, engine.last_words())

    assert (returncode, explanation.kind) == (1, ExitKind.PORT_IN_USE)


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [("die", -9, ExitKind.KILLED), ("abort", -6, ExitKind.OOM_VRAM), ("exit", 3, ExitKind.CRASHED)],
)
async def test_a_death_in_the_middle_of_an_answer_follows_its_tokens(
    tmp_path: Path, fault: str, status: int, kind: ExitKind
) -> None:
    server = FakeServer(tmp_path, Script(fault=fault, fault_at=3))
    async with processes() as every, worker(every, server) as engine:
        reader = await engine.complete(call("go on"))
        _, returncode = await engine.exits.first()
        assert returncode is not None
        explanation = ADAPTER.explain_exit(returncode, engine.last_words())

    assert [type(item).__name__ for item in reader.decoded] == ["Token", "Token", "Token", "EngineError"]
    assert (returncode, explanation.kind) == (status, kind)


@pytest.mark.parametrize("fault", ["cut", "reset", "early", "error", "garbage", "half_json", "bad_utf8", "bad_chunk"])
async def test_a_wrong_answer_is_an_engines_error_after_its_good_tokens(tmp_path: Path, fault: str) -> None:
    server = FakeServer(tmp_path, Script(fault=fault, fault_at=2))
    async with processes() as every, worker(every, server) as engine:
        reader = await engine.complete(call("go on"))
        server.set(Script())
        healthy = await engine.complete(call("go on"))

    assert [type(item).__name__ for item in reader.decoded] == ["Token", "Token", "EngineError"]
    assert isinstance(reader.last, EngineError)
    assert reader.last.fault is Fault.ENGINE
    assert isinstance(healthy.last, Finished), "the engine itself lives"


async def test_an_event_of_ten_megabytes_is_not_gathered(tmp_path: Path) -> None:
    server = FakeServer(tmp_path, Script(fault="long_line"))
    async with processes() as every, worker(every, server) as engine:
        reader = await engine.complete(call("go on"))

    assert isinstance(reader.last, EngineError)
    assert reader.last.kind == "overflow"


async def test_an_end_that_comes_twice_is_one_end(tmp_path: Path) -> None:
    server = FakeServer(tmp_path, Script(fault="double_end", fault_at=2))
    async with processes() as every, worker(every, server) as engine:
        reader = await engine.complete(call("go on"))

    assert isinstance(reader.last, Finished)
    assert reader.last.tokens_out == 2


async def test_a_stream_that_hangs_keeps_its_slot_until_its_reader_leaves(tmp_path: Path) -> None:
    server = FakeServer(tmp_path, Script(fault="hang", fault_at=2))
    async with processes() as every, worker(every, server) as engine:
        reader = engine.start(call("go on"))
        await until(lambda: len(reader.decoded) == 2)
        busy = await engine.busy_slots()
        health = (await engine.http.request(ADAPTER.request_health(), 5)).status
        assert reader.exchange is not None
        reader.exchange.abort()
        is_freed = await probes.wait_slot_idle(engine.http, ADAPTER, None, 20)

    assert busy == [0]
    assert health == 200, "health does not look at the decode loop"
    assert is_freed


async def test_a_slot_may_stick_after_its_reader_has_left(tmp_path: Path) -> None:
    server = FakeServer(tmp_path, Script(slot_sticks=True, token_s=3600))
    async with processes() as every, worker(every, server) as engine:
        reader = engine.start(call("go on"))
        await until(lambda: len(reader.decoded) == 1)
        assert reader.exchange is not None
        reader.exchange.abort()
        is_freed = await probes.wait_slot_idle(engine.http, ADAPTER, None, 0.3)

    assert not is_freed


async def test_a_frozen_engine_answers_nothing_and_dies_when_it_is_stopped(tmp_path: Path) -> None:
    server = FakeServer(tmp_path, Script(fault="freeze", fault_at=1))
    async with processes() as every, worker(every, server) as engine:
        reader = engine.start(call("go on"))
        await until(lambda: len(reader.decoded) == 1)
        with pytest.raises(probes.ProbeError):
            await probes.wait_healthy(engine.http, ADAPTER, 0.1, poll_s=0.01)
        stopped = await engine.process.stop(((15, 0.05),))

    assert stopped.returncode == -9


async def test_a_prompt_can_be_the_poison_and_another_one_is_not(tmp_path: Path) -> None:
    server = FakeServer(tmp_path)
    async with processes() as every, worker(every, server) as engine:
        fine = await engine.complete(call("[[eos@5]] please"))
        refused = await engine.complete(call("[[no_such_thing@5]]"))
        poisoned = await engine.complete(call("[[die@1]] please"))
        _, returncode = await engine.exits.first()

    assert isinstance(fine.last, Finished)
    assert (fine.last.reason, fine.last.tokens_out) == ("stop", 5)
    assert refused.status == 400
    assert isinstance(poisoned.last, EngineError)
    assert returncode == -9


async def test_a_fault_can_be_told_to_happen_once(tmp_path: Path) -> None:
    (tmp_path / "once").touch()
    server = FakeServer(tmp_path, Script(fault="cut", fault_at=1, once_path=str(tmp_path / "once")))
    async with processes() as every, worker(every, server) as engine:
        ends = [(await engine.complete(call("go on"))).last for _ in range(3)]

    assert [type(end).__name__ for end in ends] == ["EngineError", "Finished", "Finished"]


async def test_any_text_comes_out_as_it_went_in(tmp_path: Path) -> None:
    said = ("\n\ndata: {}", '"', "\\", "\u2028", "日本", "\x00", "🙂", "event: end\n\n")
    server = FakeServer(tmp_path, Script(tokens=said))
    async with processes() as every, worker(every, server) as engine:
        reader = await engine.complete(call("say it", max_tokens=100))

    assert reader.text == "".join(said)
    assert isinstance(reader.last, Finished)
    assert reader.last.reason == "stop"


async def test_it_leaves_when_asked_and_not_while_it_is_told_to_ignore_that(tmp_path: Path) -> None:
    async with processes() as every:
        async with worker(every, FakeServer(tmp_path)) as engine:
            polite = await engine.process.stop(TERM_ONLY)
        async with worker(every, FakeServer(tmp_path, Script(ignore_sigterm=True))) as engine:
            deaf = await engine.process.stop(((15, 0.05),))

    assert polite.returncode == 0
    assert deaf.returncode == -9


async def test_strays_of_a_deaf_engine_go_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "strays"
    script = Script(strays=("same_group", "own_session"), strays_path=str(pids), ignore_sigterm=True)
    async with processes() as every:
        async with worker(every, FakeServer(tmp_path, script)) as engine:
            strays = [int(line) for line in pids.read_text().splitlines()]
            alive_before = [pid for pid in strays if is_alive(pid)]
            stopped = await engine.process.stop(((15, 0.05),))

        assert len(alive_before) == 2
        assert stopped.leftovers == ()
        assert not [pid for pid in strays if is_alive(pid)]


async def test_what_waits_for_a_slot_is_counted_and_served_when_one_is_free(tmp_path: Path) -> None:
    server = FakeServer(tmp_path, Script(fault="hang", fault_at=1))
    async with processes() as every, worker(every, server, slots=1) as engine:
        first = engine.start(call("go on"))
        await until(lambda: first.decoded)
        server.set(Script())
        second = engine.start(call("me too"))
        waiting = 0.0
        while not waiting:
            waiting = (await probes.read_metrics(engine.http, ADAPTER))["requests_waiting"]
        assert first.exchange is not None
        first.exchange.abort()
        await second.end()

    assert isinstance(second.last, Finished)


def test_a_script_survives_its_json() -> None:
    script = Script(fault="die", fault_at=3, strays=("own_session",), tokens=("a",), answers={"/props": {"body": "x"}})

    assert load_script(script.to_json()) == script
    assert load_script(None) == Script()


@pytest.mark.parametrize("source", ['{"fault": "no such fault"}', '{"no_such_key": 1}', "/no/such/file"])
def test_a_script_that_cannot_be_meant_is_refused(source: str) -> None:
    with pytest.raises((ValueError, TypeError, OSError)):
        load_script(source)
