//! The list of all behaviours, from which the suite and the crate's own tests are made.

use super::{
    Behaviour, Needs, append, cache, clock, close, evolution, execute, idempotency, laws, life,
    life_in_time, load, model, options, order, query, read, snapshots, stores::Stores, unit,
    verify,
};
use crate::{Clock, EventStore, Options};

/// Hands the list to a macro. A behaviour takes the store; of a theme with `(clock)`, also the clock
/// that the store was opened with; of one with `(stores)`, what opens stores.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_behaviours {
    ($callback:ident) => {
        $callback! {
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
                the_key_settles_what_became_of_an_append,
            }
            cache () {
                what_others_append_is_decided_on,
                a_command_without_events_knows_what_others_appended,
                a_load_knows_what_others_appended,
                what_was_not_recorded_is_not_remembered,
                a_dropped_command_leaves_no_trace_in_the_cache,
                whatever_is_done_comes_to_the_same_without_a_cache,
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
            evolution () {
                each_version_loads_as_what_it_became,
                renamed_types_and_fields_load,
                the_parts_of_a_split_event_are_applied_in_order,
                a_dropped_event_counts_as_a_version,
                commands_are_decided_on_what_old_events_became,
                as_of_a_version_old_events_count_too,
                an_old_payload_that_does_not_fit_is_named,
            }
            close () {
                a_closed_store_is_closed_for_all_its_clones,
                closing_twice_is_no_error,
                closing_records_what_was_accepted_and_nothing_else,
            }
            execute () {
                a_command_leads_to_events,
                a_rejected_command_is_decided_once_and_records_nothing,
                a_command_that_starts_a_stream_knows_one_that_exists,
                later_commands_of_a_lot_see_the_events_of_earlier_ones,
                a_lot_reports_what_the_log_holds,
                a_lot_without_commands_records_nothing,
                commands_without_events_record_nothing,
                a_command_for_an_impossible_stream_fails_alone,
                what_is_said_about_a_command_is_said_of_its_events_only,
                a_command_that_lost_is_decided_again_on_the_new_state,
                a_conditional_command_is_decided_at_its_version_only,
                one_of_many_conditional_commands_wins,
                concurrent_increments_are_all_counted,
                concurrent_lots_stay_whole,
            }
            options (stores) {
                a_conflict_is_reported_after_the_last_attempt,
                the_limits_that_are_set_are_kept,
                keys_are_forgotten_when_their_time_is_over,
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
                lots_that_meet_under_their_keys_are_all_answered,
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
            order () {
                readers_see_every_event_once_and_in_order,
                a_refused_append_holds_no_reader_back,
                a_reader_of_one_category_passes_what_it_does_not_match,
                a_reader_that_starts_again_repeats_and_skips_nothing,
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
            snapshots () {
                a_load_with_snapshots_equals_a_fold_of_all,
                a_snapshot_by_hand_is_of_the_state_as_it_is,
                a_snapshot_of_another_shape_is_ignored,
                a_snapshot_from_before_another_fold_is_ignored,
                an_aggregate_without_snapshots_refuses_one,
            }
            unit () {
                commands_on_several_aggregates_are_recorded_together,
                a_unit_sees_its_own_events,
                what_is_dropped_or_rolled_back_leaves_nothing,
                a_unit_rests_on_all_that_it_loaded,
                a_unit_that_only_reads_holds_what_it_read,
                expectations_are_of_what_the_unit_sees,
                a_bad_append_leaves_the_unit_as_it_was,
                keys_of_commands_count_in_a_unit,
                a_unit_under_a_key_is_done_once,
                concurrent_units_under_one_key_are_recorded_once,
                a_unit_that_was_overtaken_under_its_key_is_not_refused,
                concurrent_transfers_keep_the_sum,
                a_unit_is_done_again_after_a_conflict_only,
                limits_hold_for_the_unit_as_a_whole,
            }
            query () {
                a_query_finds_what_a_filter_over_the_log_finds,
                pages_of_any_size_lead_to_the_same_events,
                reading_from_a_time_starts_with_its_first_event,
                an_event_is_found_by_its_id,
                a_cursor_passes_what_it_does_not_match,
                a_cursor_that_is_stored_goes_on_where_it_was,
                a_cursor_follows_the_log,
                a_cursor_backward_comes_to_an_end,
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
                a_command_on_a_dead_stream_fails_alone,
                a_recorded_key_answers_also_when_its_stream_is_archived,
                a_command_under_a_recorded_key_needs_no_stream,
                what_is_cached_knows_what_became_of_its_stream,
                a_snapshot_does_not_bring_a_stream_back,
                a_unit_knows_what_became_of_its_streams,
                removed_keys_are_new_again,
                any_story_of_streams_reads_like_its_model,
            }
            life_in_time (clock) {
                archiving_leaves_positions_as_of_times_as_they_were,
                time_does_not_go_back_behind_an_archived_event,
            }
            verify () {
                a_sound_store_has_no_findings,
                what_cannot_be_decoded_is_found,
            }
            model (stores) {
                a_store_does_what_the_one_in_memory_does,
                a_lot_is_what_its_commands_are_one_after_the_other,
            }
            laws (stores) {
                a_load_is_a_fold_of_what_was_recorded,
                pages_of_any_size_make_up_the_log,
                a_retried_append_counts_once,
                what_is_written_comes_back,
                concurrent_appends_are_as_if_one_after_the_other,
            }
        }
    };
}

macro_rules! list {
    ($($theme:ident $takes:tt { $($behaviour:ident),* $(,)? })*) => {
        vec![$($(
            Behaviour {
                theme: stringify!($theme),
                name: stringify!($behaviour),
                needs: needs!($takes),
                run: |stores| Box::pin(async move { run!($takes $theme $behaviour stores) }),
            },
        )*)*]
    };
}

macro_rules! needs {
    (()) => {
        Needs::Store
    };
    ((clock)) => {
        Needs::SuppliedClock
    };
    ((stores)) => {
        Needs::Stores
    };
}

macro_rules! run {
    (() $theme:ident $behaviour:ident $stores:ident) => {{
        let store = open($stores.as_ref(), EventStore::options()).await;
        $theme::$behaviour(&store).await
    }};
    ((clock) $theme:ident $behaviour:ident $stores:ident) => {{
        let clock = clock::start();
        let options = EventStore::options().clock(Clock::supplied(clock.clone()));
        let store = open($stores.as_ref(), options).await;
        $theme::$behaviour(&store, &clock).await
    }};
    ((stores) $theme:ident $behaviour:ident $stores:ident) => {
        $theme::$behaviour($stores.as_ref()).await
    };
}

/// All behaviours.
pub(super) fn all() -> Vec<Behaviour> {
    __conformance_behaviours!(list)
}

/// Opens a store for a behaviour.
pub(super) async fn open(stores: &dyn Stores, options: Options) -> EventStore {
    match stores.open(options).await {
        Ok(store) => store,
        Err(error) => panic!("no store can be opened: {error} ({error:?})"),
    }
}
