//! `ballast top`.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use super::{Format, exit::Failure, output, watch};
use crate::{api::client::Client, console::top};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Look every so often: 100ms to 1h; + and - change it
    #[arg(long, value_name = "TIME", value_parser = watch::interval, default_value = "1s")]
    interval: Duration,
}

pub(super) async fn run(client: &Client, options: &Options, format: Format) -> Result<(), Failure> {
    if format == Format::Json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let instead = "for programs there is `ballast status --watch -o json`";
        return Err(Failure::Usage(format!("top is for a terminal; {instead}")));
    }
    let colour = output::colours(true);
    top::run(client, options.interval, colour).await.map_err(|error| match error {
        top::Error::Daemon(error) => error.into(),
        top::Error::Terminal(error) => {
            Failure::Failed(anyhow::Error::new(error).context("can't use the terminal"))
        }
    })
}
