//! What a service does when backends fail: the rows of docs/failures.md, each with real checks and real clients.

mod choice;
mod detection;
mod reject;
mod scene;
mod slow_start;
mod unproven;
