//! MySQL and MariaDB: the few messages of the client/server protocol that a check needs (dev.mysql.com, "Client/Server
//! Protocol", and mariadb.com/kb/en/clientserver-protocol).

mod auth;
mod packet;

use super::{Standing, Talk, Target, Trouble, garbled, password};
use crate::domain::{Database, Role};

use packet::{Rows, Wire};

pub(super) async fn ask(database: &Database, target: &Target, talk: Talk) -> Result<String, Trouble> {
    let mut wire = Wire::new(talk);
    let greeting = auth::Greeting::read(&wire.receive().await?)?;
    let secret = password(database.password_file.as_deref()).await?;
    if database.tls.is_some() {
        wire.send(&auth::tls_request(&greeting)?).await?;
        wire = wire.secured(database, target).await?;
    }
    auth::log_in(&mut wire, &greeting, database, &secret).await?;
    let standing = standing(&mut wire, database).await?;
    // Without it the server would log an aborted connection.
    let _ = wire.command(COM_QUIT, b"").await;
    standing.judge(database.role)
}

async fn standing(wire: &mut Wire, database: &Database) -> Result<Standing, Trouble> {
    let rows =
        query(wire, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'super_read_only')").await?;
    let mut read_only = None;
    for row in &rows.rows {
        let [Some(name), Some(value)] = row.as_slice() else { return Err(garbled("MySQL")) };
        // MariaDB 12 has more values than ON, each of which forbids more.
        if !matches!(value.to_ascii_uppercase().as_str(), "OFF" | "0") {
            read_only = Some(format!("{} is {value}", name.to_lowercase()));
        }
    }
    if rows.rows.is_empty() {
        return Err(Trouble::Backend("the user can't see read_only".to_owned()));
    }
    let Some(why) = read_only else {
        let detail = "primary: read_only is OFF".to_owned();
        return Ok(Standing { role: Role::Primary, detail, trouble: None });
    };
    if database.role != Role::Replica {
        return Ok(Standing { role: Role::Replica, detail: format!("replica: {why}"), trouble: None });
    }
    replication(wire, database, why).await
}

/// Of a server that is read-only.
async fn replication(wire: &mut Wire, database: &Database, why: String) -> Result<Standing, Trouble> {
    // MySQL 8.4 knows the first alone, MySQL before 8.0.22 and MariaDB before 10.5 the second.
    let rows = match query(wire, "SHOW REPLICA STATUS").await {
        Err(Trouble::Backend(error)) if error.starts_with(SYNTAX_ERROR) => {
            query(wire, "SHOW SLAVE STATUS").await
        }
        other => other,
    }?;
    let Some(row) = rows.rows.first() else {
        // Read-only, and follows nobody: neither role.
        let detail = format!("{why}, and it replicates from nobody");
        return Ok(Standing { role: Role::Any, detail, trouble: None });
    };
    let value = |names: [&str; 2]| {
        let column = rows.columns.iter().position(|column| names.contains(&column.as_str()))?;
        row.get(column)?.as_deref()
    };
    let mut trouble = None;
    for (thread, names) in [
        ("I/O", ["Replica_IO_Running", "Slave_IO_Running"]),
        ("SQL", ["Replica_SQL_Running", "Slave_SQL_Running"]),
    ] {
        match value(names) {
            Some("Yes") => {}
            state => {
                let state = state.unwrap_or("not known");
                trouble = Some(format!("replication {thread} thread running: {state}"));
            }
        }
    }
    let lag =
        value(["Seconds_Behind_Source", "Seconds_Behind_Master"]).and_then(|lag| lag.parse::<u64>().ok());
    let detail = match lag {
        Some(lag) => format!("replica, {lag} s behind"),
        None => "replica, lag not known".to_owned(),
    };
    if trouble.is_none()
        && let Some(most) = database.max_lag
        && lag.is_none_or(|lag| lag > most.as_secs())
    {
        trouble = Some(detail.clone());
    }
    Ok(Standing { role: Role::Replica, detail, trouble })
}

async fn query(wire: &mut Wire, text: &str) -> Result<Rows, Trouble> {
    wire.command(COM_QUERY, text.as_bytes()).await?;
    wire.rows().await
}

const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;
/// How [`packet::error`] writes ER_PARSE_ERROR.
const SYNTAX_ERROR: &str = "error 1064:";
