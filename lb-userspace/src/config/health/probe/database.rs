use std::{path::PathBuf, time::Duration};

use super::tls;
use crate::{
    config::{
        key::{Key, OneOf, Printable, Seconds, Text},
        reference::Section,
        report::{Report, Wrong},
        table::Table,
        values,
    },
    domain::{Database, Engine, Role},
};

pub(super) fn read(engine: Engine, table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Database> {
    let role = table.read_or(&ROLE, Role::Any, report);
    // Redis lets in whoever has no name.
    let user = if engine == Engine::Redis {
        table.read(&USER, report)
    } else {
        table.required(&USER, report).map(Some)
    };
    let password_file = table.read(&PASSWORD_FILE, report);
    if engine == Engine::Redis && table.has(&USER) && matches!(password_file, Some(None)) {
        let wrong = Wrong::new(
            "`user` means nothing without `password_file`",
            "Redis takes both, or the password alone",
        );
        report.error(table.get(&USER)?.place, wrong);
        return None;
    }
    // Misplaced ones are reported already.
    let database = match engine {
        Engine::Postgres => table.read(&DATABASE, report),
        Engine::Mysql | Engine::Redis => Some(None),
    };
    let max_lag = match engine {
        Engine::Mysql | Engine::Postgres => table.read(&MAX_LAG, report),
        Engine::Redis => Some(None),
    };
    let tls = tls::read_optional(table, report);
    let role = role?.value;
    if let Some(lag) = max_lag.flatten().filter(|_| role != Role::Replica) {
        let wrong =
            Wrong::new("`max_lag` means nothing without role = \"replica\"", "only replicas are behind");
        report.error(lag.place, wrong);
        return None;
    }
    Some(Database {
        engine,
        role,
        user: user?.map(|user| user.value),
        password_file: password_file?.map(|path| path.value),
        database: database?.map(|name| name.value),
        max_lag: max_lag?.map(|lag| lag.value),
        tls: tls?,
    })
}

pub(in crate::config) const DATABASES: Section = Section {
    heading: "### `mysql`, `postgres`, `redis`",
    says: "",
    keys: &[&ROLE, &USER, &PASSWORD_FILE, &DATABASE, &MAX_LAG],
};

const ROLE: Key<OneOf<Role>> = Key {
    name: "role",
    takes: OneOf(&Role::ALL, Role::as_str),
    default: "`\"any\"`",
    means: "a server of the other role is ineligible. With a role, `on_all_down` is `\"reject\"` unless given: unhealthy \
            is not ineligible, and who fails open may have been the primary",
};
const USER: Key<Printable> = Key {
    name: "user",
    takes: Printable(1, 63),
    default: "required; for `redis` the default user",
    means: "who logs in",
};
const PASSWORD_FILE: Key<Text<PathBuf>> = Key {
    name: "password_file",
    takes: Text("absolute path", values::path),
    default: "none",
    means: "file with the password, up to 1 KiB, read at each check; the daemon has to be allowed to read it, and others \
            better not",
};
const DATABASE: Key<Printable> = Key {
    name: "database",
    takes: Printable(1, 63),
    default: "the user's name",
    means: "`postgres`: the database to log in to",
};
const MAX_LAG: Key<Seconds> = Key {
    name: "max_lag",
    takes: Seconds(SECOND, DAY),
    default: "any",
    means: "`mysql` and `postgres` with `role = \"replica\"`: a replica further behind is unhealthy",
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
