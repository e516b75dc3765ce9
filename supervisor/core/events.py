"""What happened: the only way anything reaches the core. Past tense; plain values; no I/O objects.

Reports about a worker carry its incarnation, those about a run its run id: a late report of a dead one changes nothing.
"""

from supervisor.core.operator_events import (
    CanaryShared,
    DrainRequested,
    HaltRequested,
    IntentRestored,
    LeaseEnded,
    LeaseRequested,
    ParityMeasured,
    PoolsChanged,
    QuiesceEnded,
    QuiesceRequested,
    ReleaseVerified,
    ResumeRequested,
    RollbackRequested,
    RolloutAborted,
    RolloutPromoted,
    RolloutRequested,
    SelfTestOver,
    SelfTestRequested,
    SplitRequested,
)
from supervisor.core.task_events import (
    AcceptsCommitted,
    AcceptsFailed,
    CancelRequested,
    FinishesCommitted,
    FirstTokenCame,
    JournalChanged,
    ReadersCame,
    ReadersLeft,
    RunAborted,
    RunFailed,
    RunFinished,
    RunStalled,
    SessionEndRequested,
    SlotsSeenIdle,
    SlotStuck,
    TasksRestored,
    TaskSubmitted,
    TimePassed,
    TokensCounted,
)
from supervisor.core.worker_events import (
    DeviceFaulted,
    DeviceRoom,
    DeviceSeen,
    DevicesSeen,
    DevicesUnknown,
    DriverWasReset,
    EngineExited,
    EngineHealthy,
    EngineInspected,
    EngineMisplaced,
    EngineProbed,
    EnginesFound,
    EngineSpawned,
    EngineStopped,
    EngineTested,
    Holder,
    HostSeen,
    IdleEngineProbed,
    MemoryHeld,
    ModelVerified,
    NeedsRestored,
    RoomMeasured,
    StepFailed,
    StepPassed,
)

Event = (
    TaskSubmitted
    | TokensCounted
    | AcceptsCommitted
    | AcceptsFailed
    | FinishesCommitted
    | JournalChanged
    | CancelRequested
    | ReadersLeft
    | ReadersCame
    | FirstTokenCame
    | RunFinished
    | RunFailed
    | RunStalled
    | RunAborted
    | SlotsSeenIdle
    | SlotStuck
    | DevicesSeen
    | DevicesUnknown
    | DeviceFaulted
    | DriverWasReset
    | EngineProbed
    | ModelVerified
    | RoomMeasured
    | HostSeen
    | MemoryHeld
    | NeedsRestored
    | EnginesFound
    | IntentRestored
    | LeaseRequested
    | LeaseEnded
    | ReleaseVerified
    | EngineSpawned
    | EngineHealthy
    | EngineInspected
    | StepPassed
    | EngineTested
    | StepFailed
    | EngineExited
    | EngineStopped
    | IdleEngineProbed
    | EngineMisplaced
    | SelfTestRequested
    | SelfTestOver
    | SessionEndRequested
    | DrainRequested
    | ResumeRequested
    | SplitRequested
    | RolloutRequested
    | RolloutPromoted
    | RolloutAborted
    | RollbackRequested
    | CanaryShared
    | ParityMeasured
    | PoolsChanged
    | HaltRequested
    | QuiesceRequested
    | QuiesceEnded
    | TasksRestored
    | TimePassed
)

__all__ = [
    "AcceptsCommitted",
    "AcceptsFailed",
    "CanaryShared",
    "CancelRequested",
    "DeviceFaulted",
    "DeviceRoom",
    "DeviceSeen",
    "DevicesSeen",
    "DevicesUnknown",
    "DrainRequested",
    "DriverWasReset",
    "EngineExited",
    "EngineHealthy",
    "EngineInspected",
    "EngineMisplaced",
    "EngineProbed",
    "EngineSpawned",
    "EngineStopped",
    "EngineTested",
    "EnginesFound",
    "Event",
    "FinishesCommitted",
    "FirstTokenCame",
    "HaltRequested",
    "Holder",
    "HostSeen",
    "IdleEngineProbed",
    "IntentRestored",
    "JournalChanged",
    "LeaseEnded",
    "LeaseRequested",
    "MemoryHeld",
    "ModelVerified",
    "NeedsRestored",
    "ParityMeasured",
    "PoolsChanged",
    "QuiesceEnded",
    "QuiesceRequested",
    "ReadersCame",
    "ReadersLeft",
    "ReleaseVerified",
    "ResumeRequested",
    "RollbackRequested",
    "RolloutAborted",
    "RolloutPromoted",
    "RolloutRequested",
    "RoomMeasured",
    "RunAborted",
    "RunFailed",
    "RunFinished",
    "RunStalled",
    "SelfTestOver",
    "SelfTestRequested",
    "SessionEndRequested",
    "SlotStuck",
    "SlotsSeenIdle",
    "SplitRequested",
    "StepFailed",
    "StepPassed",
    "TaskSubmitted",
    "TasksRestored",
    "TimePassed",
    "TokensCounted",
]
