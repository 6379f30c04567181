//! Every command of `README.md` and `docs/` is run, page by page, in the order in which a reader meets it, on a copy of this
//! system that has the package installed, between clients and web servers with the addresses that the pages name.
//!
//! What a writer has to know:
//!
//! - A block named `sh` holds commands. They are run one by one on the load balancer, and have to succeed.
//! - A block named `console` holds commands behind `$ ` and what they print. Every line that is shown has to be printed, with
//!   numbers and the width of columns left out of account; of a block named `console example` the commands alone count. A
//!   `^C` interrupts the command.
//! - `sh on=backends` runs them on every web server, `on=web-1` on one, `on=client` on the client.
//! - `# exit code 28: why` behind a command says how it ends where that is not 0.
//! - `toml file=/etc/ballast/config.toml` is written there; `toml into=[[service]]` is added to it below that line.
//! - What a page takes beyond that is in `scenes`. What can't be run here is in `not_run`, with the reason.
//!
//! Behind the language these words are seen by nobody else. `BALLAST_PAGE=docs/capture.md` runs that page alone, and with
//! `--nocapture` what its commands print is shown.

mod markdown;
mod not_run;
mod scenes;
mod servers;
mod walk;
mod world;
