//! Which configuration a start goes by: the files, or where they are wrong or refused what was applied last.

use std::path::{Path, PathBuf};

use super::{last::LastApplied, reload::Reloader};
use crate::{
    api::ReloadError,
    config::{self, AnnounceConfig, Config, Diagnostics},
    control::{Applied, Command, Handle, Rejected},
};

pub(super) struct Start {
    main: PathBuf,
    /// Settings of the daemon, and services unless these are refused.
    pub(super) config: Config,
    /// Why that is not what the files say.
    wrong: Option<String>,
    /// How VIPs were announced by what was applied last.
    pub(super) announced: Option<AnnounceConfig>,
}

impl Start {
    /// # Errors
    ///
    /// What is wrong with the files, if nothing was ever applied.
    pub(super) fn choose(main: &Path) -> Result<Self, Diagnostics> {
        let (config, wrong, announced) = match config::load(main) {
            Ok(config) => {
                let last = LastApplied::new(&config.daemon.state_dir).load(main);
                (config, None, last.and_then(|last| last.announce))
            }
            Err(diagnostics) => {
                let state_dir = config::state_dir_of(main);
                let Some(mut last) = LastApplied::new(&state_dir).load(main) else {
                    return Err(diagnostics);
                };
                last.daemon.state_dir = state_dir;
                let announced = last.announce.clone();
                (last, Some(diagnostics.to_string()), announced)
            }
        };
        Ok(Self { main: main.to_path_buf(), config, wrong, announced })
    }

    /// Makes it the running state.
    ///
    /// # Errors
    ///
    /// It is refused, and there is nothing else that was ever applied or that is refused, too.
    pub(super) async fn apply(&self, reloader: &Reloader, control: &Handle) -> Result<(), ReloadError> {
        let (applied, wrong) = match reloader.start(&self.config).await {
            Ok(applied) => (applied, self.wrong.clone()),
            Err(error) => match self.go_on(&error, reloader).await {
                Some(applied) => (applied, Some(error.to_string())),
                None => return Err(error),
            },
        };
        for warning in applied.warnings {
            log::warn!("{warning}");
        }
        if let Some(wrong) = wrong {
            let kept = LastApplied::new(&self.config.daemon.state_dir);
            let told = format!(
                "{wrong}\nWhat was applied last runs instead; it is kept in {}.",
                kept.path().display()
            );
            log::error!("THE CONFIGURATION IS NOT WHAT RUNS: {told}");
            control.submit(Command::ConfigRefused(told)).await.map_err(ReloadError::Rejected)?;
        }
        Ok(())
    }

    /// Applies the services that were applied last, the files' being refused.
    async fn go_on(&self, refused: &ReloadError, reloader: &Reloader) -> Option<Applied> {
        // That is not the file's fault, and no other file would do better.
        if let ReloadError::Rejected(Rejected::Dataplane(_) | Rejected::Store(_) | Rejected::Stopping) =
            refused
        {
            return None;
        }
        let last = LastApplied::new(&self.config.daemon.state_dir).load(&self.main)?;
        let texts = |config: &Config| config.files.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
        if texts(&last) == texts(&self.config) {
            return None;
        }
        match reloader.start(&last).await {
            Ok(applied) => Some(applied),
            Err(error) => {
                log::error!("what was applied last is refused, too: {error}");
                None
            }
        }
    }
}
