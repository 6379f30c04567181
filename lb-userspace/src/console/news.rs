//! What is news between two looks: what a watcher would otherwise have to find by comparing tables.

use super::{Rating, plain, rates::counterpart};
use crate::api::v1;

/// A line about something that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `backend web/web-1: healthy -> unhealthy: connection refused`.
    pub text: String,
    pub rating: Rating,
}

/// Of everything.
pub fn of_status(before: &v1::Status, after: &v1::Status) -> Vec<Notice> {
    let mut news = Vec::new();
    for interface in &after.interfaces {
        let was = before.interfaces.iter().find(|one| one.name == interface.name);
        let (name, mode) = (plain(&interface.name), &interface.mode);
        match (was.map(|was| was.attached), interface.attached) {
            (Some(true), false) => news.push(bad(format!("interface {name}: detached"))),
            (Some(false), true) => news.push(good(format!("interface {name}: attached, {mode}"))),
            _ => {}
        }
    }
    if after.config_error.is_some() && before.config_error != after.config_error {
        news.push(bad("the configuration file is refused: what ran before goes on".to_owned()));
    }
    if before.config_error.is_some() && after.config_error.is_none() {
        news.push(good("the configuration file is what runs".to_owned()));
    }
    news.extend(of_services(&before.services, &after.services));
    news
}

pub fn of_services(before: &[v1::Service], after: &[v1::Service]) -> Vec<Notice> {
    let mut news = Vec::new();
    for (at, service) in after.iter().enumerate() {
        match counterpart(before, at, |one| one.name == service.name) {
            Some(was) => news.extend(of_service(was, service)),
            None => news.push(doubtful(format!("service {}: added", service.name))),
        }
    }
    news.extend(
        gone(before, after, |service| &service.name).map(|name| doubtful(format!("service {name}: removed"))),
    );
    news
}

/// Of two looks at one service.
pub fn of_service(before: &v1::Service, after: &v1::Service) -> Vec<Notice> {
    let mut news = Vec::new();
    if before.state != after.state {
        let text = format!("service {}: {} -> {}", after.name, before.state, after.state);
        news.push(Notice { text, rating: Rating::of(&after.state) });
    }
    news.extend(of_backends(&after.name, &before.backends, &after.backends));
    news
}

/// Of the backends of a service.
pub fn of_backends(service: &str, before: &[v1::Backend], after: &[v1::Backend]) -> Vec<Notice> {
    let mut news = Vec::new();
    for (at, backend) in after.iter().enumerate() {
        let name = format!("backend {service}/{}", backend.name);
        let Some(was) = counterpart(before, at, |one| one.name == backend.name) else {
            news.push(doubtful(format!("{name}: added")));
            continue;
        };
        if was.admin != backend.admin {
            let rating = Rating::of_admin(&backend.admin).unwrap_or(Rating::Good);
            news.push(Notice { text: format!("{name}: {} -> {}", was.admin, backend.admin), rating });
        }
        if was.health != backend.health {
            let rating = Rating::of(&backend.health);
            let why = match rating {
                Rating::Good => String::new(),
                _ if backend.health_detail.is_empty() => String::new(),
                _ => format!(": {}", plain(&backend.health_detail)),
            };
            news.push(Notice { text: format!("{name}: {} -> {}{why}", was.health, backend.health), rating });
        }
        if !was.drained && backend.drained {
            news.push(good(format!("{name}: drained")));
        }
    }
    news.extend(
        gone(before, after, |backend| &backend.name)
            .map(|name| doubtful(format!("backend {service}/{name}: removed"))),
    );
    news
}

fn gone<'a, T>(
    before: &'a [T],
    after: &'a [T],
    name: impl Fn(&T) -> &String + Copy + 'a,
) -> impl Iterator<Item = &'a str> {
    let is_gone =
        move |(at, one): &(usize, &T)| counterpart(after, *at, |other| name(other) == name(one)).is_none();
    before.iter().enumerate().filter(is_gone).map(move |(_, one)| name(one).as_str())
}

fn good(text: String) -> Notice {
    Notice { text, rating: Rating::Good }
}

fn doubtful(text: String) -> Notice {
    Notice { text, rating: Rating::Doubtful }
}

fn bad(text: String) -> Notice {
    Notice { text, rating: Rating::Bad }
}
