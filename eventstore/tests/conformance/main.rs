//! How every store behaves: one suite, run against PostgreSQL and against the store in memory.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod append;
mod clock;
mod execute;
mod idempotency;
mod life;
mod life_in_time;
mod load;
mod model;
mod query;
mod read;
#[path = "../support/mod.rs"]
mod support;

/// Expands to one test for each behaviour and store. A behaviour takes the store; of a theme with
/// `(clock)`, also the clock that the store was opened with.
macro_rules! conformance {
    ($($theme:ident $takes:tt { $($behaviour:ident),* $(,)? })*) => {
        mod in_postgres {
            $(mod $theme { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    let database = crate::support::TestDatabase::create().await;
                    let clock = crate::clock::start();
                    let options = crate::options!($takes clock);
                    let store = database.store_with(options).await;
                    crate::behaviour!($takes $theme $behaviour store clock).await;
                }
            )* })*
        }
        mod in_memory {
            $(mod $theme { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    let clock = crate::clock::start();
                    let store = crate::options!($takes clock).in_memory();
                    crate::behaviour!($takes $theme $behaviour store clock).await;
                }
            )* })*
        }
    };
}

macro_rules! options {
    (() $clock:ident) => {{
        let _ = $clock;
        annals_eventstore::EventStore::options()
    }};
    ((clock) $clock:ident) => {
        annals_eventstore::EventStore::options()
            .clock(annals_eventstore::Clock::supplied($clock.clone()))
    };
}
use options;

macro_rules! behaviour {
    (() $theme:ident $behaviour:ident $store:ident $clock:ident) => {
        crate::support::in_time(crate::$theme::$behaviour(&$store))
    };
    ((clock) $theme:ident $behaviour:ident $store:ident $clock:ident) => {
        crate::support::in_time(crate::$theme::$behaviour(&$store, &$clock))
    };
}
use behaviour;

conformance! {
    append () {
        each_expectation_meets_each_state,
        a_conflict_in_a_later_stream_names_that_stream,
        one_of_two_writers_on_a_version_wins,
        many_writers_to_any_version_lose_nothing,
        several_streams_are_appended_in_the_order_given,
        several_streams_are_appended_all_or_none,
        opposite_orders_of_streams_do_not_deadlock,
        an_append_without_events_is_refused,
        a_stream_named_twice_is_refused,
        what_is_too_large_is_refused,
        what_cannot_be_stored_is_refused,
        a_bad_append_among_many_fails_alone,
        a_caller_that_goes_away_leaves_the_append_whole,
    }
    clock (clock) {
        events_bear_the_time_of_the_clock,
        events_bear_the_time_that_they_bring,
        time_may_stand_still_but_not_go_back,
        time_does_not_go_back_within_an_append,
        commands_bear_the_time_that_they_bring,
        a_position_as_of_a_time_is_that_of_a_fold,
        an_aggregate_as_of_a_time_is_that_of_a_fold,
        brought_and_own_times_do_not_go_back_together,
        an_answer_as_of_a_time_is_final,
        a_failed_command_leaves_no_time_behind,
        a_clock_that_passes_refuses_nobody,
    }
    execute () {
        a_command_leads_to_events,
        a_rejected_command_is_decided_once_and_records_nothing,
        later_commands_of_a_lot_see_the_events_of_earlier_ones,
        a_lot_reports_what_the_log_holds,
        a_lot_without_commands_records_nothing,
        commands_without_events_record_nothing,
        a_command_for_an_impossible_stream_fails_alone,
        what_is_said_about_a_command_is_said_of_its_events_only,
        concurrent_increments_are_all_counted,
        concurrent_lots_stay_whole,
    }
    idempotency () {
        the_same_append_again_returns_the_recorded_outcome,
        another_append_under_the_key_is_refused,
        concurrent_appends_under_one_key_are_recorded_once,
        of_different_appends_under_one_key_one_is_recorded,
        outcomes_beside_refused_ones_are_remembered_right,
        a_failed_append_leaves_its_key_free,
        the_same_command_again_returns_the_recorded_outcome,
        another_command_under_the_key_is_refused,
        a_command_without_events_is_remembered,
        a_rejected_command_leaves_its_key_free,
        a_key_twice_in_a_lot_counts_once,
        a_lot_known_in_part_records_the_rest,
        concurrent_commands_under_one_key_are_recorded_once,
        keys_have_a_form,
        a_key_is_bound_to_content_not_to_its_spelling,
    }
    load () {
        what_does_not_exist_is_none,
        an_aggregate_as_of_a_version_is_that_of_a_fold,
        an_aggregate_as_of_a_position_is_that_of_a_fold,
        a_position_beyond_the_end_is_an_error,
        the_future_is_an_error,
        an_event_that_cannot_be_decoded_is_named,
    }
    read () {
        all_that_an_event_holds_comes_back,
        payloads_come_back_as_they_were_written,
        numbers_come_back_as_they_were_written,
        recording_times_are_the_stores_own,
        a_recording_time_for_the_stores_own_clock_is_refused,
        more_than_a_page_is_read_in_order,
        a_page_ends_where_it_is_told_to,
        streams_of_similar_names_are_told_apart,
    }
    query () {
        a_query_finds_what_a_filter_over_the_log_finds,
        pages_of_any_size_lead_to_the_same_events,
        reading_from_a_time_starts_with_its_first_event,
        a_cursor_passes_what_it_does_not_match,
        a_cursor_that_is_stored_goes_on_where_it_was,
        a_cursor_follows_the_log,
        a_cursor_backward_comes_to_an_end,
        a_stored_query_with_an_unknown_part_is_refused,
    }
    life () {
        a_deleted_stream_is_as_if_it_did_not_exist,
        an_archived_stream_is_read_on_request_only,
        what_is_not_live_takes_no_events,
        one_dead_stream_refuses_the_whole_append,
        a_change_of_state_checks_the_version,
        the_operations_can_be_repeated,
        a_deleted_stream_is_not_archived_nor_the_other_way,
        a_command_on_a_stream_that_is_not_live_is_decided_once,
        a_recorded_key_answers_also_when_its_stream_is_archived,
        removed_keys_are_new_again,
        any_story_of_streams_reads_like_its_model,
    }
    life_in_time (clock) {
        archiving_leaves_positions_as_of_times_as_they_were,
        time_does_not_go_back_behind_an_archived_event,
    }
}
