//! The two text formats: OpenMetrics 1.0, and Prometheus's own before it (0.0.4), which every
//! tool reads.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics.
    OpenMetrics,
    /// The one before it.
    Classic,
}

/// Metrics of one name.
#[derive(Clone, Debug)]
pub struct Family {
    /// For a counter without its `_total`.
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label's name and value.
type Label = (&'static str, String);

#[derive(Clone, Debug)]
struct Sample {
    labels: Vec<Label>,
    value: Value,
}

/// What a sample says.
#[derive(Clone, Debug)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any number.
    Real(f64),
    /// What was seen, by upper bounds.
    Histogram {
        /// The sum of all that was seen.
        sum: f64,
        /// How many there were above the bound before and not above this one; the last is
        /// infinite.
        buckets: Vec<(f64, u64)>,
    },
}

/// All of them, as the encoder takes them.
#[derive(Debug)]
struct Families(Vec<Family>);

// === impl Format ===

impl Format {
    /// The format that a client wants, by its `Accept`: OpenMetrics only where it is named, and
    /// not liked less than plain text.
    pub fn wanted(accept: &str) -> Self {
        let (mut open, mut plain) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok());
            let of = match kind.as_str() {
                "application/openmetrics-text" => &mut open,
                "text/plain" => &mut plain,
                _ => continue,
            };
            *of = weight.unwrap_or(1.0).max(*of);
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Classic }
    }

    /// What it is called in `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Writes families.
    pub fn write(self, families: Vec<Family>) -> String {
        let counters: Vec<&str> =
            families.iter().filter(|family| family.kind == Kind::Counter).map(|f| f.name).collect();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Families(families)));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes whatever is written");
        match self {
            Self::OpenMetrics => text,
            Self::Classic => classic(&text, &counters),
        }
    }
}

/// OpenMetrics as the format before it had it: there a counter's whole name is that of its family,
/// and nothing marks the end.
fn classic(text: &str, counters: &[&str]) -> String {
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(keyword), Some(name), Some(rest)) if counters.contains(&name) => {
                classic.extend(["# ", keyword, " ", name, "_total ", rest]);
            }
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

// === impl Family ===

impl Family {
    /// What only grows. `name` is without the `_total` that is written behind it.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter, samples: Vec::new() }
    }

    /// What goes up and down.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, samples: Vec::new() }
    }

    /// What is counted by size.
    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Histogram, samples: Vec::new() }
    }

    /// With one sample more.
    pub fn with(mut self, labels: &[(&'static str, &str)], value: impl Into<Value>) -> Self {
        self.push(labels, value);
        self
    }

    /// Adds a sample. No two may have the same labels.
    pub fn push(&mut self, labels: &[(&'static str, &str)], value: impl Into<Value>) {
        let label = |(name, text): &(&'static str, &str)| (*name, (*text).to_owned());
        let labels = labels.iter().map(label).collect();
        self.samples.push(Sample { labels, value: value.into() });
    }
}

// === impl Value ===

impl From<u64> for Value {
    fn from(whole: u64) -> Self {
        Self::Whole(whole)
    }
}

impl From<usize> for Value {
    fn from(whole: usize) -> Self {
        Self::Whole(whole as u64)
    }
}

impl From<f64> for Value {
    fn from(real: f64) -> Self {
        Self::Real(real)
    }
}

// === impl Families ===

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for family in self.0.iter().filter(|family| !family.samples.is_empty()) {
            let Family { name, help, kind, samples } = family;
            let mut family = encoder.encode_descriptor(name, help, None, kind.metric_type())?;
            for Sample { labels, value } in samples {
                if labels.is_empty() {
                    put(&mut family, *kind, value)?;
                } else {
                    put(&mut family.encode_family(labels)?, *kind, value)?;
                }
            }
        }
        Ok(())
    }
}

impl Kind {
    fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }
}

fn put(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> Result<(), Error> {
    match (kind, value) {
        (Kind::Counter, Value::Whole(whole)) => {
            encoder.encode_counter::<NoLabelSet, u64, f64>(whole, None)
        }
        (Kind::Counter, Value::Real(real)) => {
            encoder.encode_counter::<NoLabelSet, f64, f64>(real, None)
        }
        (_, Value::Whole(whole)) => {
            encoder.encode_gauge(&i64::try_from(*whole).unwrap_or(i64::MAX))
        }
        (_, Value::Real(real)) => encoder.encode_gauge(real),
        (_, Value::Histogram { sum, buckets }) => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<Family> {
        let value = Value::Histogram { sum: 1.5, buckets: vec![(0.5, 2), (f64::INFINITY, 1)] };
        vec![
            Family::counter("a", "Things that end in _total.").with(&[("x", "1")], 3_u64),
            Family::gauge("b", "A gauge.").with(&[], 0.25),
            Family::histogram("c_seconds", "Times.").with(&[("x", "1")], value),
            Family::gauge("d", "Nothing is known."),
        ]
    }

    #[test]
    fn families_are_written_as_openmetrics() {
        let wanted = "\
            # HELP a Things that end in _total.\n\
            # TYPE a counter\n\
            a_total{x=\"1\"} 3\n\
            # HELP b A gauge.\n\
            # TYPE b gauge\n\
            b 0.25\n\
            # HELP c_seconds Times.\n\
            # TYPE c_seconds histogram\n\
            c_seconds_sum{x=\"1\"} 1.5\n\
            c_seconds_count{x=\"1\"} 3\n\
            c_seconds_bucket{le=\"0.5\",x=\"1\"} 2\n\
            c_seconds_bucket{le=\"+Inf\",x=\"1\"} 3\n\
            # EOF\n";
        assert_eq!(Format::OpenMetrics.write(families()), wanted);
    }

    #[test]
    fn the_classic_format_differs_in_counters_and_the_end() {
        let text = Format::Classic.write(families());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "# HELP a_total Things that end in _total.");
        assert_eq!(lines[1], "# TYPE a_total counter");
        assert_eq!(lines[2], "a_total{x=\"1\"} 3");
        assert_eq!(lines[3], "# HELP b A gauge.");
        assert!(text.ends_with("} 3\n"), "{text}");
    }

    #[test]
    fn the_values_of_labels_are_escaped() {
        let family = Family::gauge("a", "A.").with(&[("x", "\"b\\\n# EOF")], 1_u64);
        let text = Format::Classic.write(vec![family]);
        assert!(text.ends_with("\na{x=\"\\\"b\\\\\\n# EOF\"} 1\n"), "{text}");
    }

    #[test]
    fn who_names_openmetrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, wanted) in [
            (prometheus, Format::OpenMetrics),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            ("application/openmetrics-text; q=0.2, text/plain; q=0.1", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.2, text/plain", Format::Classic),
            ("application/openmetrics-text;q=0", Format::Classic),
            ("text/html, */*", Format::Classic),
            ("", Format::Classic),
        ] {
            assert_eq!(Format::wanted(accept), wanted, "{accept}");
        }
    }
}
