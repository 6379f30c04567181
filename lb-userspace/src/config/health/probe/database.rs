use std::time::Duration;

use super::tls;
use crate::{
    config::{
        health::text,
        report::{Report, Wrong},
        table::Table,
        values,
    },
    domain::{Database, Engine, Role},
};

pub(super) fn read(engine: Engine, table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Database> {
    let role = table.text_or("role", Role::Any, report, values::choice(&Role::ALL, Role::as_str));
    // Redis lets in whoever has no name.
    let user = if engine == Engine::Redis { table.get("user") } else { table.require("user", report) };
    let named = user.is_some();
    let user = match user {
        Some(item) => item.parse(report, text::of(1..=63)).map(|user| Some(user.value)),
        None => (engine == Engine::Redis).then_some(None),
    };
    let password_file = match table.get("password_file") {
        Some(item) => item.parse(report, values::path).map(|path| Some(path.value)),
        None => Some(None),
    };
    if engine == Engine::Redis && named && password_file == Some(None) {
        let wrong = Wrong::new(
            "`user` means nothing without `password_file`",
            "Redis takes both, or the password alone",
        );
        report.error(table.get("user")?.place, wrong);
        return None;
    }
    // Misplaced ones are reported already.
    let database = match table.get("database").filter(|_| engine == Engine::Postgres) {
        Some(item) => item.parse(report, text::of(1..=63)).map(|name| Some(name.value)),
        None => Some(None),
    };
    let lag = table.get("max_lag").filter(|_| engine != Engine::Redis);
    let max_lag = match &lag {
        Some(item) => item.parse(report, values::seconds(SECOND, DAY)).map(|time| Some(time.value)),
        None => Some(None),
    };
    let tls = tls::read_optional(table, report);
    let role = role?.value;
    if let Some(item) = lag.filter(|_| role != Role::Replica) {
        let wrong =
            Wrong::new("`max_lag` means nothing without role = \"replica\"", "only replicas are behind");
        report.error(item.place, wrong);
        return None;
    }
    Some(Database {
        engine,
        role,
        user: user?,
        password_file: password_file?,
        database: database?,
        max_lag: max_lag?,
        tls: tls?,
    })
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
