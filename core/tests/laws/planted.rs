//! Each bug of `tidemill_core::planted`, planted, and the test of its law that must fail.

use crate::{
    codec, compensation, definitions, expressions, outcomes, pivot, projections, publishing,
    replies, retries, unknown,
};
use std::cell::Cell;
use tidemill_core::planted::{Bug, plant};

/// A law's test, and bugs that it catches.
type Caught = (fn(), &'static [Bug]);

const CAUGHT: &[Caught] = &[
    (
        retries::a_failure_counts_only_for_the_current_attempt,
        &[Bug::FailureOfOldAttemptCounts],
    ),
    (retries::a_failure_counts_once, &[Bug::FailureCountsTwice]),
    (
        retries::a_success_counts_from_any_attempt,
        &[Bug::SuccessOfOldAttemptIgnored],
    ),
    (
        retries::a_refusal_counts_from_any_attempt,
        &[Bug::RefusalOfOldAttemptIgnored],
    ),
    (
        retries::timers_are_valid_by_their_id_alone,
        &[Bug::TimerValidByClock],
    ),
    (
        pivot::a_decision_begins_the_saga_s_time_anew,
        &[Bug::StaleSagaTimer],
    ),
    (retries::time_never_goes_back, &[Bug::TimeGoesBack]),
    (
        replies::an_observation_of_what_was_never_sent_changes_nothing,
        &[Bug::StartedTwice],
    ),
    (
        retries::backoff_doubles_and_its_jitter_is_seeded_by_instance_and_attempt,
        &[Bug::JitterFromElsewhere, Bug::BackoffConstant],
    ),
    (
        compensation::a_compensation_is_recorded_before_it_is_sent,
        &[Bug::OutstandingForgotten],
    ),
    (retries::attempts_have_a_limit, &[Bug::AttemptsUnlimited]),
    (
        retries::the_next_timer_is_the_earliest,
        &[Bug::StepTimeoutIgnored, Bug::AttemptTimeoutIgnored],
    ),
    (
        compensation::a_saga_has_a_time_for_everything,
        &[Bug::SagaTimeoutIgnored],
    ),
    (
        retries::reaching_nobody_uses_up_no_attempt,
        &[Bug::NobodyUsesUpAttempt],
    ),
    (retries::retry_after_is_honoured, &[Bug::RetryAfterIgnored]),
    (
        outcomes::nats_400_to_499_is_refused_but_408_425_and_429,
        &[Bug::PassingCodesRefused, Bug::ErrorCodeIgnored],
    ),
    (
        outcomes::http_codes_mean_what_the_design_says,
        &[Bug::HttpNotFoundRefused],
    ),
    (
        outcomes::nats_without_a_code_is_success,
        &[Bug::BadReplyIsSuccess, Bug::EmptyReplyIsBad],
    ),
    (
        replies::a_wrong_token_is_counted_and_never_an_outcome,
        &[
            Bug::TokenNotChecked,
            Bug::TokenForAnyAttempt,
            Bug::AttemptNotChecked,
        ],
    ),
    (
        outcomes::a_jetstream_acknowledgement_is_no_answer,
        &[Bug::StreamAckIsSuccess],
    ),
    (replies::tokens_and_runs_are_not_shown, &[Bug::TokenShown]),
    (
        retries::command_ids_are_the_same_over_retries,
        &[
            Bug::CommandIdPerAttempt,
            Bug::CommandIdWithoutRun,
            Bug::CompensationIsSameCommand,
            Bug::CompensatesNothing,
        ],
    ),
    (
        retries::requests_carry_no_headers_of_the_server,
        &[Bug::ServerHeaderSent],
    ),
    (
        retries::headers_hold_no_line_breaks,
        &[Bug::HeadersUnencoded],
    ),
    (
        unknown::what_may_have_been_delivered_may_have_happened,
        &[Bug::UnknownNotCompensated],
    ),
    (
        unknown::refused_after_an_attempt_that_may_have_been_delivered_is_unknown,
        &[Bug::RefusalForgetsDelivery],
    ),
    (
        unknown::refused_at_the_first_attempt_did_not_happen,
        &[Bug::RefusedIsCompensated],
    ),
    (
        unknown::reached_nobody_counts_only_from_a_sole_sender,
        &[Bug::SoleIgnored],
    ),
    (
        unknown::on_unknown_park_asks_a_person,
        &[Bug::UnknownNotAsked],
    ),
    (
        unknown::every_unknown_outcome_is_asked_about,
        &[Bug::SecondQuestionForgotten],
    ),
    (
        unknown::a_decision_leaves_the_failure_of_another_step,
        &[Bug::DecisionForgetsFailure],
    ),
    (
        unknown::a_cancel_does_not_answer_what_only_a_person_knows,
        &[Bug::CancelAnswersUnknown],
    ),
    (
        unknown::a_late_success_of_what_was_refused_is_taken_back,
        &[Bug::LateSuccessForgotten],
    ),
    (
        unknown::a_late_success_after_the_compensation_was_sent_is_only_recorded,
        &[Bug::LateOutputAlwaysAdded],
    ),
    (
        compensation::what_was_done_is_taken_back_in_reverse_order,
        &[Bug::CompensatedForwards],
    ),
    (
        compensation::nothing_is_taken_back_before_actions_in_flight_have_settled,
        &[Bug::CompensatedBesideActions],
    ),
    (
        compensation::one_compensation_runs_at_a_time,
        &[Bug::CompensatedAllAtOnce],
    ),
    (
        compensation::a_compensation_is_tried_again_and_parked_in_the_end,
        &[Bug::CompensationTriedOnce, Bug::FailedCompensationLeft],
    ),
    (
        compensation::the_first_failure_is_the_one_that_is_told,
        &[Bug::LastFailureTold],
    ),
    (
        compensation::a_step_whose_when_is_false_is_skipped,
        &[Bug::WhenIgnored],
    ),
    (retries::a_saga_goes_from_step_to_step, &[Bug::AfterIgnored]),
    (
        pivot::a_pivot_that_is_refused_takes_back_what_came_before,
        &[Bug::RefusedPivotParks],
    ),
    (
        pivot::a_cancel_after_the_pivot_is_refused,
        &[Bug::CancelAfterPivot],
    ),
    (
        pivot::after_the_pivot_refusal_and_exhaustion_park,
        &[Bug::FailureAfterPivotTurnsBack],
    ),
    (
        pivot::after_the_pivot_the_saga_s_timeout_parks,
        &[Bug::TimeoutAfterPivotTurnsBack],
    ),
    (
        pivot::a_pivot_of_which_nobody_knows_is_parked,
        &[Bug::UnknownPivotCompensated],
    ),
    (
        publishing::an_outcome_s_event_that_is_refused_parks,
        &[Bug::ConcludedBeforeStored],
    ),
    (
        publishing::a_publish_is_the_same_whoever_makes_it_and_whenever,
        &[Bug::PublishIdPerTime, Bug::PublishTimeIsNow],
    ),
    (
        publishing::a_publish_that_is_refused_for_good_parks,
        &[Bug::RefusedPublishLeft],
    ),
    (
        codec::what_an_input_is_its_subject_says,
        &[Bug::KindFromPayload],
    ),
    (
        codec::the_input_of_an_instance_keeps_its_digits,
        &[Bug::LogLosesDigits],
    ),
    (
        expressions::a_value_copied_without_arithmetic_keeps_its_digits,
        &[Bug::DigitsLost],
    ),
    (
        expressions::a_whole_number_is_an_int_and_never_a_uint,
        &[Bug::UintNumbers],
    ),
    (
        expressions::int_and_double_give_double,
        &[Bug::MixedNumbersRefused],
    ),
    (
        expressions::ints_divide_as_ints,
        &[Bug::IntDivisionIsDouble],
    ),
    (
        expressions::what_has_no_finite_result_is_an_error,
        &[Bug::OverflowWraps, Bug::DivisionByZeroIsZero],
    ),
    (
        expressions::doubles_are_written_with_a_point_or_an_exponent,
        &[Bug::DoubleWrittenAsInt],
    ),
    (expressions::an_evaluation_has_a_budget, &[Bug::BudgetOff]),
    (expressions::a_result_has_a_size, &[Bug::ResultUnlimited]),
    (
        expressions::loops_are_at_most_two_deep,
        &[Bug::NestingUnlimited],
    ),
    (
        expressions::a_source_has_a_limit_of_tokens,
        &[Bug::TokensUnlimited],
    ),
    (
        definitions::a_definition_of_other_semantics_is_refused,
        &[Bug::SemanticsUnchecked],
    ),
    (
        definitions::a_contract_of_other_semantics_is_refused,
        &[Bug::SemanticsUnchecked],
    ),
    (
        expressions::undeclared_names_are_refused_when_compiling,
        &[Bug::UndeclaredNameAccepted],
    ),
    (
        projections::an_event_at_or_below_the_row_s_position_changes_nothing,
        &[Bug::PositionNotChecked],
    ),
    (
        projections::a_row_has_a_position_in_each_source,
        &[Bug::OnePositionForAllSources],
    ),
    (
        projections::a_deleted_row_keeps_its_position,
        &[Bug::TombstoneForgotten],
    ),
    (projections::increments_are_exact, &[Bug::IncrementInBinary]),
    (
        projections::a_sum_beyond_28_digits_is_an_error_and_never_rounded,
        &[Bug::IncrementRounded],
    ),
    (
        projections::within_a_handler_every_expression_sees_the_row_as_it_was,
        &[Bug::HandlersSeeNewColumns],
    ),
    (
        projections::a_null_that_is_set_is_stored,
        &[Bug::NullRemovesColumn],
    ),
    (
        projections::all_handlers_that_match_run_in_order,
        &[Bug::FirstHandlerOnly, Bug::UntypedHandlerLeftOut],
    ),
    (
        projections::set_leaves_the_other_columns,
        &[Bug::SetReplacesRow],
    ),
    (
        projections::a_handler_may_have_its_own_key,
        &[Bug::OwnKeyIgnored, Bug::KeylessLost],
    ),
    (
        projections::an_event_without_a_time_has_its_stored_time,
        &[Bug::TimeMissing],
    ),
    (
        projections::an_event_that_can_t_be_folded_changes_nothing,
        &[Bug::HalfAnEventFolded],
    ),
    (
        projections::a_poison_event_holds_up_what_follows_for_its_key_and_no_other,
        &[Bug::FollowersPass, Bug::PoisonStopsOthers],
    ),
    (
        projections::an_event_that_waits_waits_once,
        &[Bug::WaitsTwice],
    ),
    (
        projections::a_decision_to_skip_is_kept_to,
        &[Bug::DecisionIgnored],
    ),
    (
        projections::what_can_t_be_folded_parks_until_too_many_keys_are,
        &[Bug::PoisonLeftOut, Bug::ParkedKeysUnlimited],
    ),
    (
        projections::no_more_events_wait_than_one_worker_keeps,
        &[Bug::ParkedEventsUnlimited],
    ),
    (
        projections::a_redrive_is_refused_once_the_row_is_past_it,
        &[Bug::RowIsAheadIgnored],
    ),
    (
        projections::a_source_that_was_reset_is_said_so,
        &[
            Bug::ReplacedSourceUnseen,
            Bug::ShorterSourceUnseen,
            Bug::RewrittenSourceUnseen,
        ],
    ),
    (
        projections::readers_are_led_on_when_no_partition_is_behind,
        &[Bug::SwitchedEarly],
    ),
    (
        projections::another_revision_has_its_own_keys,
        &[Bug::KeySpaceShared],
    ),
    (
        projections::rows_may_not_depend_on_how_sources_interleave,
        &[Bug::InterleavingAccepted],
    ),
];

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a law's test passes here and now. What it panics with is not printed.
fn passes(law: fn()) -> bool {
    EXPECTED.set(true);
    let result = std::panic::catch_unwind(law);
    EXPECTED.set(false);
    result.is_ok()
}

#[test]
fn each_planted_bug_is_caught_by_the_test_of_its_law() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !EXPECTED.get() {
            print(panic);
        }
    }));
    let mut missed = Vec::new();
    for (law, bugs) in CAUGHT {
        for bug in *bugs {
            assert!(
                passes(*law),
                "the law of {} is broken without it",
                bug.name()
            );
            let planted = plant(*bug);
            if passes(*law) {
                missed.push(bug.name());
            }
            drop(planted);
        }
    }
    assert_eq!(missed, Vec::<&str>::new(), "planted, and nobody noticed");
    let listed = |bug: &&Bug| CAUGHT.iter().any(|(_, bugs)| bugs.contains(bug));
    let bugs: Vec<&Bug> = Bug::ALL.iter().filter(|bug| bug.is_of_machines()).collect();
    let unlisted: Vec<&&Bug> = bugs.iter().filter(|bug| !listed(bug)).collect();
    assert!(unlisted.is_empty(), "no test is named for {unlisted:?}");
    println!("{} bugs planted, {} laws", bugs.len(), CAUGHT.len());
}
