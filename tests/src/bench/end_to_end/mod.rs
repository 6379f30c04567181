//! End to end: what a load costs the machine with each contender between clients and backends, how long answers take, and
//! what a backend's death does to clients. docs/performance.md says how to read it.

mod bed;
mod clock;
mod configuration;
pub(crate) mod connection;
mod contender;
mod death;
mod judge;
mod load;
mod machine;
mod measure;
mod others;
mod results;

use std::path::Path;

use anyhow::{Result, ensure};

use bed::Bed;
use load::Kind;
use machine::ClockCheck;
pub(super) use results::Results;

pub(super) const REQUESTS: &str = "end-to-end/requests";
pub(super) const CONNECTIONS: &str = "end-to-end/connections";
pub(super) const DEATH: &str = "end-to-end/death";

/// Rounds unless told otherwise.
const ROUNDS: u32 = 10;
/// A death takes long to look at, and is looked at once in as many rounds.
const ROUNDS_A_DEATH: u32 = 5;

/// Measures what `wanted` names, with this `ballast`; nothing if that is none of it.
pub(super) fn run(
    wanted: impl Fn(&str) -> bool,
    rounds: Option<u32>,
    ballast: &Path,
) -> Result<Option<Results>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    ensure!(rounds > 0, "no round is no measurement");
    let kinds: Vec<_> = [(CONNECTIONS, Kind::Connections), (REQUESTS, Kind::Requests)]
        .into_iter()
        .filter_map(|(name, kind)| wanted(name).then_some(kind))
        .collect();
    if kinds.is_empty() && !wanted(DEATH) {
        return Ok(None);
    }
    let clock = if kinds.is_empty() { None } else { Some(ClockCheck::run()?) };
    let mut bed = Bed::build(ballast)?;
    let loads = measure::run(&bed, &kinds, rounds)?;
    let mut results = Results { clock, loads, deaths: Vec::new() };
    if wanted(DEATH) {
        match death::run(&mut bed, rounds.div_ceil(ROUNDS_A_DEATH)) {
            Ok(deaths) => results.deaths = deaths,
            Err(error) => {
                // What half an hour of measuring has brought is not to be lost.
                results.text().iter().for_each(|part| eprintln!("{part}\n"));
                return Err(error.context("measure the deaths of backends"));
            }
        }
    }
    Ok(Some(results))
}
