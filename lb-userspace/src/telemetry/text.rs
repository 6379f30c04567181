use std::fmt::{Display, Write};

use super::stats::Distribution;

/// Writer of Prometheus's text format, version 0.0.4.
///
/// Not OpenMetrics, which is what prometheus-client writes: there a counter's family is named without `_total`, and
/// `promtool check metrics`, which reads the older format only, takes every counter for an undeclared metric.
///
/// Names and help texts are ours and need no escaping; label values are escaped.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// A family whose samples are being written. Labels are `(name, value)` pairs.
pub(super) struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
}

pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

impl Page {
    pub(super) const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        debug_assert!(name.ends_with("_total"));
        self.family(name, help, "counter")
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, "gauge")
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, help, "histogram")
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }

    fn family(&mut self, name: &'static str, help: &str, kind: &str) -> Family<'_> {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        Family { page: self, name }
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{line}");
    }
}

impl Family<'_> {
    /// Integers are written exactly, so that counters above 2^53 stay right in the text.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.page.line(format_args!("{}{} {value}", self.name, braces(labels)));
        self
    }

    pub(super) fn distribution(&mut self, labels: Labels<'_>, value: &Distribution) -> &mut Self {
        let name = self.name;
        let mut bucket = |bound: &str, count: u64| {
            let with_bound: Vec<_> = labels.iter().copied().chain([("le", bound)]).collect();
            self.page.line(format_args!("{name}_bucket{} {count}", braces(&with_bound)));
        };
        for (bound, count) in &value.buckets {
            bucket(&bound.to_string(), *count);
        }
        bucket("+Inf", value.count);
        self.page.line(format_args!("{name}_sum{} {}", braces(labels), value.sum));
        self.page.line(format_args!("{name}_count{} {}", braces(labels), value.count));
        self
    }
}

fn braces(labels: Labels<'_>) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut page = Page::default();
        page.counter("a_total", "Some help.").sample(&[], u64::MAX).sample(&[("x", "y"), ("z", "\"\\\n")], 0);
        page.gauge("b", "More.").sample(&[], 0.25);
        let value = Distribution { buckets: vec![(0.5, 1), (1.0, 3)], sum: 7.5, count: 4 };
        page.histogram("c_seconds", "Most.").distribution(&[("r", "s")], &value);
        let expected = r#"# HELP a_total Some help.
# TYPE a_total counter
a_total 18446744073709551615
a_total{x="y",z="\"\\\n"} 0
# HELP b More.
# TYPE b gauge
b 0.25
# HELP c_seconds Most.
# TYPE c_seconds histogram
c_seconds_bucket{r="s",le="0.5"} 1
c_seconds_bucket{r="s",le="1"} 3
c_seconds_bucket{r="s",le="+Inf"} 4
c_seconds_sum{r="s"} 7.5
c_seconds_count{r="s"} 4
"#;
        assert_eq!(page.into_string(), expected);
    }
}
