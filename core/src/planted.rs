//! Bugs that a test can plant, at least one for each law: what catches none of them proves nothing.
//!
//! With the feature `planted-bugs` a bug is switched on at run time, [`plant`] for the test's own thread,
//! [`plant_everywhere`] for a whole process. Without the feature nothing of this is compiled in: [`planted`] is the
//! constant `false`.
//!
//! Those of the machines are caught by the test of their law ([`plant`]). All others are caught by tests that are there anyway,
//! run again as processes of their own in which the bug is (`each_is_caught` of `testbed/src/planted.rs`): of the projection worker, of who owns what, and
//! of the saga worker on a real server, of the compiler of resources by its table of complaints.
//!
//! Adding one: a variant below (its words say the law that it breaks), its place in one of the lists of [`Bug`] unless it is of
//! a machine, `if planted(Bug::…)` in the code, and a line for the test that catches it in `core/tests/laws/planted.rs`,
//! `workers/projection/tests/projection/planted.rs`, `workers/runtime/tests/pods.rs`, `testbed/tests/planted_worker.rs` or
//! `crds/tests/compile.rs`. Each fails if one is missing.

macro_rules! bugs {
    ($($(#[$words:meta])* $name:ident,)+) => {
        /// One bug each, named for what goes wrong; the words say the law that it breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Bug {
            $($(#[$words])* $name,)+
        }

        impl Bug {
            /// Every bug.
            pub const ALL: &[Bug] = &[$(Bug::$name,)+];

            /// The bug of a name.
            pub fn named(name: &str) -> Option<Bug> {
                Bug::ALL.iter().copied().find(|bug| bug.name() == name)
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$name => stringify!($name),)+
                }
            }
        }
    };
}

bugs! {
    // Sagas: order of inputs.
    /// A failure counts only for the current attempt.
    FailureOfOldAttemptCounts,
    /// A failure counts once.
    FailureCountsTwice,
    /// A success counts from any attempt.
    SuccessOfOldAttemptIgnored,
    /// A refusal counts from any attempt.
    RefusalOfOldAttemptIgnored,
    /// A timer is valid by its id, whatever the time says.
    TimerValidByClock,
    /// A timer of an earlier decision is stale.
    StaleSagaTimer,
    /// `at` is never before the previous `at`.
    TimeGoesBack,
    /// Starting is exactly once.
    StartedTwice,
    /// The same inputs give the same result everywhere: jitter is seeded by instance and attempt.
    JitterFromElsewhere,
    /// What is in flight can be asked of the state at any time.
    OutstandingForgotten,

    // Sagas: retries and limits.
    /// Attempts have a limit.
    AttemptsUnlimited,
    /// `stepTimeout` ends a step.
    StepTimeoutIgnored,
    /// `timeout` ends an attempt.
    AttemptTimeoutIgnored,
    /// `timeout` ends a saga.
    SagaTimeoutIgnored,
    /// Reaching nobody uses up no attempt.
    NobodyUsesUpAttempt,
    /// Backoff doubles.
    BackoffConstant,
    /// Compensations have retries of their own.
    CompensationTriedOnce,
    /// `Retry-After` is honoured.
    RetryAfterIgnored,

    // Sagas: outcomes.
    /// What an input is, its subject says and never its payload.
    KindFromPayload,
    /// A reply with an error code is no success.
    ErrorCodeIgnored,
    /// An empty reply is a success without output.
    EmptyReplyIsBad,
    /// NATS 408, 425 and 429 are tried again.
    PassingCodesRefused,
    /// Of HTTP only 400, 402, 409, 410, 412 and 422 refuse.
    HttpNotFoundRefused,
    /// An answer that isn't JSON is no success.
    BadReplyIsSuccess,
    /// A wrong token is never an outcome.
    TokenNotChecked,
    /// A token is that of one attempt of one side of one step.
    TokenForAnyAttempt,
    /// A reply to an attempt that was never made is never an outcome.
    AttemptNotChecked,
    /// A JetStream acknowledgement is never an outcome.
    StreamAckIsSuccess,
    /// A reply token is shown nowhere.
    TokenShown,

    // Sagas: commands.
    /// A command id is the same over retries.
    CommandIdPerAttempt,
    /// Another run of the same id gives other commands.
    CommandIdWithoutRun,
    /// A compensation is another command than its action.
    CompensationIsSameCommand,
    /// A compensation names the command it takes back.
    CompensatesNothing,
    /// Requests carry no headers that mean something to the server.
    ServerHeaderSent,
    /// Headers are printable, whatever the ids are.
    HeadersUnencoded,

    // Sagas: unknown outcomes.
    /// A step given up after an attempt that may have been delivered is compensated too.
    UnknownNotCompensated,
    /// Refused after an attempt that may have been delivered may have happened.
    RefusalForgetsDelivery,
    /// Refused at the first attempt did not happen.
    RefusedIsCompensated,
    /// That an attempt reached nobody counts only from a sole sender.
    SoleIgnored,
    /// `onUnknown: Park` asks a person.
    UnknownNotAsked,
    /// Every unknown outcome is asked about, also the second.
    SecondQuestionForgotten,
    /// A decision about one step leaves the failure of another.
    DecisionForgetsFailure,
    /// A cancel doesn't answer what only a person knows.
    CancelAnswersUnknown,
    /// A late success of what may have happened is taken back with the rest.
    LateSuccessForgotten,
    /// A late success adds its output unless the compensation was sent.
    LateOutputAlwaysAdded,

    // Sagas: failure and compensation.
    /// Compensations run in reverse order of completion.
    CompensatedForwards,
    /// Compensations begin when siblings in flight have settled.
    CompensatedBesideActions,
    /// One compensation runs at a time.
    CompensatedAllAtOnce,
    /// A compensation that fails for good is parked.
    FailedCompensationLeft,
    /// The first failure is the one that is told.
    LastFailureTold,
    /// A step whose `when` is false is skipped.
    WhenIgnored,
    /// A step follows those it is after.
    AfterIgnored,

    // Sagas: the pivot.
    /// A cancel after the pivot is refused.
    CancelAfterPivot,
    /// After the pivot a failure parks.
    FailureAfterPivotTurnsBack,
    /// After the pivot the saga's timeout parks.
    TimeoutAfterPivotTurnsBack,
    /// A pivot of which nobody knows is parked.
    UnknownPivotCompensated,
    /// A pivot that is refused takes back what came before it.
    RefusedPivotParks,

    // Sagas: publishing.
    /// A publish is outstanding until it is stored.
    ConcludedBeforeStored,
    /// A publish has the same id whenever it is made.
    PublishIdPerTime,
    /// A publish has the same bytes whoever makes it.
    PublishTimeIsNow,
    /// A publish that is refused for good is parked.
    RefusedPublishLeft,

    // Numbers and expressions.
    /// A value copied without arithmetic keeps its digits.
    DigitsLost,
    /// The input of an instance keeps its digits in the log.
    LogLosesDigits,
    /// A whole number is an int, never a uint.
    UintNumbers,
    /// int and double give double.
    MixedNumbersRefused,
    /// int divided by int is int.
    IntDivisionIsDouble,
    /// Overflow is an error.
    OverflowWraps,
    /// Division by zero is an error.
    DivisionByZeroIsZero,
    /// Doubles are written with `.` or `e`.
    DoubleWrittenAsInt,
    /// An evaluation ends beyond its budget.
    BudgetOff,
    /// A result has at most 1 MiB.
    ResultUnlimited,
    /// Loops nested deeper than two are refused.
    NestingUnlimited,
    /// A source has at most 1,000 tokens.
    TokensUnlimited,
    /// A definition of another version's semantics is refused.
    SemanticsUnchecked,
    /// Undeclared names are refused when compiling.
    UndeclaredNameAccepted,

    // Projections.
    /// `set` leaves the columns that it doesn't name.
    SetReplacesRow,
    /// A handler without a type takes every event.
    UntypedHandlerLeftOut,
    /// A handler may choose its row by a key of its own.
    OwnKeyIgnored,
    /// What has no key counts as one key.
    KeylessLost,
    /// `event.time` is the stored time where the event has none.
    TimeMissing,
    /// An event at or below the row's position changes nothing.
    PositionNotChecked,
    /// A row has a position per source.
    OnePositionForAllSources,
    /// A deleted row keeps its position.
    TombstoneForgotten,
    /// Increments are exact, in decimal.
    IncrementInBinary,
    /// A sum beyond 28 digits is an error.
    IncrementRounded,
    /// Within a handler every expression sees the row as it was before it.
    HandlersSeeNewColumns,
    /// A null that is set is stored.
    NullRemovesColumn,
    /// All handlers that match run, in order.
    FirstHandlerOnly,
    /// An event that can't be folded changes nothing.
    HalfAnEventFolded,
    /// A poison event holds up what follows for its key.
    FollowersPass,
    /// A poison event holds up no other key.
    PoisonStopsOthers,
    /// Errors of events and expressions park.
    PoisonLeftOut,
    /// No more keys are parked than allowed.
    ParkedKeysUnlimited,
    /// No more events wait than one worker keeps, also of those that only follow.
    ParkedEventsUnlimited,
    /// An event that waits, waits once.
    WaitsTwice,
    /// A decision to skip holds for every revision.
    DecisionIgnored,
    /// A redrive is refused once the row is past the event.
    RowIsAheadIgnored,
    /// Another stream under the source's name is a reset.
    ReplacedSourceUnseen,
    /// A source that ends below what was folded is a reset.
    ShorterSourceUnseen,
    /// A source that was set back and written on is a reset.
    RewrittenSourceUnseen,
    /// `live` goes on when every partition is past the old rows.
    SwitchedEarly,
    /// Another revision is another key space.
    KeySpaceShared,
    /// Rows don't depend on how several sources interleave.
    InterleavingAccepted,

    // The projection worker, around its machine.
    /// Where reading begins is resolved once, and used by every later revision.
    StartResolvedAgain,
    /// Whoever takes a partition over loads what is parked there.
    ParkedNotLoaded,
    /// A checkpoint says only what is stored.
    CheckpointAhead,
    /// A row is written over what was read of it, never over what another owner has written since.
    RowsUnguarded,

    /// A parked event is stored before a checkpoint passes it.
    ParkedUnstored,
    /// A stream that hands its messages out once is no source.
    QueueFolded,
    /// Rows aren't made anew from a stream that has lost its beginning.
    TruncationUnseen,
    /// Nor, in silence, from one that was set back after the present rows were made.
    OutlivedForgotten,
    /// A row that the sink can't take parks its key.
    SinkLimitUnseen,
    /// What has no key passes nothing that waits for a row that it has a key for.
    KeylessPasses,
    /// Readers are led on from where they were found, never from where a newer owner has led them since.
    OlderPointer,
    /// An event that waits is gone only when no copy of it is left.
    GoneWithItsCopy,
    /// The rows that readers see are kept up to date while others are built.
    OldRowsLeft,
    /// What is left out because it has no key is left out when it has one, too.
    KeylessSkipForgotten,
    /// What is left out of the rows that readers see is left out of those that are being built.
    SkipUnheard,
    /// That the server is away parks nothing.
    OutageParks,

    // Who owns what.
    /// Nothing is owned without a claim of this life.
    OwnedWithoutClaim,
    /// Nothing is claimed that a live pod shall have.
    OthersTakenForDead,
    /// A claim is made once: it is no other's that stands in its own way.
    ClaimedAgain,
    /// An owner that could not renew for long forgets what it holds.
    NeverForgotten,

    // The saga worker, around its machine.
    /// A start is stored only where there is none.
    StartUnguarded,
    /// An input is one only in its instance's own partition.
    PartitionUnchecked,
    /// A publish whose acknowledgement was lost, or another's, is found again.
    PublishedAgain,
    /// Effects are run when the log is folded, of what is unfinished by then.
    EffectsWhileFolding,
    /// Whoever takes over sends again what is in flight.
    NothingSentAgain,
    /// A log that ends before what was folded is a reset.
    LogResetUnseen,
    /// A trigger stream that ends before what was dealt with is a reset.
    TriggerResetUnseen,
    /// A trigger's position never passes a start that isn't stored.
    TriggerAhead,
    /// A newer summary is never lost to an older one.
    OlderSummaryStays,
    /// An input that nobody took is appended again until it is stored.
    AppendGivenUp,
    /// While the server is away, readiness says so.
    SilenceWhileAway,

    /// That an attempt reached nobody is said for all only by who has owned its partition all the while.
    StalledIsSole,
    /// Nothing leaves the log: it takes no message that takes the place of others.
    LogRolledUp,
    /// A stream's acknowledgement is no answer: nothing is sent where one would give it.
    CaptureUnseen,
    /// Nothing is published where it could not be found again.
    UnfitTarget,
    /// A definition is stored before an instance names it.
    DefinitionUnstored,
    /// An instance goes on with the definition that it was started with.
    RevisionForgotten,
    /// An input is acted on when it has come back from the log, not before.
    ActedOnUnstored,
    /// Relayed: no participant is given a subject of the log.
    RelayedDirectly,
    /// Relayed: an answer keeps what it says of errors.
    RelayedErrorLost,

    // The compiler of resources.
    /// An output that may not be there is read behind a guard.
    OutputUnguarded,
    /// Behind a pivot nothing has a compensation.
    CompensatedBehindPivot,
    /// A step follows steps above it only.
    AfterStepBelow,
    /// With several sources no row is deleted.
    DeletedWithSources,
    /// With several sources a column is of one stream.
    ColumnOfTwoStreams,
    /// With several sources a column is read by its own stream only.
    ForeignColumnRead,
    /// A literal null, which `kubectl apply` would drop, is refused.
    NullAccepted,
    /// Headers of the connection are the client's.
    ConnectionHeaderSet,
    /// What has no variable and can only fail, or gives what its place doesn't take, is refused.
    ConstantUnchecked,
    /// Which step failed is read behind a guard: there may be none.
    FailedStepUnguarded,
    /// A revision is the meaning and nothing else: no policy.
    PolicyInRevision,
}

impl Bug {
    /// Those of the projection worker, outside of the machine.
    pub const OF_PROJECTIONS: &[Bug] = &[
        Bug::StartResolvedAgain,
        Bug::ParkedNotLoaded,
        Bug::CheckpointAhead,
        Bug::RowsUnguarded,
        Bug::ParkedUnstored,
        Bug::QueueFolded,
        Bug::TruncationUnseen,
        Bug::OutlivedForgotten,
        Bug::SinkLimitUnseen,
        Bug::KeylessPasses,
        Bug::OlderPointer,
        Bug::GoneWithItsCopy,
        Bug::OldRowsLeft,
        Bug::KeylessSkipForgotten,
        Bug::SkipUnheard,
        Bug::OutageParks,
    ];

    /// Those of who owns which partition.
    pub const OF_OWNERSHIP: &[Bug] = &[
        Bug::OwnedWithoutClaim,
        Bug::OthersTakenForDead,
        Bug::ClaimedAgain,
        Bug::NeverForgotten,
    ];

    /// Those of the saga worker, outside of the machine.
    pub const OF_SAGAS: &[Bug] = &[
        Bug::StartUnguarded,
        Bug::PartitionUnchecked,
        Bug::PublishedAgain,
        Bug::EffectsWhileFolding,
        Bug::NothingSentAgain,
        Bug::LogResetUnseen,
        Bug::TriggerResetUnseen,
        Bug::TriggerAhead,
        Bug::OlderSummaryStays,
        Bug::AppendGivenUp,
        Bug::SilenceWhileAway,
        Bug::StalledIsSole,
        Bug::LogRolledUp,
        Bug::CaptureUnseen,
        Bug::UnfitTarget,
        Bug::DefinitionUnstored,
        Bug::RevisionForgotten,
        Bug::ActedOnUnstored,
        Bug::RelayedDirectly,
        Bug::RelayedErrorLost,
        Bug::OutageParks,
    ];

    /// Those of the compiler of resources.
    pub const OF_COMPILER: &[Bug] = &[
        Bug::OutputUnguarded,
        Bug::CompensatedBehindPivot,
        Bug::AfterStepBelow,
        Bug::DeletedWithSources,
        Bug::ColumnOfTwoStreams,
        Bug::ForeignColumnRead,
        Bug::NullAccepted,
        Bug::ConnectionHeaderSet,
        Bug::ConstantUnchecked,
        Bug::FailedStepUnguarded,
        Bug::PolicyInRevision,
    ];

    /// Whether it is one of the machines.
    pub fn is_of_machines(self) -> bool {
        let others = [
            Bug::OF_PROJECTIONS,
            Bug::OF_OWNERSHIP,
            Bug::OF_SAGAS,
            Bug::OF_COMPILER,
        ];
        !others.iter().any(|bugs| bugs.contains(&self))
    }
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use super::Bug;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU16, Ordering};

    thread_local! {
        static HERE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Number of a bug, plus one; 0 = none.
    static EVERYWHERE: AtomicU16 = AtomicU16::new(0);

    /// While it lives the bug is planted in this thread.
    #[derive(Debug)]
    #[must_use = "the bug is gone when this is dropped"]
    pub struct Planted(());

    impl Drop for Planted {
        fn drop(&mut self) {
            HERE.set(None);
        }
    }

    /// Plants a bug in this thread, one at a time.
    pub fn plant(bug: Bug) -> Planted {
        HERE.set(Some(bug));
        Planted(())
    }

    /// Plants a bug in the whole process, for ever.
    pub fn plant_everywhere(bug: Bug) {
        EVERYWHERE.store(bug as u16 + 1, Ordering::Relaxed);
    }

    /// Whether a bug is planted.
    pub fn planted(bug: Bug) -> bool {
        HERE.get() == Some(bug) || EVERYWHERE.load(Ordering::Relaxed) == bug as u16 + 1
    }

    /// A number that is another one each time: what no fold may depend on.
    pub(crate) fn whim() -> u64 {
        static WHIM: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        WHIM.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(feature = "planted-bugs")]
pub(crate) use switch::whim;
#[cfg(feature = "planted-bugs")]
pub use switch::{Planted, plant, plant_everywhere, planted};

/// Whether a bug is planted: never, without the feature `planted-bugs`.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn whim() -> u64 {
    0
}
