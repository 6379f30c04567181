//! What a service does when backends fail, with real checks and real clients. Each row of the failure table has a test here or
//! elsewhere whose name says it:
//!
//! | Condition | |
//! |---|---|
//! | one backend unhealthy | `lab_flows`: `one_backend_unhealthy_keeps_its_connections_...`; UDP in `datagrams_to_a_dead_backend_...` |
//! | too few healthy | `too_few_healthy_panic_at_a_half_...`, `too_few_healthy_call_the_backup_...` |
//! | all unhealthy | `all_unhealthy_fail_open_or_drop_...`, `all_unhealthy_with_reject_...` |
//! | new backend | `new_backends_get_no_traffic_before_their_first_passed_check_...` |
//! | no backend enabled | `no_backend_enabled_drops_packets_...` |
//! | drain | `lab_flows`: `a_drain_lets_connections_be_until_its_timeout_...`; `lab_commands` |
//! | flapping | `flapping_is_told_in_time_each_way_...`; publishes in `lab_thousand`: `flapping_of_a_thousand_backends_...` |
//! | slow start | `slow_start_gives_a_backend_that_comes_back_...` |
//! | flow table full | `lab_flows`: `a_flow_table_full_twenty_times_over_...` |
//! | controller gone | `lab_lifecycle`: `controller_gone_...`; at any moment in `lab_thousand`, `lab_flows::restarts` |
//! | interface deleted and made again, or link flaps | `lab_lifecycle`: `an_interface_that_was_deleted_and_made_again_...`; `lab_host`: `a_link_that_goes_down_and_comes_up_again_...` |
//! | the kernel has dropped a link's neighbours | `a_backend_keeps_its_mac_address_over_a_lost_link_...` |
//! | no interface has a link | `a_link_that_flaps_makes_no_backend_unhealthy_...`, `a_backend_that_died_while_the_link_was_down_...`, `while_one_of_two_interfaces_has_a_link_...`, `a_first_start_without_a_link_...`, `a_start_without_a_link_waits_for_addresses_...` |
//! | foreign XDP program on the interface | `lab_lifecycle`: `a_foreign_xdp_program_...` |
//! | a backup gives way to the others again | `lab_flows`: `a_backup_that_gives_way_...` |
//! | where backends are found does not answer | `lab_discovery`: `backends_follow_the_dns_and_its_death_...`, `backends_follow_the_file_and_a_broken_...` |

mod choice;
mod detection;
mod links;
mod next_hops;
mod reject;
mod scene;
mod slow_start;
mod unproven;
