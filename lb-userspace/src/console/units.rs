//! Numbers for people: at most five characters, so that columns stay narrow and the eye finds the big ones.

use std::time::{Duration, SystemTime};

/// `0`, `7`, `950`, `1.2k`, `34k`, `5.6M`; in steps of a thousand.
pub fn count(number: u64) -> String {
    // A number that is shortened need not be exact.
    scaled(number as f64)
}

/// The same of something each second; `0.4` where it is less than one, because that is not nothing.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 0.05 => "0".to_owned(),
        rate if rate < 0.95 => format!("{rate:.1}"),
        rate => scaled(rate),
    }
}

/// `2s`, `3m 5s`, `1h 2m`: its two largest parts.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let told: Vec<_> = parts
        .iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if told.is_empty() { "0s".to_owned() } else { told.join(" ") }
}

/// `17:03:12 UTC`, as in the daemon's log.
pub fn time_of_day(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    let of_day = text.split_once('T').map_or(text.as_str(), |(_, time)| time);
    format!("{} UTC", of_day.trim_end_matches('Z'))
}

fn scaled(mut number: f64) -> String {
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        // What would be rounded to a thousand is one of the next unit.
        if number < 999.5 {
            break;
        }
        number /= 1000.0;
        unit = next;
    }
    match unit {
        "" => format!("{number:.0}"),
        unit if number < 9.95 => format!("{number:.1}{unit}"),
        unit => format!("{number:.0}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_rounded_to_nothing() {
        let counts = [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (9949, "9.9k"),
            (9950, "10k"),
            (999_499, "999k"),
            (999_500, "1.0M"),
            (5_600_000, "5.6M"),
            (u64::MAX, "18E"),
        ];
        for (number, text) in counts {
            assert_eq!(count(number), text, "{number}");
        }
        for (number, text) in [(0.0, "0"), (0.04, "0"), (0.4, "0.4"), (0.96, "1"), (1.2e9, "1.2G")] {
            assert_eq!(rate(number), text, "{number}");
        }
    }

    #[test]
    fn times_have_two_parts() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (185, "3m 5s"), (3600, "1h"), (90_061, "1d 1h")]
        {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(61_392);
        assert_eq!(time_of_day(at), "17:03:12 UTC");
    }
}
