//! Redis and Valkey: the inline part of RESP2 that a check needs (redis.io, "Redis serialization protocol").

use super::{Standing, Talk, Target, Trouble, garbled, password, secured};
use crate::domain::{Database, Role};

pub(super) async fn ask(database: &Database, target: &Target, talk: Talk) -> Result<String, Trouble> {
    let mut talk = secured(talk, database, target).await?;
    if database.password_file.is_some() {
        let secret = password(database.password_file.as_deref()).await?;
        let mut words: Vec<&[u8]> = vec![b"AUTH"];
        words.extend(database.user.as_deref().map(str::as_bytes));
        words.push(&secret);
        command(&mut talk, &words).await.map_err(|trouble| without(trouble, &secret))?;
    }
    if database.role == Role::Any {
        return match command(&mut talk, &[b"PING"]).await?.as_slice() {
            b"PONG" => Ok("PONG".to_owned()),
            _ => Err(garbled("Redis")),
        };
    }
    let information = command(&mut talk, &[b"INFO", b"replication"]).await?;
    standing(&String::from_utf8_lossy(&information)).ok_or_else(|| garbled("Redis"))?.judge(database.role)
}

/// Some servers quote what they don't understand.
fn without(trouble: Trouble, secret: &[u8]) -> Trouble {
    let secret = String::from_utf8_lossy(secret);
    match trouble {
        Trouble::Backend(detail) if !secret.is_empty() => Trouble::Backend(detail.replace(&*secret, "…")),
        other => other,
    }
}

fn standing(information: &str) -> Option<Standing> {
    let value = |name: &str| {
        information.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    };
    match value("role")? {
        "master" => {
            let detail = "primary: role is master".to_owned();
            Some(Standing { role: Role::Primary, detail, trouble: None })
        }
        "slave" => {
            let link = value("master_link_status")?;
            let detail = format!("replica, link to its primary {link}");
            let trouble = if link != "up" {
                Some(detail.clone())
            } else {
                (value("master_sync_in_progress") == Some("1")).then(|| "replica, still loading".to_owned())
            };
            Some(Standing { role: Role::Replica, detail, trouble })
        }
        other => Some(Standing { role: Role::Any, detail: format!("role is {other}"), trouble: None }),
    }
}

/// The text that a command is answered with.
async fn command(talk: &mut Talk, words: &[&[u8]]) -> Result<Vec<u8>, Trouble> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    talk.send(&request).await?;
    let line = talk.line().await?;
    match line.split_first() {
        Some((b'+', text)) => Ok(text.to_vec()),
        Some((b'-', error)) => Err(Trouble::Backend(String::from_utf8_lossy(error).into_owned())),
        Some((b'$', length)) => {
            let length = std::str::from_utf8(length).ok().and_then(|length| length.parse::<usize>().ok());
            let mut text = talk.bytes(length.ok_or_else(|| garbled("Redis"))?.saturating_add(2)).await?;
            if !text.ends_with(b"\r\n") {
                return Err(garbled("Redis"));
            }
            text.truncate(text.len() - 2);
            Ok(text)
        }
        _ => Err(garbled("Redis")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_names_the_role() {
        let primary = standing("# Replication\r\nrole:master\r\nconnected_slaves:1\r\n").unwrap();
        assert_eq!((primary.role, primary.trouble), (Role::Primary, None));
        let replica = |link: &str, loading: u8| {
            let text =
                format!("role:slave\r\nmaster_link_status:{link}\r\nmaster_sync_in_progress:{loading}\r\n");
            standing(&text).unwrap().trouble
        };
        assert_eq!(replica("up", 0), None);
        assert_eq!(replica("up", 1).unwrap(), "replica, still loading");
        assert_eq!(replica("down", 0).unwrap(), "replica, link to its primary down");
        assert_eq!(standing("role:sentinel\r\n").unwrap().role, Role::Any);
        assert_eq!(standing("connected_slaves:0\r\n"), None);
    }

    #[test]
    fn an_error_that_quotes_the_password_is_told_without_it() {
        let error =
            Trouble::Backend("ERR unknown command 'AUTH', with args beginning with: 's3cret' ".into());
        let Trouble::Backend(detail) = without(error, b"s3cret") else { panic!("it is the backend's") };
        assert_eq!(detail, "ERR unknown command 'AUTH', with args beginning with: '…' ");
    }
}
