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
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { page: self, name }
    }

    /// There may be a hundred thousand of these, so nothing is allocated for one.
    fn sample<'a>(
        &mut self,
        (name, end): (&str, &str),
        labels: impl Iterator<Item = (&'static str, &'a str)>,
        value: impl Display,
    ) {
        self.text.push_str(name);
        self.text.push_str(end);
        let mut before = '{';
        for (label, value) in labels {
            self.text.push(before);
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.push_escaped(value);
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn push_escaped(&mut self, value: &str) {
        for part in value.split_inclusive(['\\', '"', '\n']) {
            let (rest, escaped) = match part.as_bytes() {
                [rest @ .., b'\\'] => (rest.len(), "\\\\"),
                [rest @ .., b'"'] => (rest.len(), "\\\""),
                [rest @ .., b'\n'] => (rest.len(), "\\n"),
                all => (all.len(), ""),
            };
            self.text.push_str(&part[..rest]);
            self.text.push_str(escaped);
        }
    }
}

impl Family<'_> {
    /// Integers are written exactly, so that counters above 2^53 stay right in the text.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.page.sample((self.name, ""), labels.iter().copied(), value);
        self
    }

    pub(super) fn distribution(&mut self, labels: Labels<'_>, value: &Distribution) -> &mut Self {
        let all = || labels.iter().copied();
        let mut bucket = |bound: &str, count: u64| {
            self.page.sample((self.name, "_bucket"), all().chain([("le", bound)]), count);
        };
        for (bound, count) in &value.buckets {
            bucket(&bound.to_string(), *count);
        }
        bucket("+Inf", value.count);
        self.page.sample((self.name, "_sum"), all(), value.sum);
        self.page.sample((self.name, "_count"), all(), value.count);
        self
    }
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
