use std::{
    convert::Infallible,
    io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, ChildStdout, Command},
    sync::Semaphore,
};

use super::{Target, Trouble, is_ours};

/// Runs a program; its exit status is the verdict and its first line of output the detail. Of all checks at most
/// [`MOST_AT_ONCE`] run one at a time, and the others are not made.
pub(super) async fn ask(command: &[String], target: &Target) -> Result<String, Trouble> {
    static ROOM: Semaphore = Semaphore::const_new(MOST_AT_ONCE);
    ask_in(&ROOM, command, target).await
}

async fn ask_in(room: &Semaphore, command: &[String], target: &Target) -> Result<String, Trouble> {
    let Ok(_place) = room.try_acquire() else {
        return Err(Trouble::Ours(format!(
            "{MOST_AT_ONCE} checks of type \"exec\" run at the moment, and no more may"
        )));
    };
    let Some((program, arguments)) = command.split_first() else {
        return Err(Trouble::Ours("no command".to_owned()));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("BALLAST_ADDRESS", target.address.ip().to_string())
        .env("BALLAST_PORT", target.address.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .current_dir("/");
    if let Some(source) = target.source {
        command.env("BALLAST_SOURCE", source.to_string());
    }
    let mut child = command.spawn().map_err(|error| not_run(program, &error))?;
    let group = Group::of(&child);
    let mut said = Vec::new();
    let mut output = child.stdout.take();
    let status = tokio::select! {
        status = child.wait() => status,
        // A program that has closed its output may go on.
        never = async {
            listen(output.as_mut(), &mut said).await;
            std::future::pending::<Infallible>().await
        } => match never {},
    };
    // Whoever it left behind ends with it, and holds its output open no longer.
    drop(group);
    let status = status.map_err(|error| Trouble::Ours(format!("{program}: {error}")))?;
    // Its last words may still be in the pipe.
    let _ = tokio::time::timeout(LAST_WORDS, listen(output.as_mut(), &mut said)).await;
    verdict(status, &said)
}

fn verdict(status: ExitStatus, said: &[u8]) -> Result<String, Trouble> {
    let line = String::from_utf8_lossy(said.split(|byte| *byte == b'\n').next().unwrap_or_default());
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "no exit status".to_owned(),
    };
    let line = line.trim();
    let detail = if line.is_empty() { how } else { format!("{how}: {line}") };
    if status.success() { Ok(detail) } else { Err(Trouble::Backend(detail)) }
}

fn not_run(program: &str, error: &io::Error) -> Trouble {
    // EAGAIN: no more processes.
    let wanting = is_ours(error) || error.raw_os_error() == Some(libc::EAGAIN);
    let detail = format!("{program}: {error}");
    if wanting { Trouble::Ours(detail) } else { Trouble::Backend(detail) }
}

/// Keeps the beginning of what comes, and reads the rest so that the program is not held up.
async fn listen(output: Option<&mut ChildStdout>, said: &mut Vec<u8>) {
    let Some(output) = output else { return };
    let mut buffer = [0; 512];
    // An output that can't be read is one that says nothing.
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let room = MOST_KEPT.saturating_sub(said.len());
        said.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// The process group of a child, killed when it is dropped: at the end of the check, at its timeout, or when it is no
/// longer wanted.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Mostly nobody is left.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// A process and its pipe each: what the daemon may have of them is for other checks, and for itself, too.
const MOST_AT_ONCE: usize = 64;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MOST_KEPT: usize = 200;
const LAST_WORDS: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::{
        domain::Probe,
        health::probe::{
            check,
            testing::{TIMEOUT, failed, of, passed},
        },
    };

    fn shell(script: &str) -> Probe {
        Probe::Exec(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
    }

    async fn ran(script: &str) -> crate::health::Outcome {
        check(&of(shell(script)), "192.0.2.1:80".parse().unwrap()).await
    }

    #[tokio::test]
    async fn the_exit_status_decides_and_the_first_line_is_told() {
        assert_eq!(ran("exit 0").await, passed("exit status 0"));
        assert_eq!(
            ran("echo $BALLAST_ADDRESS:$BALLAST_PORT; echo more").await,
            passed("exit status 0: 192.0.2.1:80")
        );
        assert_eq!(ran("echo 'disk full'; exit 3").await, failed("exit status 3: disk full"));
        assert_eq!(ran("kill -9 $$").await, failed("killed by signal 9"));
        let nothing = of(Probe::Exec(vec!["/nonexistent/check".to_owned()]));
        let outcome = check(&nothing, "192.0.2.1:80".parse().unwrap()).await;
        assert_eq!(outcome, failed("/nonexistent/check: No such file or directory (os error 2)"));
    }

    #[tokio::test]
    async fn a_program_for_which_there_is_no_room_is_not_run() {
        let room = Semaphore::new(2);
        let target = || Target {
            address: "192.0.2.1:80".parse().unwrap(),
            source: None,
            way: None,
            heard: std::sync::atomic::AtomicBool::new(false),
        };
        let Probe::Exec(long) = shell("sleep 60") else { panic!() };
        let ran = || async { ask_in(&room, &long, &target()).await };
        let mut all = Vec::from([Box::pin(ran()), Box::pin(ran())]);
        for running in &mut all {
            // Until it waits for the program.
            assert!(tokio::time::timeout(Duration::from_millis(1), running.as_mut()).await.is_err());
        }
        assert!(matches!(ran().await, Err(Trouble::Ours(_))));
        all.pop();
        let Probe::Exec(short) = shell("exit 0") else { panic!() };
        assert_eq!(ask_in(&room, &short, &target()).await.unwrap(), "exit status 0");
    }

    #[tokio::test]
    async fn output_without_end_is_neither_kept_nor_waited_for() {
        let started = std::time::Instant::now();
        assert_eq!(ran("exec yes").await, failed("timed out after 500ms"));
        assert!(started.elapsed() < 2 * TIMEOUT);
        // A closed output is no end, and what inherits it is not waited for.
        assert_eq!(ran("exec >&-; sleep 0.1; exit 4").await, failed("exit status 4"));
        assert_eq!(ran("sleep 60 & exit 0").await, passed("exit status 0"));
    }

    #[tokio::test]
    async fn the_whole_process_group_dies_with_the_check() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("sleep 60 & echo $! >{}; wait", file.display());
        assert_eq!(ran(&script).await, failed("timed out after 500ms"));
        let grandchild = std::fs::read_to_string(&file).unwrap();
        let proc = format!("/proc/{}/stat", grandchild.trim());
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        // A zombie whose new parent has not looked yet is dead as well.
        let lives = || std::fs::read_to_string(Path::new(&proc)).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            assert!(std::time::Instant::now() < deadline, "it lives on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
