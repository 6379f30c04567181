use env_logger::{Env, TimestampPrecision};

/// Starts logging to stderr. `BALLAST_LOG`, or else `RUST_LOG`, chooses what is logged (`info` where neither is set),
/// in env_logger's syntax. Under systemd the journal has the time already, so lines carry none.
///
/// Does nothing if a logger is there already.
pub fn init() {
    let filter = if std::env::var_os("BALLAST_LOG").is_some() { "BALLAST_LOG" } else { "RUST_LOG" };
    let mut builder = env_logger::Builder::from_env(Env::new().filter_or(filter, "info"));
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    } else {
        builder.format_timestamp(Some(TimestampPrecision::Millis));
    }
    // A second call, in tests, is no mistake.
    let _ = builder.try_init();
}
