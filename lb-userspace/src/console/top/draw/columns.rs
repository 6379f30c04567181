//! The columns of each view, and what stands in them.

use ratatui::style::Style;

use super::Palette;
use crate::{
    api::v1,
    console::{
        Rating,
        fit::Kind,
        rates::Rate,
        top::{
            app::App,
            history::Trail,
            rows::{self, Row, Sort, View},
        },
        units::{count, rate},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Address,
    State,
    Healthy,
    Share,
    Flows,
    Packets,
    Bits,
    NewFlows,
    Total,
    Trend,
}

/// What is in a field.
pub(super) enum Field<'a> {
    Text(String, Style),
    /// A chart that takes what room there is.
    Trend(Option<&'a Trail>),
}

impl Column {
    /// Of a view, from the left.
    pub(super) fn of(view: &View) -> &'static [Self] {
        use Column::{Address, Bits, Flows, Healthy, Name, NewFlows, Packets, Share, State, Total, Trend};
        match view {
            View::Services => &[Name, Address, State, Healthy, Packets, Bits, NewFlows, Trend],
            View::Backends | View::Service(_) => {
                &[Name, Address, State, Share, Flows, Packets, Bits, NewFlows, Trend]
            }
            View::Drops => &[Name, Packets, Total, Trend],
        }
    }

    /// The order in which a narrow terminal does without them. The line below the table has the address.
    pub(super) const EXPENDABLE: [Self; 7] =
        [Self::Address, Self::NewFlows, Self::Healthy, Self::Share, Self::Flows, Self::Trend, Self::Bits];

    pub(super) fn heading(self, view: &View) -> &'static str {
        match (self, view) {
            (Self::Name, View::Services) => "SERVICE",
            (Self::Name, View::Backends) => "SERVICE/BACKEND",
            (Self::Name, View::Service(_)) => "BACKEND",
            (Self::Name, View::Drops) => "REASON",
            (Self::Address, _) => "ADDRESS",
            (Self::State, _) => "STATE",
            (Self::Healthy, _) => "HEALTHY",
            (Self::Share, _) => "SHARE",
            (Self::Flows, _) => "FLOWS",
            (Self::Packets, _) => "PKT/S",
            (Self::Bits, _) => "BIT/S",
            (Self::NewFlows, _) => "NEW/S",
            (Self::Total, _) => "ALL",
            (Self::Trend, _) => "TREND",
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Name | Self::Address => Kind::Name,
            Self::State => Kind::Prose,
            _ => Kind::Number,
        }
    }

    pub(super) fn is_sorted_by(self, sort: Sort) -> bool {
        matches!(
            (self, sort),
            (Self::Name, Sort::Name)
                | (Self::State, Sort::State)
                | (Self::Packets, Sort::Packets)
                | (Self::Bits, Sort::Bits)
                | (Self::NewFlows, Sort::NewFlows)
        )
    }

    /// What the widest field of all rows takes: from them and not from the rows in sight, so that columns stand still.
    pub(super) fn width(self, app: &App) -> usize {
        let widest = |width: fn(&App, Row) -> usize| {
            app.list.rows.iter().map(|row| width(app, *row)).max().unwrap_or(0)
        };
        match self {
            Self::Name => widest(name_width),
            Self::Address => widest(address_width),
            // `draining 300s`
            Self::State => 13,
            Self::Healthy => "100/100".len(),
            Self::Share => "100 %".len(),
            Self::Flows | Self::Packets | Self::Bits | Self::NewFlows | Self::Total => "999k".len() + 1,
            Self::Trend => LEAST_TREND,
        }
    }

    pub(super) fn field<'a>(self, app: &'a App, row: Row, palette: Palette) -> Option<Field<'a>> {
        let text = |text: String| Some(Field::Text(text, palette.plain()));
        let of_rate = |part: fn(Rate) -> Option<f64>| {
            let rate_of = rows::rate(&app.rates, row).and_then(part);
            text(rate_of.map_or_else(|| "-".to_owned(), rate))
        };
        let service = |at: usize| app.status.services.get(at);
        match (self, row) {
            (Self::Packets, _) => of_rate(|rate| Some(rate.packets)),
            (Self::Bits, _) => of_rate(|rate| Some(rate.bits)),
            (Self::NewFlows, _) => of_rate(|rate| rate.new_flows),
            (Self::Name, _) => text(name(app, row)?),
            (Self::Address, Row::Service(at)) => {
                service(at).and_then(|of| text(format!("{}/{}", of.address, of.protocol)))
            }
            (Self::State, Row::Service(at)) => {
                let of = service(at)?;
                Some(Field::Text(of.state.clone(), palette.of(Rating::of(&of.state))))
            }
            (Self::Healthy, Row::Service(at)) => service(at).and_then(|of| text(healthy(of))),
            (Self::Trend, Row::Service(at)) => Some(Field::Trend(app.history.service(&service(at)?.name))),
            (Self::Trend, Row::Drop(at)) => {
                Some(Field::Trend(app.history.drops(app.status.drops.keys().nth(at)?)))
            }
            (Self::Total, Row::Drop(at)) => {
                app.status.drops.values().nth(at).and_then(|all| text(count(*all)))
            }
            (_, Row::Backend(..)) => {
                let (service, backend) = app.backend(row)?;
                match self {
                    Self::Address => text(backend.address.clone()),
                    Self::State => {
                        let (word, rating) = rows::state(backend);
                        Some(Field::Text(word, palette.of(rating)))
                    }
                    Self::Share => text(format!("{:.0} %", backend.share * 100.0)),
                    Self::Flows => text(backend.flows.map_or_else(|| "-".to_owned(), count)),
                    Self::Trend => Some(Field::Trend(app.history.backend(&service.name, &backend.name))),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

fn name(app: &App, row: Row) -> Option<String> {
    let names = rows::identity(&app.status, row)?;
    Some(match (names.backend, &app.view) {
        (None, _) => names.name,
        (Some(backend), View::Service(_)) => backend,
        (Some(backend), _) => format!("{}/{backend}", names.name),
    })
}

fn healthy(service: &v1::Service) -> String {
    let healthy = service.backends.iter().filter(|backend| backend.health == "healthy").count();
    format!("{healthy}/{}", service.backends.len())
}

fn name_width(app: &App, row: Row) -> usize {
    match row {
        Row::Service(at) => app.status.services.get(at).map_or(0, |service| service.name.len()),
        Row::Drop(at) => app.status.drops.keys().nth(at).map_or(0, String::len),
        Row::Backend(..) => app.backend(row).map_or(0, |(service, backend)| match app.view {
            View::Service(_) => backend.name.len(),
            _ => service.name.len() + 1 + backend.name.len(),
        }),
    }
}

fn address_width(app: &App, row: Row) -> usize {
    match row {
        Row::Service(at) => {
            app.status.services.get(at).map_or(0, |one| one.address.len() + 1 + one.protocol.len())
        }
        Row::Drop(_) => 0,
        Row::Backend(..) => app.backend(row).map_or(0, |(_, backend)| backend.address.len()),
    }
}

/// A chart of fewer bars says nothing.
const LEAST_TREND: usize = 8;
