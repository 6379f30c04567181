//! What a service does when backends fail, with real checks and real clients. Where the rows of the failure table are tried:
//!
//! | Condition | |
//! |---|---|
//! | one backend unhealthy | `detection`; its flows in `lab_flows::commands` and `lab_flows::hostile` |
//! | too few healthy | `choice` |
//! | all unhealthy | `choice`, `reject` |
//! | new backend | `unproven` |
//! | no backend enabled | `unproven` |
//! | drain | `lab_flows::commands`, `lab_commands` |
//! | flapping | `detection`; publishes in `lab_thousand::toggling` |
//! | slow start | `slow_start` |
//! | flow table full | `lab_flows::hostile` |
//! | controller gone | `lab_lifecycle`, `lab_flows::restarts`, `lab_thousand` |
//! | interface deleted and made again, or link flaps | `lab_lifecycle`, `lab_host::interfaces` |
//! | foreign XDP program on the interface | `lab_lifecycle` |

mod choice;
mod detection;
mod reject;
mod scene;
mod slow_start;
mod unproven;
