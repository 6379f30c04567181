//! Flow replication in `status`.

use std::{fmt::Write as _, time::Duration};

use super::output::{Cell, Grid, Rating, Style, cell, plain, rated};
use crate::{api::v1, console::peers};

/// A table of the peers, and what is not usual below it.
pub(super) fn render(of: &v1::Peers, style: Style) -> String {
    let headings = [
        "PEER",
        "STATE",
        "HASH KEY",
        "TABLES",
        ">FLOWS SENT",
        ">RECEIVED",
        ">BYTES SENT",
        ">RECEIVED",
        ">PENDING",
    ];
    let mut grid = Grid::new(style, &headings);
    for peer in &of.peers {
        grid.row([
            cell(&peer.address),
            state(peer),
            equal(peer.hash_key_equal, Rating::Bad),
            equal(peer.tables_equal, Rating::Doubtful),
            cell(peer.flows_sent),
            cell(peer.flows_received),
            cell(peer.bytes_sent),
            cell(peer.bytes_received),
            cell(peer.pending),
        ]);
    }
    // Writing to a string does not fail.
    let mut text = format!("\n{}", grid.render());
    if of.joining {
        text.push_str("joining: peers have not told yet which flows there are\n");
    }
    for (what, counts) in [("flows", &of.flows_refused), ("datagrams", &of.datagrams_refused)] {
        let counted = counts.iter().filter(|(_, count)| **count > 0);
        let refused: Vec<_> = counted.map(|(reason, count)| format!("{count} {}", plain(reason))).collect();
        if !refused.is_empty() {
            let _ = writeln!(text, "{what} of peers refused: {}", refused.join(", "));
        }
    }
    if !of.not_replicated.is_empty() {
        let names: Vec<_> = of.not_replicated.iter().map(|name| plain(name)).collect();
        let _ = writeln!(text, "not replicated (dnat, nat, or not tracked): {}", names.join(", "));
    }
    text
}

fn state(peer: &v1::Peer) -> Cell {
    let silent = peer.silent_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    rated(peers::state(peer.up, silent), if peer.up { Rating::Good } else { Rating::Bad })
}

fn equal(equal: Option<bool>, otherwise: Rating) -> Cell {
    let word = peers::equality(equal);
    match equal {
        Some(true) => rated(word, Rating::Good),
        Some(false) => rated(word, otherwise),
        None => cell(word),
    }
}
