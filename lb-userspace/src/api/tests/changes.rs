//! Requests that change services and backends.

use super::*;

/// Sends a request with a JSON body; status and what the body says.
async fn send(daemon: &Daemon, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
    let (line, body) = daemon.send(request.as_bytes()).await;
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(&body).expect(&body))
}

fn own() -> v1::ServiceSettings {
    v1::ServiceSettings {
        name: Some("own".into()),
        address: Some("203.0.113.20:53".into()),
        protocol: Some("udp".into()),
        drain_timeout: Some("10s".into()),
        ..v1::ServiceSettings::default()
    }
}

fn backend(name: &str, address: &str) -> v1::NewBackend {
    v1::NewBackend { name: Some(name.into()), address: Some(address.into()), weight: None, backup: None }
}

fn admin(admin: &str) -> v1::BackendSettings {
    v1::BackendSettings { admin: Some(admin.into()), ..v1::BackendSettings::default() }
}

#[tokio::test]
async fn a_service_is_added_changed_and_removed() {
    let daemon = Daemon::start(applied).await;
    let client = daemon.client();
    let revision = client.status().await.unwrap().revision;
    let added = client.add_service(&own()).await.unwrap();
    assert_eq!((added.revision, added.changes[0].object.as_str()), (revision + 1, "service own"));
    client.add_backend(&name("own"), &backend("x", "10.0.1.1:53")).await.unwrap();
    let settings = v1::ServiceSettings { tracking: Some("never".into()), ..v1::ServiceSettings::default() };
    let changed = client.set_service(&name("own"), &settings).await.unwrap();
    assert_eq!(changed.changes[0].detail, "tracking auto -> never");
    let service = client.service(&name("own")).await.unwrap();
    assert_eq!((service.origin, service.new_flows), (v1::Origin::Cli, None));
    assert_eq!(service.settings.tracking.as_deref(), Some("never"));
    assert_eq!(service.settings.drain_timeout.as_deref(), Some("10s"));
    assert_eq!((service.backends.len(), service.backends[0].weight), (1, 1));
    let limited = v1::ServiceSettings {
        deny: Some(vec!["10.0.0.0/8".into()]),
        tracking: Some("auto".into()),
        new_flow_rate: Some(7),
        ..v1::ServiceSettings::default()
    };
    let changed = client.set_service(&name("own"), &limited).await.unwrap();
    let detail = "tracking never -> auto, new_flow_rate 0 -> 7, deny +10.0.0.0/8";
    assert_eq!(changed.changes[0].detail, detail);
    let open = v1::ServiceSettings { deny: Some(vec![]), ..v1::ServiceSettings::default() };
    let changed = client.set_service(&name("own"), &open).await.unwrap();
    assert_eq!(changed.changes[0].detail, "deny -10.0.0.0/8");
    let removed = client.remove_service(&name("own")).await.unwrap();
    assert_eq!(removed.revision, revision + 6);
    assert!(client.service(&name("own")).await.is_err());
}

#[tokio::test]
async fn a_backend_drains_and_says_how_long() {
    let daemon = Daemon::start(applied).await;
    let client = daemon.client();
    let (web, web_1) = (name("web"), name("web-1"));
    client.set_backend(&web, &web_1, &admin("draining")).await.unwrap();
    let weight = v1::BackendSettings { weight: Some(8), ..v1::BackendSettings::default() };
    client.set_backend(&web, &web_1, &weight).await.unwrap();
    let draining = client.backend(&web, &web_1).await.unwrap();
    assert_eq!((draining.admin.as_str(), draining.weight), ("draining", 8));
    assert_eq!(draining.overrides, ["weight", "admin"]);
    assert!(draining.accepts_existing);
    assert!(matches!(draining.drain_seconds_left, Some(295..=300)), "{draining:?}");
    let reset = v1::BackendSettings { reset: true, ..v1::BackendSettings::default() };
    client.set_backend(&web, &web_1, &reset).await.unwrap();
    let back = client.backend(&web, &web_1).await.unwrap();
    assert_eq!((back.admin.as_str(), back.weight, back.drain_seconds_left), ("active", 3, None));
    assert_eq!(back.overrides, [""; 0]);
    client.set_backend(&web, &web_1, &admin("disabled")).await.unwrap();
    assert!(!client.backend(&web, &web_1).await.unwrap().accepts_existing);
}

/// Method, path, body; status, kind, field and a part of the message.
type Case = (&'static str, &'static str, &'static str, u16, &'static str, Option<&'static str>, &'static str);

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_with_its_field() {
    let daemon = Daemon::start(applied).await;
    let services = "/v1/services";
    let (web, backends, web_1) =
        ("/v1/services/web", "/v1/services/web/backends", "/v1/services/web/backends/web-1");
    let cases: &[Case] = &[
        ("POST", services, "{", 400, "bad_request", Some("body"), "makes no sense"),
        ("POST", services, "{\"nmae\": \"x\"}", 400, "bad_request", Some("body"), "unknown field `nmae`"),
        (
            "POST",
            services,
            " [\"own\", \"203.0.113.20:80\"]",
            400,
            "bad_request",
            Some("body"),
            "be a JSON object",
        ),
        (
            "POST",
            services,
            "{\"name\": \"own\", \"address\": \"203.0.113.20:80\", \"health\": [\"none\"]}",
            400,
            "bad_request",
            Some("body"),
            "`health` has to be a JSON object",
        ),
        ("POST", backends, "[\"x\", \"10.0.0.9:80\"]", 400, "bad_request", Some("body"), "be a JSON object"),
        ("PATCH", web_1, "[5]", 400, "bad_request", Some("body"), "be a JSON object"),
        ("POST", services, "{}", 422, "invalid", Some("body"), "has no `name`"),
        (
            "POST",
            services,
            "{\"name\": \"Own\", \"address\": \"203.0.113.20:80\"}",
            422,
            "invalid",
            Some("name"),
            "1 to 63 of a-z",
        ),
        (
            "POST",
            services,
            "{\"name\": \"own\", \"address\": \"203.0.113.20:80\", \"tracking\": \"never\", \"algorithm\": \"round-robin\"}",
            422,
            "invalid",
            Some("tracking"),
            "has to be tracked",
        ),
        (
            "POST",
            services,
            "{\"name\": \"web\", \"address\": \"203.0.113.20:80\"}",
            409,
            "exists",
            Some("name"),
            "config.toml:9",
        ),
        ("PATCH", web, "{\"tracking\": \"always\"}", 409, "owned", Some("service"), "config.toml:9"),
        ("PATCH", web, "{\"backend\": [{\"name\": \"x\"}]}", 422, "invalid", Some("backend"), "one by one"),
        ("DELETE", web, "", 409, "owned", Some("service"), "config.toml:9"),
        ("DELETE", "/v1/services/nope", "", 404, "not_found", Some("service"), "\"nope\" does not exist"),
        ("DELETE", "/v1/services/wbe", "", 404, "not_found", Some("service"), "; did you mean \"web\"?"),
        (
            "PATCH",
            "/v1/services/web/backends/wbe-1",
            "{\"weight\": 1}",
            404,
            "not_found",
            Some("backend"),
            "\"wbe-1\" does not exist; did you mean \"web-1\"?",
        ),
        ("DELETE", "/v1/services/No%20pe", "", 404, "not_found", Some("service"), "does not exist"),
        (
            "POST",
            backends,
            "{\"name\": \"c\", \"address\": \"10.0.0.13\"}",
            422,
            "invalid",
            Some("address"),
            "there is no port",
        ),
        (
            "POST",
            backends,
            "{\"name\": \"c\", \"address\": \"10.0.0.13:81\"}",
            422,
            "invalid",
            Some("service.web.backend.c.address"),
            "port is 81",
        ),
        (
            "POST",
            backends,
            "{\"name\": \"web-1\", \"address\": \"10.0.0.13:80\"}",
            409,
            "exists",
            Some("name"),
            "config.toml:12",
        ),
        (
            "POST",
            "/v1/services/nope/backends",
            "{\"name\": \"c\", \"address\": \"10.0.0.13:80\"}",
            404,
            "not_found",
            Some("service"),
            "",
        ),
        ("PATCH", web_1, "{\"weight\": 65536}", 422, "invalid", Some("weight"), "from 0 to 65535"),
        ("PATCH", web_1, "{\"admin\": \"tired\"}", 422, "invalid", Some("admin"), "\"draining\""),
        ("PATCH", web_1, "{}", 422, "invalid", Some("body"), "exactly one"),
        ("PATCH", web_1, "{\"weight\": 1, \"reset\": true}", 422, "invalid", Some("body"), "exactly one"),
        ("PATCH", "/v1/services/web/backends/nope", "{\"weight\": 1}", 404, "not_found", Some("backend"), ""),
        ("DELETE", web_1, "", 409, "owned", Some("backend"), "config.toml:12"),
        ("PUT", web_1, "", 405, "method_not_allowed", None, ""),
    ];
    for (method, path, body, status, kind, field, message) in cases {
        let (got, answer) = send(&daemon, method, path, body).await;
        let error = &answer["error"];
        let case = format!("{method} {path} {body}: {answer}");
        assert_eq!(
            (got, error["kind"].as_str(), error["field"].as_str()),
            (*status, Some(*kind), *field),
            "{case}"
        );
        assert!(error["message"].as_str().is_some_and(|text| text.contains(message)), "{case}");
    }
    assert_eq!(daemon.client().status().await.unwrap().revision, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_of_one_service_at_the_same_moment_are_all_made() {
    let daemon = Daemon::start(applied).await;
    let client = daemon.client();
    client.add_service(&own()).await.unwrap();
    let revision = client.status().await.unwrap().revision;
    let changes = (100..160).map(|seconds| {
        let client = client.clone();
        let drain_timeout = Some(format!("{seconds}s"));
        let settings = v1::ServiceSettings { drain_timeout, ..v1::ServiceSettings::default() };
        tokio::spawn(async move { client.set_service(&name("own"), &settings).await })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap().unwrap();
    }
    assert_eq!(client.status().await.unwrap().revision, revision + 60);
}

#[tokio::test]
async fn changes_at_the_same_moment_all_hold() {
    let daemon = Daemon::start(applied).await;
    let client = daemon.client();
    client.add_service(&own()).await.unwrap();
    let settings: Vec<v1::ServiceSettings> = vec![
        v1::ServiceSettings { tracking: Some("never".into()), ..v1::ServiceSettings::default() },
        v1::ServiceSettings { drain_timeout: Some("7s".into()), ..v1::ServiceSettings::default() },
        v1::ServiceSettings { unhealthy_grace: Some("7s".into()), ..v1::ServiceSettings::default() },
        v1::ServiceSettings { on_all_down: Some("drop".into()), ..v1::ServiceSettings::default() },
    ];
    let revision = client.status().await.unwrap().revision;
    let changes = settings.into_iter().map(|settings| {
        let client = client.clone();
        tokio::spawn(async move { client.set_service(&name("own"), &settings).await })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap().unwrap();
    }
    assert_eq!(client.status().await.unwrap().revision, revision + 4);
    // The same all together is nothing to change then.
    let all = v1::ServiceSettings {
        tracking: Some("never".into()),
        drain_timeout: Some("7s".into()),
        unhealthy_grace: Some("7s".into()),
        on_all_down: Some("drop".into()),
        ..v1::ServiceSettings::default()
    };
    assert!(client.set_service(&name("own"), &all).await.unwrap().changes.is_empty());
}

#[tokio::test]
async fn programs_and_files_of_the_daemon_are_named_in_the_file_alone() {
    let daemon = Daemon::start(applied).await;
    for (setting, field) in [
        (r#""health": {"type": "exec", "command": ["/bin/true"]}"#, "health.type"),
        (
            r#""health": {"type": "redis", "role": "primary", "password_file": "/etc/shadow"}"#,
            "health.password_file",
        ),
        (r#""health": {"type": "tls", "ca_file": "/etc/shadow"}"#, "health.ca_file"),
        (r#""backends_file": "/etc/shadow""#, "backends_file"),
        (r#""dns": [{"name": "web.example.org"}]"#, "dns"),
    ] {
        for (method, path) in [("POST", "/v1/services"), ("PATCH", "/v1/services/web")] {
            let body = format!(r#"{{"name": "own", "address": "203.0.113.20:80", {setting}}}"#);
            let (status, answer) = send(&daemon, method, path, &body).await;
            let error = &answer["error"];
            assert_eq!((status, error["field"].as_str()), (422, Some(field)), "{method} {setting}: {error}");
        }
    }
}

#[tokio::test]
async fn secrets_in_headers_are_not_shown_and_what_is_shown_for_them_is_not_taken() {
    let daemon = Daemon::start(applied).await;
    let headers = r#"["Authorization: Basic c2VjcmV0", "x-api-key:c2VjcmV0", "X-Probe: ballast"]"#;
    let service = format!(
        r#"{{"name": "own", "address": "203.0.113.20:80", "health": {{"type": "http", "headers": {headers}}}}}"#
    );
    assert_eq!(send(&daemon, "POST", "/v1/services", &service).await.0, 200);
    for path in ["/v1/services/own", "/v1/services", "/v1/status"] {
        let (_, shown) = send(&daemon, "GET", path, "").await;
        assert!(!shown.to_string().contains("c2VjcmV0"), "{path}: {shown}");
    }
    let (_, shown) = send(&daemon, "GET", "/v1/services/own", "").await;
    let shown = &shown["settings"]["health"]["headers"];
    assert_eq!(
        *shown,
        serde_json::json!(["Authorization: (hidden)", "x-api-key: (hidden)", "X-Probe: ballast"])
    );
    let change = serde_json::json!({ "health": { "headers": shown } }).to_string();
    let (status, answer) = send(&daemon, "PATCH", "/v1/services/own", &change).await;
    assert_eq!((status, answer["error"]["field"].as_str()), (422, Some("headers")), "{answer}");
    // They are for the servers that they were given for.
    let elsewhere = r#"{"health": {"address": "10.9.0.1"}}"#;
    let (status, answer) = send(&daemon, "PATCH", "/v1/services/own", elsewhere).await;
    assert_eq!((status, answer["error"]["field"].as_str()), (422, Some("health.headers")), "{answer}");
    let backend = r#"{"name": "x", "address": "10.9.0.1:80"}"#;
    let (status, answer) = send(&daemon, "POST", "/v1/services/own/backends", backend).await;
    assert_eq!((status, answer["error"]["field"].as_str()), (422, Some("service")), "{answer}");
    let anew = r#"{"health": {"address": "10.9.0.1", "headers": ["X-Key: mine"]}}"#;
    let (status, answer) = send(&daemon, "PATCH", "/v1/services/own", anew).await;
    assert_eq!(status, 200, "{answer}");
    // Another change goes by the headers there are, not by those that are shown.
    let (status, answer) = send(&daemon, "PATCH", "/v1/services/own", r#"{"drain_timeout": "9s"}"#).await;
    assert_eq!(
        (status, answer["changes"][0]["detail"].as_str()),
        (200, Some("drain_timeout 5m -> 9s")),
        "{answer}"
    );
}

#[tokio::test]
async fn null_takes_back_what_was_set() {
    let daemon = Daemon::start(applied).await;
    let service = r#"{"name": "own", "address": "203.0.113.20:80", "drain_timeout": "9s",
        "health": {"type": "http", "host": "h", "port": 81, "down_interval": "9s"}}"#;
    assert_eq!(send(&daemon, "POST", "/v1/services", service).await.0, 200);
    let change = r#"{"drain_timeout": null, "health": {"host": null, "port": null, "down_interval": null}}"#;
    assert_eq!(send(&daemon, "PATCH", "/v1/services/own", change).await.0, 200);
    let settings = daemon.client().service(&name("own")).await.unwrap().settings;
    let health = settings.health.unwrap();
    assert_eq!((settings.drain_timeout.as_deref(), health.kind.as_deref()), (Some("5m"), Some("http")));
    assert_eq!((health.host, health.port, health.down_interval), (None, None, None));
    let (status, answer) = send(&daemon, "PATCH", "/v1/services/own", r#"{"name": null}"#).await;
    assert_eq!(status, 422, "{answer}");
}

#[tokio::test]
async fn what_happens_when_all_are_down_goes_by_the_check_unless_somebody_chose_it() {
    let daemon = Daemon::start(applied).await;
    let client = daemon.client();
    let on_all_down = async || client.service(&name("db")).await.unwrap().settings.on_all_down.unwrap();
    let service = r#"{"name": "db", "address": "203.0.113.20:3306"}"#;
    assert_eq!(send(&daemon, "POST", "/v1/services", service).await.0, 200);
    assert_eq!(on_all_down().await, "fail-open");
    let role = r#"{"health": {"type": "mysql", "role": "primary", "user": "b"}}"#;
    for (change, then) in [
        (role, "reject"),
        (r#"{"health": {"type": "tcp"}}"#, "fail-open"),
        (r#"{"on_all_down": "drop"}"#, "drop"),
        (role, "drop"),
    ] {
        let (status, answer) = send(&daemon, "PATCH", "/v1/services/db", change).await;
        assert_eq!((status, on_all_down().await.as_str()), (200, then), "{change}: {answer}");
    }
}

#[tokio::test]
async fn a_backend_that_can_not_be_checked_from_the_source_is_refused() {
    let daemon = Daemon::start(applied).await;
    let service = r#"{"name": "own", "address": "203.0.113.20:80", "health": {"type": "tcp", "source": "2001:db8::1"}}"#;
    assert_eq!(send(&daemon, "POST", "/v1/services", service).await.0, 200);
    let backend = r#"{"name": "a", "address": "10.0.1.1:80"}"#;
    let (status, answer) = send(&daemon, "POST", "/v1/services/own/backends", backend).await;
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 422 && message.contains("can't be checked from 2001:db8::1"), "{status}: {answer}");
}
