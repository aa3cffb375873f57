//! The page about metrics, made from the catalogue.

use super::catalogue::{self, Family, GROUPS, Kind, Values};

const HEAD: &str = "\
# Metrics

Made from `src/metrics/catalogue.rs` by `make golden`; a test keeps it true.

`GET /metrics` answers in Prometheus' text format 0.0.4, or in OpenMetrics 1.0 where `Accept` asks for it. Only the latter has exemplars:
durations, tokens and cost carry the trace id of the newest request that moved them, one a series and one a bucket
(`--enable-feature=exemplar-storage` lets Prometheus keep them). What was never sampled is never exported by a bot, so every trace that is named was. A bucket's bound is written the same way in
both formats.

Each family is in a panel of `dashboards/` or in a rule of `alerts/`; none is for ad-hoc use only.

Counters follow the database: they move after the commit. A call that comes late adds only what is new, and what is delivered again adds
nothing. They start at 0 with the process, as Prometheus expects. Gauges of limits, drift and age are read as one, so a limit that is gone has no
series.
";

const BOUNDS: &str = "\
## How many series there can be

A label has values from a closed list, or names that others choose: services, routes, models, users. Of the latter a family has no more label
sets than the table says. What is beyond counts under `__other__`, in every such label of that family, and so does at once what is no name:
empty, longer than 128 bytes, or with control characters. A label set that has a series keeps it for the life of the process: a
counter never moves into `__other__`. `tacho_series_dropped_total` counts what was folded, by family.
";

const USERS: &str = "\
`metrics.per_user_top = K` shows users by name: the first K, and up to K more who come to spend half as much again as the last of the K that
spent most. Nobody is taken out again, so there are never more than 2 K; the rest are counted together.
";

/// `docs/metrics.md`.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for (title, families) in GROUPS {
        page += &format!("\n## {title}\n\n");
        if title == "Users" {
            page += USERS;
            page.push('\n');
        }
        page += "| family | type | labels | series at most | what it says |\n| --- | --- | --- | --- | --- |\n";
        families.iter().for_each(|family| page += &row(family));
    }
    page.push('\n');
    page += BOUNDS;
    page.push('\n');
    page += &total();
    page
}

fn row(family: &Family) -> String {
    let labels: Vec<String> = family.labels.iter().map(|label| format!("`{}`", label.name)).collect();
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Untyped => "untyped",
        Kind::Histogram(_) => "histogram",
    };
    let by = match (family.is_by_limit(), family.is_by_threshold()) {
        (true, true) => " a limit and threshold",
        (true, false) => " a limit",
        (false, _) => "",
    };
    let closed: Vec<String> = family.labels.iter().filter_map(values).collect();
    let values = if closed.is_empty() { String::new() } else { format!(" {}.", closed.join("; ")) };
    let Family { name, help, .. } = family;
    format!("| `{name}` | {kind} | {} | {}{by} | {help}{values} |\n", labels.join(", "), family.bound())
}

/// The values of a closed label, if they are few enough to read.
fn values(label: &catalogue::Label) -> Option<String> {
    match label.values {
        Values::Closed(values) if label.name != "metric" && label.name != "version" => {
            Some(format!("{}: {}", label.name, values.join(", ")))
        }
        _ => None,
    }
}

fn total() -> String {
    let all = || GROUPS.into_iter().filter(|(title, _)| *title != "Users").flat_map(|(_, families)| families);
    let sum =
        |of: &dyn Fn(&Family) -> bool| all().filter(|family| of(family)).map(|family| family.bound()).sum::<usize>();
    let fixed = sum(&|family| !family.is_by_limit());
    let limit = sum(&|family| family.is_by_limit() && !family.is_by_threshold());
    let threshold = sum(&Family::is_by_threshold);
    format!(
        "In all at most **{fixed}** series, whatever bots and clients send; for each limit {limit} more and {threshold} for each of its \
         thresholds. With users 8 K + 4 more.\n"
    )
}
