//! Questions that are refused before the program is asked. What it answers, packet tests and the lab see.

use super::{super::client::ClientError, super::v1, Daemon, applied};

fn question(service: &str, from: &str) -> v1::Question {
    v1::Question { service: Some(service.into()), from: Some(from.into()), ..v1::Question::default() }
}

#[tokio::test]
async fn a_question_that_makes_no_sense_has_a_status_and_names_the_field() {
    let daemon = Daemon::start(applied).await;
    let client = daemon.client();
    let v4 = "198.51.100.7:40000";
    let nowhere = v1::Question { interface: Some("nix0".into()), ..question("web", v4) };
    let elsewhere = v1::Question { protocol: Some("sctp".into()), ..question("web", v4) };
    for (question, wanted) in [
        (question("wbe", v4), (404, "not_found", "service", "did you mean \"web\"?")),
        (question("dns", v4), (422, "invalid", "port", "has every port")),
        (question("web", "[2001:db8::7]:40000"), (422, "invalid", "from", "of one family")),
        (question("web", "198.51.100.7"), (422, "invalid", "from", "an address and a port")),
        (nowhere, (422, "invalid", "interface", "but to eth0")),
        (elsewhere, (422, "invalid", "protocol", "one of \"tcp\", \"udp\"")),
    ] {
        match client.explain(&question).await {
            Err(ClientError::Refused { status, error }) => {
                let field = error.field.as_deref().unwrap_or_default();
                assert_eq!(
                    (status, error.kind.as_str(), field),
                    (wanted.0, wanted.1, wanted.2),
                    "{question:?}"
                );
                assert!(error.message.contains(wanted.3), "{}", error.message);
            }
            other => panic!("{question:?}: {other:?}"),
        }
    }
}
