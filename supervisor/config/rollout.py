"""The `rollout` section: how a new revision of a pool takes over, and by what a canary is judged (ORCH-3033)."""

from typing import Annotated, Self

from pydantic import Field, Strict, model_validator

from supervisor.config.fields import Count, DurationMs, Finding, Flag, Section, Text, refuse

PROMPTS_MAX = 32
PROMPT_TOKENS_MAX = 256
KEEP_PREVIOUS_MS_MAX = 86_400_000
DRAIN_MS_MAX = 86_400_000
GOLDEN_PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "1, 2, 3, 4, 5,",
    "Water boils at a temperature of",
)
"""What both engines are asked where the operator names no prompts: short, and with an obvious way to go on."""


Share = Annotated[float, Strict(), Field(ge=0, le=1)]


class JudgeConfig(Section):
    """When a canary under `auto` is promoted or taken back, by what ended in the last `window_ms`.

    Nothing is said of fewer than `min_tasks` of its tasks. It is taken back where its share of failed ones is above the
    current revision's by more than `error_gap_max`, where its share of those whose first token came after
    `first_token_ms_max` is by more than `late_gap_max`, or where fewer than `parity_min` of the golden prompts are
    answered alike. It takes over after `promote_after_tasks` with nothing against it.
    """

    min_tasks: Annotated[Count, Field(ge=1, le=1_000_000)] = 20
    window_ms: Annotated[Count, Field(ge=1_000, le=86_400_000)] = 300_000
    error_gap_max: Share = 0.02
    first_token_ms_max: DurationMs | None = None
    late_gap_max: Share = 0.05
    parity_min: Share | None = None
    promote_after_tasks: Annotated[Count, Field(ge=1, le=1_000_000)] = 50


class RolloutConfig(Section):
    """How a revision takes over from another.

    `keep_previous_ms` is how long the former one stays loaded for a rollback; `drain_ms` is the time that tasks get
    where the old worker must go before the new one fits. `parity`: whether the golden prompts are run on both
    revisions of a canary.
    """

    golden_prompts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=PROMPTS_MAX)] = GOLDEN_PROMPTS
    golden_tokens: Annotated[Count, Field(ge=1, le=PROMPT_TOKENS_MAX)] = 16
    parity: Flag = True
    keep_previous_ms: Annotated[Count, Field(ge=0, le=KEEP_PREVIOUS_MS_MAX)] = 600_000
    drain_ms: Annotated[Count, Field(ge=0, le=DRAIN_MS_MAX)] = 30_000
    judge: JudgeConfig = JudgeConfig()

    @model_validator(mode="after")
    def _a_verdict_on_parity_needs_it(self) -> Self:
        if not self.parity and self.judge.parity_min is not None:
            refuse("rollout", [Finding(("judge", "parity_min"), "nothing is compared while `parity` is false")])
        return self
