//! What a service does when backends fail: `panic_threshold`, `on_panic`, `on_all_down`, and when they come back: `slow_start`; and when
//! this host is no place for its clients: `withdraw_below`.

use std::time::Duration;

use super::{
    report::{At, Report},
    service::keys,
    table::Table,
};
use crate::domain::{Fraction, OnAllDown, OnPanic, Panic};

pub(super) struct FailureDraft {
    pub(super) panic: Option<Panic>,
    /// What is said of it, if anything.
    pub(super) on_all_down: Option<Option<OnAllDown>>,
    pub(super) slow_start: Option<At<Duration>>,
    pub(super) withdraw_below: Option<At<u32>>,
}

pub(super) fn read(table: &mut Table<'_>, report: &mut Report<'_>) -> FailureDraft {
    let threshold = match table.get(&keys::PANIC_THRESHOLD) {
        Some(item) => {
            let wanted = "a part of the backends from 0 to 1, such as 0.5, with three digits at most";
            item.number_as(wanted, Fraction::new, report).map(|threshold| threshold.value)
        }
        None => Some(Fraction::default()),
    };
    let action = table.read_or(&keys::ON_PANIC, OnPanic::FailOpen, report);
    let on_all_down = table.read(&keys::ON_ALL_DOWN, report).map(|answer| answer.map(|answer| answer.value));
    let panic = match (threshold, action) {
        (Some(threshold), Some(action)) => Some(Panic { threshold, action: action.value }),
        _ => None,
    };
    let slow_start = table.read_or(&keys::SLOW_START, Duration::ZERO, report);
    let withdraw_below = table.read_or(&keys::WITHDRAW_BELOW, 0, report);
    FailureDraft { panic, on_all_down, slow_start, withdraw_below }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::parse;
    use crate::domain::{OnPanic, Service};

    fn read(rest: &str) -> Result<Service, String> {
        let text = format!(
            "[daemon]\ninterfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80\"\n{rest}\
             [[service.backend]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\nbackup = true\n"
        );
        let config =
            parse(vec![(PathBuf::from("config.toml"), text)]).map_err(|errors| errors.to_string())?;
        Ok(config.services[0].clone())
    }

    #[test]
    fn a_threshold_is_a_number_whole_or_not_and_off_unless_given() {
        let threshold = |rest: &str| read(rest).map(|web| web.panic.threshold.number());
        assert_eq!(threshold(""), Ok(0.0));
        assert_eq!(threshold("panic_threshold = 0.5\n"), Ok(0.5));
        assert_eq!(threshold("panic_threshold = 1\n"), Ok(1.0));
        let slow = |rest: &str| read(rest).map(|web| web.slow_start.as_secs());
        assert_eq!((slow(""), slow("slow_start = \"1m\"\n")), (Ok(0), Ok(60)));
        let web = read("on_panic = \"healthy-only\"\n").expect("valid");
        assert_eq!((web.panic.action, web.backends["a"].backup), (OnPanic::HealthyOnly, true));
    }

    #[test]
    fn other_thresholds_are_shown_where_they_stand() {
        for wrong in ["50", "1.5", "-0.1", "0.3333", "nan", "inf"] {
            let told = read(&format!("panic_threshold = {wrong}\n")).expect_err("wrong");
            let expected = format!(
                "error: `panic_threshold` can't be {wrong}\n --> config.toml:6:19\n  |\n6 | panic_threshold = {wrong}\n"
            );
            assert!(told.starts_with(&expected), "{told}");
        }
        let told = read("panic_threshold = \"half\"\n").expect_err("wrong");
        assert!(told.contains("`panic_threshold` can't be a string"), "{told}");
        let told = read("slow_start = \"1500ms\"\n").expect_err("wrong");
        assert!(told.contains("whole seconds from 0s to 1h"), "{told}");
        let told = read("on_panic = \"drop\"\n").expect_err("wrong");
        assert!(told.contains("one of \"fail-open\", \"healthy-only\""), "{told}");
    }
}
