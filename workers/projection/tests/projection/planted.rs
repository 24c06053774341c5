//! Bugs planted in the worker, each caught by a test of this folder: run again as a process of its own, where the bug is.

use tidemill_core::planted::Bug;
use tidemill_testbed::planted::each_is_caught;

/// A bug of the worker or of its machine, and the test that must notice.
const CAUGHT: &[(Bug, &str)] = &[
    (
        Bug::StartResolvedAgain,
        "revisions::reading_begins_where_the_definition_says_and_no_later_one_changes_that",
    ),
    (
        Bug::ParkedNotLoaded,
        "parking::parked_keys_are_found_by_whoever_takes_their_partition",
    ),
    (
        Bug::PositionNotChecked,
        "folding::rows_are_right_whatever_is_killed",
    ),
    (
        Bug::RewrittenSourceUnseen,
        "reset::a_source_that_lost_its_end_is_noticed_and_read_on_when_it_is_accepted",
    ),
    (
        Bug::FollowersPass,
        "parking::a_poison_event_parks_its_key_only_and_skipping_it_frees_what_follows",
    ),
    (
        Bug::CheckpointAhead,
        "folding::more_rows_than_are_written_at_a_time_are_right_after_a_kill_in_between",
    ),
    (
        Bug::RowsUnguarded,
        "folding::a_stalled_owner_overwrites_nothing_of_its_successor",
    ),
    (
        Bug::SwitchedEarly,
        "revisions::readers_are_led_on_when_the_slowest_worker_has_caught_up",
    ),
    (
        Bug::ParkedUnstored,
        "parking::parked_keys_are_found_by_whoever_takes_their_partition",
    ),
    (
        Bug::QueueFolded,
        "folding::a_stream_that_hands_out_messages_once_is_no_source",
    ),
    (
        Bug::TruncationUnseen,
        "revisions::a_rebuild_that_would_lose_what_is_gone_is_refused_and_the_rows_go_on",
    ),
    (
        Bug::OutlivedForgotten,
        "reset::a_source_that_lost_its_end_is_noticed_and_read_on_when_it_is_accepted",
    ),
    (
        Bug::SinkLimitUnseen,
        "row_size::a_row_larger_than_the_server_takes_parks_its_key",
    ),
    (
        Bug::KeylessPasses,
        "redrive::trying_again_what_has_no_key_passes_nothing_that_waits_for_another_row",
    ),
    (
        Bug::RowIsAheadIgnored,
        "redrive::an_event_that_gets_its_key_too_late_is_not_folded_behind_its_row",
    ),
    (
        Bug::ParkedEventsUnlimited,
        "limits::too_many_parked_events_stop_the_projection_before_the_next_one",
    ),
    (
        Bug::ParkedKeysUnlimited,
        "limits::too_many_parked_keys_stop_the_projection_before_the_next_one",
    ),
    (
        Bug::OlderPointer,
        "pointer::readers_stay_where_a_newer_owner_has_led_them",
    ),
    (
        Bug::GoneWithItsCopy,
        "redrive::an_event_whose_copy_is_gone_is_folded_from_the_other_one",
    ),
    (
        Bug::OldRowsLeft,
        "revisions::readers_are_led_on_when_the_slowest_worker_has_caught_up",
    ),
    (
        Bug::KeylessSkipForgotten,
        "redrive::what_was_left_out_without_a_key_is_folded_by_no_later_revision",
    ),
    (
        Bug::SkipUnheard,
        "revisions::what_is_left_out_while_other_rows_are_built_is_left_out_of_them",
    ),
    (
        Bug::OutageParks,
        "folding::a_server_that_is_away_parks_nothing",
    ),
];

#[test]
fn each_planted_bug_is_caught_on_a_real_server() {
    each_is_caught(CAUGHT, Bug::OF_PROJECTIONS).unwrap();
}
