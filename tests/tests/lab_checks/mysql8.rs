//! MySQL 8 proves passwords by `caching_sha2_password`, which no server of the distribution has: a server that says and checks
//! what MySQL's does in a login, and after it what a primary says (dev.mysql.com, "Caching_sha2_password information").

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::lab::{Daemon, Lab, Node, require_root};
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::servers::{certificates, directory};
use super::{at, service, wait_verdict};

const PORT: u16 = 3306;
const PASSWORD: &[u8] = b"secret";
const SALT: &[u8; 20] = b"abcdefghijklmnopqrst";
const PLUGIN: &[u8] = b"caching_sha2_password";
const CLIENT_SSL: u32 = 1 << 11;
/// LONG_PASSWORD, PROTOCOL_41, SSL, SECURE_CONNECTION and PLUGIN_AUTH.
const CAPABILITIES: u32 = 1 | 1 << 9 | CLIENT_SSL | 1 << 15 | 1 << 19;

#[test]
fn caching_sha2_password_is_proven_fast_and_over_tls_in_the_clear() -> Result<()> {
    require_root!(Ok(()));
    let lab = Lab::builder().backends(1).build()?;
    let files = directory()?;
    certificates(files.path())?;
    let certificate = CertificateDer::from_pem_file(files.path().join("certificate.pem"))?;
    let key = PrivateKeyDer::from_pem_file(files.path().join("key.pem"))?;
    let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
    serve(lab.backend(0), Arc::new(tls))?;
    for (file, password) in [("right", "secret"), ("wrong", "guess")] {
        fs::write(files.path().join(file), password)?;
    }
    let check = |password: &str, rest: &str| {
        let path = files.path().join(password).display().to_string();
        format!(
            "type = \"mysql\"\nuser = \"ballast\"\nrole = \"primary\"\npassword_file = \"{path}\"\n{rest}"
        )
    };
    let one = |name: &str, check: &str| at(service(name, PORT, check), lab.backend(0), PORT).toml();
    let daemon = Daemon::start(&lab, 0, &one("plain", &check("right", "")))?;
    let said = wait_verdict(&daemon, "plain", "backend0", "unhealthy")?;
    ensure!(said.contains("wants the password itself, which takes tls = true"), "{said}");

    // Once it was told over TLS, the server knows it.
    let ca = files.path().join("ca.pem").display().to_string();
    let tls = format!("tls = true\nca_file = \"{ca}\"\nserver_name = \"www.example.org\"");
    let port = |toml: String, port: u16| {
        let lines = toml.replace(&format!(":{PORT}\""), &format!(":{port}\""));
        lines.replace("type = \"mysql\"", &format!("type = \"mysql\"\nport = {PORT}"))
    };
    let wrong =
        port(one("wrong", &check("wrong", "")), 3307) + &port(one("wrong-tls", &check("wrong", &tls)), 3308);
    let secure = port(one("secure", &check("right", &tls)), 3309);
    let right = one("plain", &check("right", "")) + &secure;
    daemon.write_config(&right)?;
    daemon.reload()?;
    for name in ["secure", "plain"] {
        let said = wait_verdict(&daemon, name, "backend0", "healthy")?;
        ensure!(said == "primary: read_only is OFF", "{name}: {said}");
    }
    daemon.write_config(&(right + &wrong))?;
    daemon.reload()?;
    for name in ["wrong", "wrong-tls"] {
        let said = wait_verdict(&daemon, name, "backend0", "unhealthy")?;
        ensure!(said.contains("error 1045: Access denied"), "{name}: {said}");
    }
    Ok(())
}

/// Answers until the test process ends.
fn serve(node: &Node, tls: Arc<ServerConfig>) -> Result<()> {
    let address = SocketAddr::new(node.ipv4().into(), PORT);
    let listener = node.enter(|| TcpListener::bind(address).context("listen"))?;
    thread::spawn(move || {
        // Whether somebody has proven the password.
        let cached = Arc::new(AtomicBool::new(false));
        for stream in listener.incoming().flatten() {
            let (tls, cached) = (Arc::clone(&tls), Arc::clone(&cached));
            // A client that leaves early is none of the test's business.
            thread::spawn(move || greet(stream, tls, &cached));
        }
    });
    Ok(())
}

fn greet(stream: TcpStream, tls: Arc<ServerConfig>, cached: &AtomicBool) -> Result<()> {
    let mut plain = Packets { stream, sequence: 0 };
    let [low, high] = [CAPABILITIES as u16, (CAPABILITIES >> 16) as u16].map(u16::to_le_bytes);
    let mut greeting = b"\x0a8.0.99-test\0\x01\0\0\0".to_vec();
    for part in [&SALT[..8], &[0], &low, &[45, 2, 0], &high, &[21], &[0; 10], &SALT[8..], &[0], PLUGIN, &[0]]
    {
        greeting.extend_from_slice(part);
    }
    plain.send(&greeting)?;
    let first = plain.receive()?;
    // Without a user's name behind the header it is the request for TLS.
    if first.len() > 32 {
        return log_in(plain, &first, false, cached);
    }
    let sequence = plain.sequence;
    let stream = StreamOwned::new(ServerConnection::new(tls)?, plain.stream);
    let mut secure = Packets { stream, sequence };
    let login = secure.receive()?;
    log_in(secure, &login, true, cached)
}

fn log_in<S: Read + Write>(
    mut wire: Packets<S>,
    login: &[u8],
    secure: bool,
    cached: &AtomicBool,
) -> Result<()> {
    let rest = login.get(32..).context("no login")?;
    let end = rest.iter().position(|byte| *byte == 0).context("no user")?;
    let (length, rest) = rest[end + 1..].split_first().context("no proof")?;
    let (proof, plugin) = rest.split_at_checked(usize::from(*length)).context("half a proof")?;
    ensure!(plugin == [PLUGIN, b"\0"].concat(), "another plugin");
    let denied = |wire: &mut Packets<S>| wire.send(b"\xff\x15\x04#28000Access denied for user 'ballast'");
    if cached.load(Relaxed) {
        if !proves(proof) {
            return denied(&mut wire);
        }
        wire.send(&[1, 3])?;
    } else {
        wire.send(&[1, 4])?;
        let password = wire.receive()?;
        ensure!(secure, "a password in the clear");
        if password != [PASSWORD, b"\0"].concat() {
            return denied(&mut wire);
        }
        cached.store(true, Relaxed);
    }
    let done = [0, 0, 0, 2, 0, 0, 0];
    wire.send(&done)?;
    loop {
        wire.sequence = 0;
        match wire.receive()?.split_first() {
            Some((3, query)) if query.starts_with(b"SHOW GLOBAL VARIABLES") => {
                wire.send(&[2])?;
                for name in ["Variable_name", "Value"] {
                    let mut column = vec![3, b'd', b'e', b'f', 0, 0, 0, name.len() as u8];
                    column.extend_from_slice(name.as_bytes());
                    column.extend_from_slice(&[0, 12, 45, 0, 0, 1, 0, 0, 253, 0, 0, 0, 0, 0]);
                    wire.send(&column)?;
                }
                let end = [0xfe, 0, 0, 2, 0];
                wire.send(&end)?;
                wire.send(b"\x09read_only\x03OFF")?;
                wire.send(b"\x0fsuper_read_only\x03OFF")?;
                wire.send(&end)?;
            }
            Some((1, _)) => return Ok(()),
            other => bail!("{other:?}"),
        }
    }
}

/// Whether it is SHA256(password) XOR SHA256(SHA256(SHA256(password)) salt), from which the server gets the first by what it
/// keeps, the second.
fn proves(proof: &[u8]) -> bool {
    let kept = digest(&SHA256, digest(&SHA256, PASSWORD).as_ref());
    let mask = digest(&SHA256, &[kept.as_ref(), SALT].concat());
    let once: Vec<u8> = proof.iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect();
    digest(&SHA256, &once).as_ref() == kept.as_ref()
}

/// Payloads with their lengths and sequence numbers.
struct Packets<S> {
    stream: S,
    sequence: u8,
}

impl<S: Read + Write> Packets<S> {
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        let [low, middle, high, _] = u32::try_from(payload.len())?.to_le_bytes();
        self.stream.write_all(&[&[low, middle, high, self.sequence], payload].concat())?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(self.stream.flush()?)
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header)?;
        let [low, middle, high, sequence] = header;
        self.sequence = sequence.wrapping_add(1);
        let mut payload = vec![0; u32::from_le_bytes([low, middle, high, 0]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }
}
