//! What goes wrong around a balancer, and that it goes on: the engine by script, replicas and
//! networks for real.
//!
//! | fault | where it is tested |
//! |---|---|
//! | engine restarts, hangs, is unreachable or unusable | [`gone`], `docker::restart`, `docker::look` |
//! | events lost, late, doubled, too many | [`events`] |
//! | answers 500, 409, 404, 304, cut, lost; names taken | [`answers`] |
//! | replica killed, ends by itself, out of memory | [`deaths`], `docker`, `docker::look`, `fleet` |
//! | requests that kill replicas | [`deadly`] |
//! | exit loops, starts that never end | `fleet`, `heal::status`, `heal::undo` |
//! | hung, paused, woken up too late | `heal::hung`, `docker::look` |
//! | slow starts, ports that never open | [`deaths`], `heal::status` |
//! | flapping, errors to all or to probes only | `heal::outliers`, `heal::panic`, `heal::unwell` |
//! | one slow, its queue full; all overloaded | `overload`, [`neighbours`] |
//! | images missing, registries slow or refusing | `docker::pull`, `docker` |
//! | an operator's stop, restart, removal | `docker`, `docker::look`, [`events`] |
//! | a stranger at a dead one's address, packets dropped, all dead | [`neighbours`] |
//! | balancer killed in `/add`, `/rm`, an update; started again; stopped under load | `docker::leaving`, `docker::roll`, [`deaths`], [`neighbours`] |
//! | an engine or clients that hang during a shutdown | [`shutdown`] |
//! | two balancers on one engine | `docker::pair`, `pool` |
//! | many changes at once, thousands of replicas | [`crowd`], `heal::many` |
//! | bad names, bad bodies, foreign pages | `contract`, `guard`, [`deaths`] |
//! | logs that cannot be written, control characters | [`text`] |
//! | no descriptors left | [`descriptors`] |
//!
//! The faults of daily operation, numbered from 38: the table above covers faults 1 to 37.
//!
//! | # | fault | correct outcome | tests |
//! |---|---|---|---|
//! | 38 | one of two balancers of a pool stops | all replicas stay, no request fails; the last one removes replicas, network and leases | `pool::leaving::a_stop_leaves_the_replicas_to_the_other_balancer_and_the_last_one_removes_them`, `docker::pair::a_second_balancer_joins_and_leaves_and_no_request_fails` |
//! | 39 | both stop at once, or one beside one that has just died | the replicas are removed, once | `pool::leaving::of_balancers_that_stop_at_once_one_removes_everything`, `pool::leaving::a_stop_beside_a_balancer_that_just_died_removes_everything`, `fleet::members::tests::replicas_are_removed_by_the_last_balancer_and_by_no_other` |
//! | 40 | two unrelated balancers on one engine | a pool each; neither touches the replicas of the other | `pool::unrelated_balancers_have_pools_of_their_own` |
//! | 41 | a second balancer without a shared pool | waits until the lease expires or is renewed; then exit code 1, with the holder's name | `pool::a_second_balancer_without_a_shared_pool_is_refused_and_told_who_holds_it`, `pool::the_lease_of_a_dead_balancer_expires_and_a_start_waits_for_that`, `fleet::members::tests::a_pool_that_is_not_shared_has_one_balancer_at_a_time` |
//! | 42 | `kill -9` of the balancer after `/add`, `/rm` or a rollout | the same address takes over at once and restores the number and the release, or applies a configuration that has changed; the log says which | `pool::restore::after_a_kill_the_last_requested_number_is_restored_at_once`, `pool::restore::after_a_kill_a_requested_release_is_restored`, `pool::restore::a_configuration_that_has_changed_applies_instead`, `pool::restore::a_clean_stop_ends_what_was_requested_and_one_that_keeps_replicas_does_not`, `docker::pair::a_killed_balancer_takes_its_pool_over_at_once_and_another_one_waits_or_is_refused` |
//! | 43 | replicas disappear, also all of them, without an `/rm` | their seats are filled again, with a warning each; seats that `/rm` gave up stay given up | `pool::leaving::all_replicas_that_disappear_at_once_are_replaced`, `pool::leaving::replicas_that_a_stopping_balancer_takes_with_it_are_replaced_with_a_warning`, `pool::leaving::a_seat_that_one_balancer_was_asked_to_give_up_is_given_up_by_the_other` |
//! | 44 | leases pruned (`docker volume prune`) | back with the next renewal; no member counts as gone | `pool::a_lease_that_is_pruned_comes_back_and_no_member_counts_as_gone` |
//! | 45 | the engine hangs for longer than a lease lasts | no member expires: only observed time counts | `fleet::members::tests::time_in_which_the_engine_could_not_be_asked_does_not_count` |
//! | 46 | containers of an earlier version | adopted once, and not from a living holder | `pool::restore::containers_of_an_earlier_version_are_adopted_once_and_not_from_a_living_balancer` |
//! | 47 | a killed balancer leaves containers and a network | `balancer clean` lists, asks and removes; refused while a holder lives | `pool::clean::what_a_killed_balancer_left_is_listed_and_removed`, `pool::clean::another_pool_is_left_alone`, `docker::pair::what_a_killed_balancer_left_is_removed_by_clean` |
//! | 48 | a socket proxy denies volumes | the balancer runs without leases and warns | `pool::where_volumes_are_denied_a_balancer_runs_without_leases_and_says_so` |
//! | 49 | a new image passes health checks and answers 500 | rolled back after one replica, the old one of the seat serves at once; a correcting rollout is accepted at any time | `heal::rollout::a_release_that_answers_500_is_rolled_back_by_itself_and_can_be_corrected_meanwhile`, `docker::rollout::an_image_that_answers_500_is_rolled_back_by_itself_and_every_seat_serves_on` |
//! | 50 | the HEALTHCHECK of an image fails or has not passed | never ready; a rollout of it is rolled back; no 503 | `docker::rollout::an_image_whose_health_check_fails_is_never_ready_and_rolled_back_and_no_request_fails`, `docker::rollout::an_image_whose_health_check_passes_is_ready_when_it_has` |
//! | 51 | an image exits shortly after it was ready | rolled back, no request fails | `docker::rollout::an_image_that_exits_shortly_after_it_was_ready_is_rolled_back_and_no_request_fails`, `heal::rollout::a_release_that_exits_shortly_after_it_was_ready_is_rolled_back_and_no_request_fails`, `fleet::roster::tests::roll::replicas_that_die_while_they_are_monitored_or_later_roll_back` |
//! | 52 | a tag moves, or is broken | replacements, `/add` and restarts run the pinned image ID; a rollback needs no tag | `docker::rollout::a_tag_that_moves_is_picked_up_by_a_rollout_only_and_a_rollback_needs_no_tag` |
//! | 53 | a restart or reload with another image, environment, command or limit | the difference is logged without secrets; rolled out or warned of; never mixed by a crash | `docker::rollout::a_restart_with_another_environment_rolls_it_out_or_warns_of_it`, `heal::rollout::a_changed_file_is_rolled_out_and_its_difference_is_logged_without_secrets` |
//! | 54 | a rollout is superseded, paused or rolled back at any moment | no seat loses its ready replica; it falls back on the last good release | `fleet::roster::tests::walk::no_rollout_ever_takes_a_seat_out_of_service`, `heal::rollout::a_rollout_can_be_paused_resumed_and_rolled_back_even_when_it_is_done` |
//! | 55 | a request kills the replica that processes it, again and again | two replicas die at most; then 502 without an attempt; all other requests succeed | `faults::deadly::a_request_that_kills_replicas_never_takes_more_than_two`, `faults::deadly::the_client_is_told_why_and_after_the_cool_down_period_one_more_replica_dies_at_most` |
//! | 56 | an operator kills several replicas at once under load | no request fails, none is quarantined | `faults::deadly::requests_in_flight_at_replicas_that_an_operator_kills_are_not_blamed` |
//! | 57 | the ready replica refuses connections, the ejected one works | the ejected one answers, whatever the method | `heal::last_resort::an_ejected_server_that_works_answers_where_the_ready_one_refuses`, `heal::last_resort::requests_of_http_2_clients_have_the_same_last_resort` |
//! | 58 | all replicas fail their health checks, some work | asked in ring order; 503 only if none can be connected to | `heal::last_resort::servers_that_fail_their_health_checks_answer_where_none_is_ready` |
//! | 59 | `send = "all"`, one of three servers killed | the request waits; after the restart all three have it | `routes::members::a_server_that_is_down_gets_every_request_once_it_is_back` |
//! | 60 | `send = "all"`, an owned replica killed | the next replica of the seat gets the request | `routes::members::the_next_replica_of_a_seat_gets_what_the_killed_one_missed` |
//! | 61 | `send = "all"`, the member that is down is removed | the request is answered | `routes::members::a_member_that_is_removed_leaves_the_delivery` |
//! | 62 | a member is down for long | deliveries are bounded; beyond the limit 503 | `routes::members::more_deliveries_than_allowed_are_refused` |
//! | 63 | a stop with undelivered requests | reported within `timeouts.drain` | `routes::members::a_balancer_that_stops_reports_what_it_could_not_deliver` |
//! | 64 | a replica authenticates connections | no client gets the session of another; login works; both connections end together | `conformance::binding::a_login_binds_one_connection_to_the_client_and_no_other_client_gets_it`, `conformance::binding::both_connections_end_together`, `tls::binding::a_challenge_for_a_connection_sends_the_client_to_http_1` |
//! | 65 | standard error is not read | requests, `/rep` and SIGTERM go on; lines are dropped, counted and reported | `logging::a_log_that_is_not_read_delays_no_request_and_its_dropped_lines_are_reported`, `logging::a_balancer_whose_log_is_not_read_stops_in_time_and_with_all_its_replicas`, `logging::a_second_signal_ends_a_balancer_whose_log_is_not_read` |
//! | 66 | standard output is not read while process replicas write | replicas never wait, the log goes on | `logging::output_of_replicas_that_is_not_read_stops_neither_them_nor_the_balancer` |
//! | 67 | `kill -9` of a script that started servers | the rest of the tree is killed, then the seat is filled once | `trees::what_a_killed_script_leaves_behind_is_killed_before_its_seat_is_filled` |
//! | 68 | a clean stop, or `kill -9` of the balancer, with such a tree | nothing is left | `trees::a_clean_stop_leaves_nothing`, `trees::a_balancer_that_is_killed_leaves_nothing` |
//! | 69 | `kill -9` of the shim of a replica | the tree is killed, the seat is filled once | `trees::a_shim_that_is_killed_leaves_nothing_and_its_seat_is_filled_once` |
//! | 70 | orphans of others (PID 1 in a container) | reaped | `trees::children_that_the_balancer_inherits_do_not_stay_zombies` |
//! | 71 | `--command` does not exist or is not executable | exit code 1 at the start, with field and value | `trees::a_command_that_cannot_be_run_is_an_error_at_the_start` |
//! | 72 | the balancer is started with open descriptors and ignored signals | replicas have none of them | `trees::a_replica_inherits_no_descriptors_and_no_signal_settings` |
//! | 73 | a server answers 404 to health checks | the reason within one probe: log and event once per change, `/admin/fleet` | `heal::reasons::a_server_that_answers_404_to_health_checks_is_reported_once_per_reason` |
//! | 74 | a wrong health path, or a program that never listens | the errors of `/add` and of the rollout have the last reason | `heal::reasons::a_wrong_health_path_is_in_the_errors_of_add_and_of_a_rolling_update` |
//! | 75 | a reason flaps with every probe | five reports at most, then one in 10 s, per replica | `heal::reasons::a_reason_that_flaps_does_not_flood_the_log` |
//! | 76 | a container is disconnected from its network | out of the table at once, with the reason; back when it is connected | `faults::events::a_container_that_loses_its_network_leaves_the_table_at_once_and_says_why`, `docker::heal::a_container_taken_off_its_network_is_out_at_once_and_says_why` |
//! | 77 | the name of a listed server does not resolve | listed as `starting` with the error; the others serve | `listed::a_name_is_shown_as_it_was_written_and_one_that_is_unknown_stops_nothing` |
//! | 78 | a health response with an endless, huge or cut body | judged by its head | `prober::tests::a_body_is_not_waited_for_whatever_its_length_or_framing`, `heal::reasons::health_checks_name_the_server_and_do_not_wait_for_a_body` |
//! | 79 | an image cannot be pulled | `image pulled` is not logged | `faults::answers::an_image_counts_as_pulled_only_when_it_is` |
//! | 80 | the engine is absent or hangs at the start | awaited for `engine.wait`, logged once; then exit code 1 that says which; SIGTERM ends the wait | `faults::gone::an_engine_that_appears_after_two_seconds_is_awaited`, `faults::gone::an_engine_that_does_not_appear_ends_the_balancer_which_says_whether_it_is_absent_or_hangs`, `faults::gone::an_engine_that_tells_its_version_and_hangs_at_all_else_hangs`, `faults::gone::a_balancer_that_waits_for_its_engine_ends_at_once_when_it_is_told_to` |
//! | 81 | the engine hangs during a shutdown | ends at `timeouts.shutdown`, exit code 1, replicas left behind are named | `faults::shutdown::an_engine_that_hangs_does_not_prolong_a_shutdown`, `faults::shutdown::a_network_that_cannot_be_removed_does_not_prolong_a_shutdown` |
//! | 82 | clients that never end during a shutdown | closed after `timeouts.drain`, exit code 0 | `faults::shutdown::clients_that_never_end_do_not_prolong_a_shutdown_and_are_no_failure` |
//! | 83 | an admin call to the traffic listener beside `admin.listen` | 404, never at a replica | `guard::with_a_listener_of_their_own_the_balancers_paths_are_not_found_on_the_other` |
//! | 84 | the configuration file is truncated | ignored, logged once | `routes::reload::a_file_that_has_become_empty_changes_nothing` |
//! | 85 | more clients than descriptors | 200 or an explained 503; `/rep` works; nothing is ejected | `faults::descriptors::more_clients_than_fit_get_200_or_an_explained_503_and_the_admin_routes_work` |
//! | 86 | readers of `/metrics` and events that do not read | 150 hold little memory | `metrics::readers_that_do_not_read_hold_little_memory` |
//! | 87 | two balancers point at each other; a balancer among its own servers | 508 after one round, nothing is ejected; never ready | `conformance::loops::two_balancers_that_point_at_each_other_answer_508_after_one_round`, `conformance::loops::a_balancer_among_its_own_servers_is_never_ready` |
//! | 88 | a response with too many fields | 502 with the reason, no ejection | `conformance::limits::a_response_with_too_many_fields_is_502_with_the_reason_and_ejects_nobody` |
//! | 89 | link variables in the environment | ignored, with one warning | `cli::link_variables_of_kubernetes_and_docker_are_ignored_with_one_warning` |
//!
//! That the clock may jump is nowhere tested: nothing but log lines and dates looks at the time of
//! day, and the freshness of an engine's event, which then waits for the next listing.

mod answers;
mod crowd;
mod deadly;
mod deaths;
mod descriptors;
mod events;
mod gone;
mod neighbours;
mod shutdown;
mod text;

use std::time::Duration;

use crate::load::{Load, greeting, seat_in};
use crate::support::{Balancer, wait_for};

/// Waits until these seats, and no others, answer for sixty keys.
fn wait_for_seats(balancer: &Balancer, seats: &[u32]) {
    wait_for(&format!("seats {seats:?} to answer"), || {
        let mut answered: Vec<u32> =
            (0..60).map_while(|id| seat_in(&greeting(balancer, id))).collect();
        let all = answered.len() == 60;
        answered.sort_unstable();
        answered.dedup();
        (all && answered == seats).then_some(())
    });
}

/// The processor time that a process has used so far.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    // Fields 14 and 15 of the line, counted from 1; the third is the first after the name.
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    // Linux has told them in hundredths of a second for ever (USER_HZ).
    Duration::from_millis(ticks * 10)
}
