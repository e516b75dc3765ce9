"""Self-tests that operators ask for: asked of the core, run against the live worker, answered. Decides nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from supervisor.core.effects import RunLiveTest
from supervisor.core.events import SelfTestOver, SelfTestRequested
from supervisor.core.plan import public_id_of
from supervisor.core.refusals import Refused
from supervisor.runtime.answers import Answers, change_ticket
from supervisor.runtime.loop import CoreLoop
from supervisor.runtime.self_test import StepResult
from supervisor.wire.codes import Code
from supervisor.wire.self_tests import SelfTestReport, SelfTestStep

log = logging.getLogger("orchctl")

Tester = Callable[[RunLiveTest], Awaitable[Sequence[StepResult]]]
"""Runs the steps; gives none where the worker is gone."""


class SelfTestDesk:
    """`run` is a hand of the core; `ask` is asked by the service."""

    def __init__(self, core: CoreLoop, answers: Answers, tester: Tester) -> None:
        self._core = core
        self._answers = answers
        self._tester = tester
        self._asked: dict[str, asyncio.Future[SelfTestReport | Refused]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, pool_id: str) -> SelfTestReport | Refused:
        """Test the worker of a pool; a refusal where there is no such pool, no Ready worker or no slot."""
        ticket = change_ticket()
        refusal = self._answers.expect(ticket)
        report: asyncio.Future[SelfTestReport | Refused] = asyncio.get_running_loop().create_future()
        self._asked[ticket] = report
        try:
            self._core.post(SelfTestRequested(ticket, pool_id))
            either: set[asyncio.Future[Any]] = {refusal, report}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if report.done():
                return report.result()
            refused = refusal.result()
            assert isinstance(refused, Refused)
            return refused
        finally:
            refusal.cancel()
            del self._asked[ticket]

    def run(self, effect: RunLiveTest) -> None:
        """Run it; ends in SelfTestOver, also where the one who asked has left."""
        task = asyncio.create_task(self._run(effect))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Nobody waits any more."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _run(self, effect: RunLiveTest) -> None:
        results: Sequence[StepResult] = ()
        try:
            results = await self._tester(effect)
        finally:
            self._core.post(SelfTestOver(effect.pool_id, effect.incarnation, effect.run_id))
            self._answer(effect, results)

    def _answer(self, effect: RunLiveTest, results: Sequence[StepResult]) -> None:
        passed = bool(results) and all(result.passed for result in results)
        facts = {"pool_id": public_id_of(effect.pool_id), "incarnation": effect.incarnation, "passed": passed}
        log.info("self-test on demand", extra={**facts, "cause": None if passed or not results else results[-1].detail})
        future = self._asked.get(effect.ticket)
        if future is None or future.done():
            return
        if not results:
            message = "The worker ended before the self-test could begin."
            gone = Refused(code=Code.WORKER_RESET, message=message, pool_id=public_id_of(effect.pool_id))
            future.set_result(gone)
            return
        steps = [
            SelfTestStep(name=each.name, passed=each.passed, took_ms=round(each.took_ms), detail=each.detail)
            for each in results
        ]
        pool_id = public_id_of(effect.pool_id)
        replica_id = f"{effect.pool_id}/{effect.incarnation}"
        future.set_result(SelfTestReport(pool_id=pool_id, replica_id=replica_id, passed=passed, steps=steps))
