//! The columns about traffic: totals, or under `--watch` what passes in a second.

use super::{
    backend::count,
    output::{Cell, cell},
};
use crate::console::{rates::Rate, units};

/// Headings of the columns; `watched` when they are rates.
pub(super) fn headings(watched: bool) -> [&'static str; 3] {
    if watched { RATES } else { TOTALS }
}

/// `rate`: `None` outside of a watch, `Some(None)` where it is not known yet.
pub(super) fn cells(
    packets: u64,
    bytes: u64,
    new_flows: Option<u64>,
    rate: Option<Option<Rate>>,
) -> [Cell; 3] {
    let Some(rate) = rate else { return [cell(packets), cell(bytes), cell(count(new_flows))] };
    let shown = |rate: Option<f64>| cell(rate.map_or_else(|| "-".to_owned(), units::rate));
    [
        shown(rate.map(|rate| rate.packets)),
        shown(rate.map(|rate| rate.bits)),
        shown(rate.and_then(|rate| rate.new_flows)),
    ]
}

const TOTALS: [&str; 3] = [">PACKETS", ">BYTES", ">NEW FLOWS"];
const RATES: [&str; 3] = [">PACKETS/S", ">BITS/S", ">NEW FLOWS/S"];
