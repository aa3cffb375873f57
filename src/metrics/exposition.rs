//! The registry as text: Prometheus' format 0.0.4, and OpenMetrics 1.0 with exemplars. Both write a bucket's bound the same way: as
//! `1` and `1.0` it would be two series to a server that is given one format today and the other tomorrow.

use std::fmt::Write;
use std::sync::Arc;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use rustc_hash::FxHashMap;

use super::capped::{Exemplar, Exemplars, Exemplified, push_value};

/// What a scrape is answered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

pub(super) fn write(families: &[MetricFamily], exemplified: &[Arc<dyn Exemplified>], format: Format) -> String {
    let mut page = Page { text: String::with_capacity(64 * 1024), format, key: String::new() };
    for family in families {
        let exemplars = match format {
            Format::Text => None,
            Format::OpenMetrics => exemplified.iter().find(|known| known.name() == family.name()),
        };
        page.family(family, &exemplars.map(|known| known.exemplars()).unwrap_or_default());
    }
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

struct Page {
    text: String,
    format: Format,
    /// Room for the key that exemplars are looked for by.
    key: String,
}

impl Page {
    fn family(&mut self, family: &MetricFamily, exemplars: &FxHashMap<Box<str>, Exemplars>) {
        let kind = match (family.get_field_type(), self.format) {
            (MetricType::COUNTER, _) => "counter",
            (MetricType::GAUGE, _) => "gauge",
            (MetricType::HISTOGRAM, _) => "histogram",
            (MetricType::SUMMARY, _) => "summary",
            (MetricType::UNTYPED, Format::Text) => "untyped",
            (MetricType::UNTYPED, Format::OpenMetrics) => "unknown",
        };
        // There the family of a counter goes without the ending of its samples.
        let name = match self.format {
            Format::OpenMetrics if kind == "counter" => family.name().strip_suffix("_total").unwrap_or(family.name()),
            _ => family.name(),
        };
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        self.escaped(family.help(), self.format == Format::OpenMetrics);
        self.text.push_str("\n# TYPE ");
        self.text.push_str(name);
        self.text.push(' ');
        self.text.push_str(kind);
        self.text.push('\n');
        for metric in family.get_metric() {
            let exemplars = if exemplars.is_empty() { None } else { exemplars.get(self.key_of(metric)) };
            let exemplar = |slot: usize| exemplars.and_then(|slots| slots.get(slot).copied().flatten());
            match family.get_field_type() {
                MetricType::COUNTER => {
                    self.sample(family.name(), "", metric, None, metric.get_counter().get_value(), exemplar(0));
                }
                MetricType::HISTOGRAM => self.histogram(family.name(), metric, exemplar),
                // A family without type is a gauge that must not be called one.
                _ => self.sample(family.name(), "", metric, None, metric.get_gauge().get_value(), None),
            }
        }
    }

    fn key_of(&mut self, metric: &Metric) -> &str {
        self.key.clear();
        metric.get_label().iter().for_each(|label| push_value(&mut self.key, label.value()));
        &self.key
    }

    #[expect(clippy::cast_precision_loss, reason = "all samples are floats")]
    fn histogram(&mut self, name: &str, metric: &Metric, exemplar: impl Fn(usize) -> Option<Exemplar>) {
        let histogram = metric.get_histogram();
        let mut slots = 0;
        for (slot, bucket) in histogram.get_bucket().iter().enumerate() {
            let count = bucket.cumulative_count() as f64;
            self.sample(name, "_bucket", metric, Some(bucket.upper_bound()), count, exemplar(slot));
            slots = slot + 1;
        }
        let count = histogram.get_sample_count() as f64;
        self.sample(name, "_bucket", metric, Some(f64::INFINITY), count, exemplar(slots));
        self.sample(name, "_sum", metric, None, histogram.get_sample_sum(), None);
        self.sample(name, "_count", metric, None, count, None);
    }

    fn sample(
        &mut self,
        name: &str,
        end: &str,
        metric: &Metric,
        le: Option<f64>,
        value: f64,
        exemplar: Option<Exemplar>,
    ) {
        self.text.push_str(name);
        self.text.push_str(end);
        let labels = metric.get_label();
        if !labels.is_empty() || le.is_some() {
            self.text.push('{');
            for (place, label) in labels.iter().enumerate() {
                if place > 0 {
                    self.text.push(',');
                }
                self.label(label);
            }
            if let Some(bound) = le {
                let comma = if labels.is_empty() { "" } else { "," };
                self.write(format_args!("{comma}le=\"{}\"", Bound(bound)));
            }
            self.text.push('}');
        }
        self.write(format_args!(" {}", Number(value)));
        if let Some(Exemplar { trace, value }) = exemplar {
            self.write(format_args!(" # {{trace_id=\"{trace}\"}} {}", Number(value)));
        }
        self.text.push('\n');
    }

    fn label(&mut self, label: &LabelPair) {
        self.text.push_str(label.name());
        self.text.push_str("=\"");
        self.escaped(label.value(), true);
        self.text.push('"');
    }

    fn escaped(&mut self, text: &str, quotes: bool) {
        for char in text.chars() {
            match char {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '"' if quotes => self.text.push_str("\\\""),
                _ => self.text.push(char),
            }
        }
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a string takes all");
    }
}

/// A value as both formats read it.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            value if value.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            value => write!(f, "{value}"),
        }
    }
}

/// A bucket's bound, with a decimal point.
struct Bound(f64);

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let point = if self.0.is_finite() && self.0.fract() == 0.0 { ".0" } else { "" };
        write!(f, "{}{point}", Number(self.0))
    }
}
