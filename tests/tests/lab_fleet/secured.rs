//! etcd that lets in whom it knows, over TLS: with the certificate of an authority of its own, and a user's password.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lb_tests::lab::{Daemon, Etcd, Lab, require_root, try_wait_for};
use serde_json::Value;

use crate::scene::{SOON, web};

const PASSWORD: &str = "correct horse";

#[test]
fn a_member_shows_a_certificate_and_a_password_and_neither_is_seen_anywhere() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().clients(2).backends(3).build()?;
    let node = lab.client(1);
    let directory = lab.directory().join("tls");
    fs::create_dir(&directory)?;
    let path = |name: &str| directory.join(name).display().to_string();
    authority(&directory)?;
    certificate(&directory, "server", "/CN=server", &format!("IP:{}", node.ipv4()))?;
    // The gateway lets nobody in whose certificate has a common name, once there are users.
    certificate(&directory, "member", "/O=Ballast", "DNS:lb-0")?;
    let options = [
        ("--cert-file", path("server.pem")),
        ("--key-file", path("server.key")),
        ("--trusted-ca-file", path("ca.pem")),
    ];
    let mut words: Vec<_> = options.into_iter().flat_map(|(word, path)| [word.to_owned(), path]).collect();
    words.push("--client-cert-auth".to_owned());
    let etcd = Etcd::start_with(&lab, &[node], "https", &words)?;
    let ask = |what: &str, body: &str| -> Result<Value> {
        let url = format!("https://{}:2379/v3/{what}", node.ipv4());
        let (ca, cert, key) = (path("ca.pem"), path("member.pem"), path("member.key"));
        let args = [
            "--silent",
            "--show-error",
            "--cacert",
            &ca,
            "--cert",
            &cert,
            "--key",
            &key,
            "--data",
            body,
            &url,
        ];
        let output = node.try_run("curl", args)?;
        ensure!(output.status.success(), "{what}: {}", output.stderr);
        serde_json::from_str(&output.stdout).with_context(|| output.stdout)
    };
    try_wait_for("etcd has users", SOON, || ask("auth/user/list", "{}").map(Some))?;
    let user = format!("{{\"name\": \"root\", \"password\": \"{PASSWORD}\"}}");
    for (what, body) in [
        ("auth/user/add", user.as_str()),
        ("auth/role/add", "{\"name\": \"root\"}"),
        ("auth/user/grant", "{\"user\": \"root\", \"role\": \"root\"}"),
        ("auth/enable", "{}"),
    ] {
        let answer = ask(what, body)?;
        ensure!(answer.get("error").is_none(), "{what}: {answer}");
    }
    fs::write(path("password"), format!("{PASSWORD}\n"))?;
    let config = |password: &str| {
        format!(
            "[fleet]\nendpoints = [{}]\nmember = \"lb-0\"\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n\
             user = \"root\"\npassword_file = \"{}\"\n",
            etcd.endpoints(),
            path("ca.pem"),
            path("member.pem"),
            path("member.key"),
            path(password),
        )
    };
    let mut daemon = Daemon::new(&lab, 0, &config("password"))?;
    daemon.import(&web(&lab), &[])?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    daemon.cli_checked(["backend", "drain", "web", "backend0"])?;
    // One that is not let in goes on with what it had, and says why.
    fs::write(path("wrong"), "wrong horse\n")?;
    daemon.write_config(&config("wrong"))?;
    daemon.sigterm()?;
    daemon.launch()?;
    daemon.wait_ready(SOON)?;
    let trouble = try_wait_for("it says that it is not let in", SOON, || {
        let status = daemon.status_json()?;
        let trouble = status["fleet"]["trouble"].as_str().unwrap_or_default().to_owned();
        ensure!(trouble.contains("user root is not let in"), "it says {trouble:?}");
        Ok(Some(trouble))
    })?;
    let status = daemon.status_json()?;
    assert_eq!(status["services"][0]["backends"][0]["admin"], "draining");
    for text in [trouble, status.to_string(), daemon.log(), daemon.metrics()?] {
        ensure!(!text.contains("horse"), "{text}");
    }
    Ok(())
}

fn authority(directory: &Path) -> Result<()> {
    let subject = "/CN=Test authority";
    let args =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    openssl(directory, &[&args[..], &["-subj", subject, "-keyout", "ca.key", "-out", "ca.pem"]].concat())
}

fn certificate(directory: &Path, name: &str, subject: &str, alternative: &str) -> Result<()> {
    let (key, request, out) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
    let args = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(directory, &[&args[..], &["-subj", subject, "-keyout", &key, "-out", &request]].concat())?;
    let extensions = format!("{name}.ext");
    let text = format!("subjectAltName={alternative}\nextendedKeyUsage=serverAuth,clientAuth\n");
    fs::write(directory.join(&extensions), text)?;
    let args = ["x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(directory, &[&args[..], &["-in", &request, "-out", &out, "-extfile", &extensions]].concat())
}

fn openssl(directory: &Path, args: &[&str]) -> Result<()> {
    let output = Command::new("openssl").current_dir(directory).args(args).output()?;
    ensure!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
