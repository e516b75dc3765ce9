"""Asks the core for a change of pools, with the blueprints that it needs: there when it is taken, put back when not.

Decides nothing. The core answers within the call, for nobody else's event is being handled.
"""

from collections.abc import Sequence

from supervisor.core import events as ev
from supervisor.core.effects import AnswerRollout
from supervisor.core.refusals import Refused
from supervisor.runtime.answers import Answers
from supervisor.runtime.blueprint import PoolBlueprint
from supervisor.runtime.blueprints import Blueprints
from supervisor.runtime.loop import CoreLoop
from supervisor.wire.codes import Code, Reason

BUSY_RETRY_MS = 1_000

Asked = (
    ev.PoolsChanged
    | ev.RolloutRequested
    | ev.CanaryShared
    | ev.RolloutPromoted
    | ev.RolloutAborted
    | ev.RollbackRequested
)


class PoolChanges:
    """What the desks of rollouts and of the configuration ask with."""

    def __init__(self, core: CoreLoop, answers: Answers, blueprints: Blueprints) -> None:
        self._core = core
        self._answers = answers
        self._blueprints = blueprints

    def ask(self, event: Asked, drawn: Sequence[PoolBlueprint]) -> AnswerRollout | Refused:
        """The answer. A core that takes no events any more refuses; after a refusal the former blueprints are back."""
        former = {each.plan.pool_id: self._blueprints.get(each.plan.pool_id) for each in drawn}
        for each in drawn:
            self._blueprints.put(each)
        future = self._answers.expect(event.ticket)
        self._core.post(event)
        if not future.done():
            return refuse_busy("The daemon stops.")
        answer = future.result()
        if isinstance(answer, AnswerRollout):
            return answer
        assert isinstance(answer, Refused), answer
        for key, blueprint in former.items():
            if blueprint is None:
                self._blueprints.drop(key)
            else:
                self._blueprints.put(blueprint)
        return answer


def refuse_busy(message: str, pool_id: str | None = None) -> Refused:
    """409: the same thing is already under way."""
    return Refused(
        code=Code.ADMISSION_REJECT, reason=Reason.BUSY, message=message, retry_after_ms=BUSY_RETRY_MS, pool_id=pool_id
    )
