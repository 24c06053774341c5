//! Bugs planted in the saga worker, each caught by a test that runs it as a process on a real server: run again with a worker in
//! which the bug is.
//!
//! `cargo test -p tidemill-testbed --features planted-bugs --test planted_worker each_planted_bug`

mod saga_control;
mod saga_faults;
mod saga_participants;
mod saga_relayed;
mod saga_revisions;
mod saga_silence;
mod saga_store_reset;

use tidemill_core::planted::Bug;
use tidemill_testbed::planted::each_is_caught;

/// A bug of the worker, and the test that must notice.
const CAUGHT: &[(Bug, &str)] = &[
    (
        Bug::StartUnguarded,
        "saga_control::an_id_starts_once_whoever_asks_and_is_described_after_its_end",
    ),
    (
        Bug::PartitionUnchecked,
        "saga_control::what_lies_in_a_partition_that_is_not_its_own_is_no_input",
    ),
    (
        Bug::PublishedAgain,
        "saga_store_reset::a_log_set_back_while_no_worker_ran_is_said_too",
    ),
    (
        Bug::EffectsWhileFolding,
        "saga_faults::events_that_a_killed_worker_had_under_way_are_counted_once",
    ),
    (
        Bug::NothingSentAgain,
        "saga_store_reset::a_log_set_back_while_no_worker_ran_is_said_too",
    ),
    (
        Bug::OlderSummaryStays,
        "saga_store_reset::a_log_set_back_while_no_worker_ran_is_said_too",
    ),
    (
        Bug::TriggerAhead,
        "saga_faults::events_that_a_killed_worker_had_under_way_are_counted_once",
    ),
    (
        Bug::LogResetUnseen,
        "saga_store_reset::a_log_set_back_while_no_worker_ran_is_said_too",
    ),
    (
        Bug::TriggerResetUnseen,
        "saga_store_reset::a_trigger_stream_set_back_while_no_worker_ran_starts_nothing_until_accepted",
    ),
    (
        Bug::AppendGivenUp,
        "saga_control::what_the_log_did_not_take_is_given_to_it_again",
    ),
    (
        Bug::SilenceWhileAway,
        "saga_faults::a_server_that_is_killed_costs_nothing_but_time",
    ),
    (
        Bug::StalledIsSole,
        "saga_silence::a_frozen_worker_does_not_say_for_its_successor_that_nobody_was_reached",
    ),
    (
        Bug::LogRolledUp,
        "saga_participants::an_answer_that_would_roll_up_the_log_takes_nothing_from_it",
    ),
    (
        Bug::CaptureUnseen,
        "saga_participants::a_stream_on_a_requests_subject_is_said_and_answers_nothing",
    ),
    (
        Bug::UnfitTarget,
        "saga_participants::an_outcome_is_not_published_where_it_could_leave_again_unseen",
    ),
    (
        Bug::DefinitionUnstored,
        "saga_revisions::instances_keep_the_definition_they_were_started_with",
    ),
    (
        Bug::RevisionForgotten,
        "saga_revisions::instances_keep_the_definition_they_were_started_with",
    ),
    (
        Bug::ActedOnUnstored,
        "saga_control::what_the_log_did_not_take_is_given_to_it_again",
    ),
    (
        Bug::RelayedDirectly,
        "saga_relayed::relayed_answers_survive_their_worker_and_their_server",
    ),
    (
        Bug::RelayedErrorLost,
        "saga_relayed::relayed_answers_survive_their_worker_and_their_server",
    ),
    (
        Bug::OutageParks,
        "saga_control::what_the_log_did_not_take_is_given_to_it_again",
    ),
];

#[test]
fn each_planted_bug_of_the_saga_worker_is_caught() {
    each_is_caught(CAUGHT, Bug::OF_SAGAS).unwrap();
}
