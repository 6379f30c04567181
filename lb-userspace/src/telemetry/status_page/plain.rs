//! The page for browsers that run no script: tables, as they were when it was asked for.

use std::fmt::{self, Display, Formatter, Write};

use super::{
    document::{Backend, Document, Service},
    network::{Fleet, Peer, Peers},
};
use crate::console;

/// What stands in `<noscript>`.
pub(super) fn render(document: &Document<'_>) -> String {
    let mut html = String::new();
    // Writing to a String can't fail.
    let _ = write(&mut html, document);
    html
}

fn write(html: &mut String, document: &Document<'_>) -> fmt::Result {
    let ready = if document.ready { "ready" } else { "NOT READY" };
    let current = if document.config_current { "current" } else { "NOT WHAT RUNS" };
    writeln!(
        html,
        "<p>Ballast {} on {}: revision {}, {ready}, configuration {current}. Without scripts this page shows counts and no \
         rates, and loads itself again every 10 seconds.</p>",
        document.version,
        Escaped(&document.host),
        document.revision,
    )?;
    if document.checks_held {
        html.push_str("<p>FAILED HEALTH CHECKS DON'T COUNT: no interface has a link, or has had one for a moment only</p>\n");
    }
    services(html, &document.services)?;
    backends(html, &document.services)?;
    table(html, "Interfaces", &["Interface", "Mode", "Attached"])?;
    for interface in &document.interfaces {
        let attached = if interface.attached { "yes" } else { "NO" };
        row(html, &[&interface.name, &interface.mode, &attached])?;
    }
    html.push_str("</tbody></table>\n");
    network(html, document)?;
    table(html, "Packets dropped", &["Reason", "Packets", "Means"])?;
    for dropped in document.drops.iter().filter(|dropped| dropped.count > 0) {
        row(html, &[&dropped.reason, &dropped.count, &dropped.meaning])?;
    }
    html.push_str("</tbody></table>\n");
    Ok(())
}

/// VIPs that are announced or held, the fleet and peers, where there are such.
fn network(html: &mut String, document: &Document<'_>) -> fmt::Result {
    let announced = document.announce.iter().flat_map(|announce| &announce.vips);
    let announced = announced.map(|one| match (one.announced, one.reason) {
        (true, None) if one.kept => (one.vip, "ANNOUNCED, AND LACKS BACKENDS".to_owned()),
        (true, None) => (one.vip, "announced".to_owned()),
        (true, Some(reason)) => (one.vip, format!("ANNOUNCED BY ANOTHER ROUTE ({reason})")),
        (false, reason) => (one.vip, format!("NOT ANNOUNCED ({})", reason.unwrap_or_default())),
    });
    let held = document.held.iter().map(|one| match one.rival {
        true => (one.vip, "SPLIT BRAIN: held here and elsewhere".to_owned()),
        false => (one.vip, "held here".to_owned()),
    });
    let vips: Vec<_> = announced.chain(held).collect();
    if !vips.is_empty() {
        table(html, "VIPs", &["VIP", "Is"])?;
        vips.iter().try_for_each(|(vip, is)| row(html, &[vip, is]))?;
        html.push_str("</tbody></table>\n");
    }
    document.fleet.iter().try_for_each(|of| fleet(html, of))?;
    document.peers.iter().try_for_each(|of| peers(html, of))
}

fn fleet(html: &mut String, fleet: &Fleet) -> fmt::Result {
    let connected = if fleet.connected { "connected to etcd" } else { "CUT OFF FROM ETCD" };
    let refuses = if fleet.refuses { ", REFUSES WHAT ETCD HAS" } else { "" };
    let unheard = if fleet.unheard { ", DOES NOT HEAR OF THIS HOST" } else { "" };
    writeln!(
        html,
        "<p>The fleet: {connected}{refuses}{unheard}, {} members, of which {} lag behind or differ.</p>",
        fleet.members, fleet.marked
    )
}

fn peers(html: &mut String, of: &Peers) -> fmt::Result {
    let headings =
        ["Peer", "State", "Hash key", "Tables", "Flows sent", "Flows received", "Messages pending"];
    table(html, "Flow replication", &headings)?;
    for peer in &of.peers {
        let Peer { address, state, flows_sent, flows_received, pending, .. } = peer;
        let [key, tables] = [peer.hash_key_equal, peer.tables_equal].map(console::peers::equality);
        row(html, &[address, state, &key, &tables, flows_sent, flows_received, pending])?;
    }
    html.push_str("</tbody></table>\n");
    match of.joining {
        true => writeln!(html, "<p>JOINING: peers have not told yet which flows there are.</p>"),
        false => Ok(()),
    }
}

fn services(html: &mut String, services: &[Service<'_>]) -> fmt::Result {
    table(html, "Services", &["Service", "Address", "State", "Healthy backends", "Packets", "Bytes"])?;
    for service in services {
        let healthy = service.backends.iter().filter(|backend| backend.health == "healthy").count();
        let healthy = format!("{healthy} of {}", service.backends.len());
        let address = format!("{} {}", service.address, service.protocol);
        let traffic = &service.traffic;
        row(html, &[&service.name, &address, &service.state, &healthy, &traffic.packets, &traffic.bytes])?;
    }
    html.push_str("</tbody></table>\n");
    Ok(())
}

/// Those that are not healthy come first, and the table ends somewhere.
fn backends(html: &mut String, services: &[Service<'_>]) -> fmt::Result {
    let headings =
        ["Service", "Backend", "Address", "Admin", "Health", "Detail", "Weight", "Share", "Packets"];
    table(html, "Backends", &headings)?;
    let all = || services.iter().flat_map(|of| of.backends.iter().map(move |one| (of, one)));
    let is_well = |backend: &Backend<'_>| backend.health == "healthy";
    let ordered = all().filter(|(_, one)| !is_well(one)).chain(all().filter(|(_, one)| is_well(one)));
    for (service, backend) in ordered.take(MOST_BACKENDS) {
        let share = format!("{:.1} %", backend.share * 100.0);
        let cells: [&dyn Display; 9] = [
            &service.name,
            &backend.name,
            &backend.address,
            &backend.admin,
            &backend.health,
            &backend.detail,
            &backend.weight,
            &share,
            &backend.traffic.packets,
        ];
        row(html, &cells)?;
    }
    html.push_str("</tbody></table>\n");
    match all().count().saturating_sub(MOST_BACKENDS) {
        0 => Ok(()),
        more => writeln!(html, "<p>And {more} more: <code>ballast status</code> shows all.</p>"),
    }
}

fn table(html: &mut String, caption: &str, headings: &[&str]) -> fmt::Result {
    write!(html, "<table><caption>{caption}</caption><thead><tr>")?;
    for heading in headings {
        write!(html, "<th scope=\"col\">{heading}</th>")?;
    }
    html.push_str("</tr></thead><tbody>\n");
    Ok(())
}

fn row(html: &mut String, cells: &[&dyn Display]) -> fmt::Result {
    html.push_str("<tr>");
    for cell in cells {
        write!(html, "<td>{}</td>", Escaped(cell))?;
    }
    html.push_str("</tr>\n");
    Ok(())
}

/// Text of anybody as text of the page.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Escaper(f), "{}", self.0)
    }
}

struct Escaper<'a, 'b>(&'a mut Formatter<'b>);

impl Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(['<', '>', '&', '"', '\'']) {
            let (rest, special) = match part.char_indices().next_back() {
                Some((at, '<')) => (&part[..at], "&lt;"),
                Some((at, '>')) => (&part[..at], "&gt;"),
                Some((at, '&')) => (&part[..at], "&amp;"),
                Some((at, '"')) => (&part[..at], "&quot;"),
                Some((at, '\'')) => (&part[..at], "&#39;"),
                _ => (part, ""),
            };
            self.0.write_str(rest)?;
            self.0.write_str(special)?;
        }
        Ok(())
    }
}

/// More would make the page larger than what its readers can look through.
const MOST_BACKENDS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_can_be_markup() {
        assert_eq!(Escaped("a<b>&amp;\"c\"='ü'").to_string(), "a&lt;b&gt;&amp;amp;&quot;c&quot;=&#39;ü&#39;");
        assert_eq!(Escaped(7).to_string(), "7");
    }
}
