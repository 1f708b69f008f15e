//! One suite that every provider has to pass.
//!
//! A [`Fixture`] opens the two sides of a connection; a case drives both and checks what the
//! vocabulary of this crate promises. [`run`] runs the suite and gives a [`Report`];
//! [`conformance_tests!`](crate::conformance_tests) mounts every case as a test of its own.
//!
//! A case that cannot run, because a capability is absent, is a *skip with a reason*. A mount
//! lists its skips by name: one that is not listed fails, and so does one that is listed but runs.
//!
//! Where the vocabulary leaves a choice, the cases accept every choice: a bad local key may be
//! refused at posting or fail in the completion; an unsignalled request may free its place in the
//! queue early; an event may come for no reason.

mod report;
mod rig;

mod bind;
mod caps;
mod cm;
mod dead_key;
mod disconnect;
mod failure;
mod message;
mod order;
mod queue;
mod race;
mod read;
mod region;
mod reserve;
pub mod role;
mod shared;
mod token;
mod wait;
mod write;

use std::fmt::Debug;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

pub use report::{CaseReport, Failure, Outcome, Report};

use report::{Stop, Verdict};
use rig::Rig;

use crate::error::VerbsError;
use crate::provider::Provider;

/// The two sides of the connections to be made.
#[derive(Clone, Debug)]
pub struct Sides {
    /// Connects.
    pub active: Arc<dyn Provider>,
    /// Listens.
    pub passive: Arc<dyn Provider>,
}

/// Who polls the completion queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Poller {
    /// The thread of the case, both sides in turn.
    #[default]
    Caller,
    /// A thread for each connection end, which arms, polls and waits; the rule of
    /// [`CompletionQueue`](crate::CompletionQueue).
    Threads,
}

/// What the suite is to be run on.
pub trait Fixture: Debug + Send + Sync {
    /// Its name in reports.
    fn name(&self) -> String;

    /// Opens both sides: two instances, or one instance twice. Called once for each case.
    ///
    /// # Errors
    /// Why a side cannot be opened; the case fails.
    fn open(&self) -> Result<Sides, VerbsError>;

    /// Where the passive side listens.
    fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

    /// Another address of the passive side, for the case that speaks IPv6.
    ///
    /// # Errors
    /// Why there is none; the case is skipped.
    fn address_v6(&self) -> Result<IpAddr, String> {
        let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
        match std::net::TcpListener::bind((loopback, 0)) {
            Ok(_) => Ok(loopback),
            Err(error) => Err(format!("no IPv6 loopback on this machine: {error}")),
        }
    }

    /// Why a case must not be tried on this machine, for a defect below the provider: the case is
    /// skipped, with this reason.
    fn spared(&self, _case: &str) -> Option<String> {
        None
    }

    /// Round trips of the case that looks for lost wake-ups. The default finds a gap of a few
    /// nanoseconds; a fixture that runs beside others of its kind may ask for fewer.
    fn rounds(&self) -> u32 {
        50_000
    }

    /// Who polls.
    fn poller(&self) -> Poller {
        Poller::Caller
    }
}

/// One case of the suite.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    run: fn(&Rig<'_>) -> Verdict,
}

/// The list of cases, for those who mount them: calls the macro named with it.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_list {
    (($($callback:tt)+) $($argument:tt)*) => {
        $($callback)+! { [$($argument)*]
            caps { bits_agree_with_behaviour, limits_are_sane }
            cm {
                a_bound_id_has_an_ephemeral_port, a_port_in_use_is_refused,
                a_foreign_address_is_refused, listening_needs_a_bound_id,
                calls_out_of_order_are_refused, private_data_arrives_both_ways,
                too_much_private_data_is_refused, nobody_listens, no_way_there,
                the_listener_rejects, the_connector_rejects, a_full_backlog_rejects,
                a_dropped_listener_keeps_its_connections, both_ends_know_the_addresses,
                many_connections, both_sides_connect_at_once, descriptors_tell_of_events,
                a_wildcard_listener_is_found, ipv6_loopback
            }
            disconnect {
                by_the_connector, by_the_listener, by_both_at_once, twice_is_harmless,
                by_dropping_the_id, what_was_sent_is_delivered_first,
                what_was_sent_survives_a_drop, objects_are_dropped_in_any_order
            }
            message {
                arrive_in_order, lengths_from_nothing_to_the_largest, too_long_for_the_receive,
                too_long_for_the_provider, a_send_waits_for_a_receive,
                inline_bytes_are_free_at_once, gathered_from_several_elements,
                from_memory_without_a_key, receives_complete_with_their_own_ids, buffers_can_be_posted_again,
                a_buffer_of_another_connection_is_refused, a_posted_buffer_is_not_posted_again,
                a_dropped_buffer_stays_posted
            }
            reserve {
                a_reserved_buffer_is_sent, a_shorter_message_may_use_it,
                a_returned_buffer_is_not_lost, posted_in_another_order, too_large_is_refused,
                a_reservation_holds_up_no_earlier_message, a_buffer_of_another_connection_is_refused,
                what_has_been_sent_is_not_changed
            }
            queue {
                a_full_send_queue_says_so, a_full_receive_queue_says_so,
                unsignalled_success_is_silent, unsignalled_requests_free_their_places,
                posting_needs_a_connection, two_threads_may_post,
                attributes_beyond_the_limits_are_refused, too_many_elements_are_refused
            }
            wait {
                an_event_ends_a_wait, a_wait_times_out, an_event_before_the_wait_counts,
                wake_ends_a_wait, wake_before_the_wait_counts, ping_pong_of_two_threads,
                ping_pong_over_channels, a_channel_tells_once_per_arm,
                a_channel_tells_which_queue, a_disarmed_channel_is_silent,
                solicited_events_only, arms_are_independent,
                a_wait_leaves_sleepers_on_the_channel_alone
            }
            token {
                payload_puts_one_and_nothing_else, anything_else_is_an_event,
                what_is_quiet_is_nothing, behind_one_only_what_is_solicited_is_an_event,
                none_is_put_after_a_recall,
                without_a_socket_payload_is_an_event
            }
            read {
                a_whole_window, a_part, into_several_elements, large_and_unaligned,
                many_outstanding, of_nothing, beyond_the_window, of_a_key_never_given,
                without_the_right, into_memory_without_the_right,
                beyond_the_local_region, from_heap_memory, from_a_region_with_its_own_right
            }
            write {
                a_whole_window, a_part, from_several_elements, large_and_unaligned,
                is_there_before_the_message_behind_it, of_nothing_completes,
                of_nothing_to_a_peer_that_is_gone, beyond_the_window, without_the_right,
                from_memory_without_a_key
            }
            dead_key {
                after_local_inv, after_send_with_inv, after_the_window_is_dropped,
                after_the_region_is_dropped, after_set_error, after_the_queue_pair_is_dropped,
                a_window_is_bound_again, a_bound_window_is_not_bound_again,
                write_after_local_inv, an_old_key_stays_dead
            }
            bind {
                beyond_the_region, of_nothing, over_memory_that_allows_none,
                with_a_key_of_no_region, a_key_is_good_on_its_own_connection_only,
                another_connection_cannot_invalidate, another_queue_pair_cannot_invalidate,
                a_dead_key_cannot_be_invalidated
            }
            race {
                a_read_shows_nothing_that_came_after, a_write_changes_nothing_that_came_after
            }
            shared {
                completions_name_their_queue_pair, any_queue_pair_ends_a_wait,
                every_completion_goes_to_one_thread
            }
            order {
                completions_keep_the_order_of_posting, binds_keep_their_places, a_fence_waits_for_reads,
                a_key_travels_with_the_message_behind_its_bind
            }
            failure {
                set_error_flushes_everything_once, set_error_flushes_what_is_behind_a_bind,
                posting_after_an_error_is_refused,
                one_failure_flushes_the_rest, the_peer_notices_a_dropped_connection,
                no_receive_for_too_long
            }
            region {
                memory_is_zeroed_and_aligned, memory_can_be_large, rights_are_as_promised,
                keys_differ, windows_start_unbound
            }
            role {
                echo, lengths, stream_one_way, read_what_the_message_names,
                write_before_the_message, invalidated_by_the_answer, end_behind_the_data
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_mount {
    ([$fixture:ident $skips:tt $($ignored:literal)?]
        $($group:ident { $($case:ident),* $(,)? })*) => {
        $crate::conformance_mount! { @each [$fixture $skips $($ignored)?] $([$group $($case)*])* }
    };
    (@each $arguments:tt $([$group:ident $($case:ident)*])*) => {
        $(mod $group { $crate::conformance_mount! { @group $arguments $group $($case)* } })*
    };
    (@group $arguments:tt $group:ident $($case:ident)*) => {
        $($crate::conformance_mount! { @case $arguments $group $case })*
    };
    (@case [$fixture:ident $skips:tt $($ignored:literal)?] $group:ident $case:ident) => {
            #[test]
            $(#[ignore = $ignored])?
            fn $case() {
                $crate::conformance::mount(
                    &super::$fixture(),
                    concat!(module_path!(), "::", stringify!($case)),
                    concat!(stringify!($group), "::", stringify!($case)),
                    &$skips,
                );
            }
    };
}

/// Mounts every case as a test, in a module for each group of cases.
///
/// The first argument names a function in scope that gives the [`Fixture`]; the last lists the
/// cases that are expected to be skipped. A question mark behind a name says that it depends on
/// the machine whether the case can run. Between them, `ignored: "reason"` marks the tests so.
///
/// ```text
/// fn fixture() -> impl sdp_verbs::conformance::Fixture { MyFixture }
/// sdp_verbs::conformance_tests!(fixture, skips: ["read::from_heap_memory"]);
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:ident, $(ignored: $ignored:literal,)? skips: [$($skip:literal),* $(,)?]) => {
        $crate::conformance_list! { ($crate::conformance_mount) $fixture [$($skip),*] $($ignored)? }
    };
}

macro_rules! table {
    ([] $($group:ident { $($case:ident),* $(,)? })*) => {
        const CASES: &[Case] = &[$($(Case {
            name: concat!(stringify!($group), "::", stringify!($case)),
            run: $group::$case,
        }),*),*];
    };
}
conformance_list! { (table) }

/// Names of all cases, in the order in which they run.
pub fn case_names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}

/// Runs every case whose name contains `filter`, one after the other.
#[must_use]
pub fn run(fixture: &dyn Fixture, filter: &str) -> Report {
    let chosen = CASES.iter().filter(|case| case.name.contains(filter));
    Report {
        fixture: fixture.name(),
        cases: chosen.map(|case| run_case(fixture, case)).collect(),
    }
}

fn run_case(fixture: &dyn Fixture, case: &Case) -> CaseReport {
    let start = Instant::now();
    let verdict = match fixture.spared(case.name) {
        Some(reason) => Err(Stop::Skipped(reason)),
        None => Rig::new(fixture).and_then(|rig| (case.run)(&rig)),
    };
    CaseReport {
        name: case.name,
        took: start.elapsed(),
        outcome: match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Skipped(reason)) => Outcome::Skipped(reason),
            Err(Stop::Failed(failure)) => Outcome::Failed(failure),
        },
    }
}

/// Runs one case as a test. What [`conformance_tests!`](crate::conformance_tests) calls. A skip is
/// told as the line `skipped TEST: REASON`, past the harness, which counts it as passed; `test` is the
/// path of the test, its crate's name included.
///
/// # Panics
/// If the case fails, if it is skipped without being listed in `skips`, if it is listed there
/// without a question mark but runs, and if there is no such case.
pub fn mount(fixture: &dyn Fixture, test: &str, name: &str, skips: &[&str]) {
    let case = CASES.iter().find(|case| case.name == name);
    let Some(case) = case else {
        panic!("there is no conformance case {name}");
    };
    for skip in skips {
        let known = case_names().any(|name| name == skip.trim_end_matches('?'));
        assert!(
            known,
            "the list of skips names {skip}, which is no conformance case"
        );
    }
    let report = run_case(fixture, case);
    let must_skip = skips.contains(&name);
    let may_skip = must_skip
        || skips
            .iter()
            .any(|skip| skip.strip_suffix('?') == Some(name));
    match &report.outcome {
        Outcome::Failed(_) => panic!("{}: {report}", fixture.name()),
        Outcome::Skipped(_) if !may_skip => {
            panic!("{}: not in the list of skips: {report}", fixture.name());
        }
        Outcome::Passed if must_skip => {
            panic!(
                "{}: in the list of skips, but it runs: {report}",
                fixture.name()
            );
        }
        Outcome::Passed => {}
        Outcome::Skipped(reason) => {
            let test = test.split_once("::").map_or(test, |(_, path)| path);
            let line = format!("\nskipped {test}: {reason}\n");
            io::stdout()
                .write_all(line.as_bytes())
                .expect("standard output can be written");
        }
    }
}
