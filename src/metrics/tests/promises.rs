use proptest::prelude::*;

use super::super::catalogue::{self, Family};
use super::super::labels::OTHER;
use super::super::{Metrics, MetricsConfig};
use super::*;

/// A trace as it is written first, and as it is written when more of it has come.
#[derive(Clone, Debug)]
struct Write {
    number: u64,
    service: String,
    endpoint: String,
    user: Option<String>,
    /// Model, tokens and cost of each call; the last `late` come with the second write.
    calls: Vec<(String, u64, i64)>,
    late: usize,
    /// The second write repeats the first, or the tokens of the first call turn out to be other ones.
    corrected: Option<u64>,
    repeats: usize,
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-z]{1,2}",
        1 => Just(String::new()),
        1 => Just("__other__".to_owned()),
        1 => "[\\x00-\\x1f\"\\\\,{}=é]{0,6}",
        1 => "x{120,140}",
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let calls = prop::collection::vec((name(), 0u64..5_000, 0i64..1_000_000), 0..4);
    (name(), name(), prop::option::of(name()), calls, 0usize..3, prop::option::of(0u64..10_000), 1usize..3).prop_map(
        |(service, endpoint, user, calls, late, corrected, repeats)| {
            let late = late.min(calls.len());
            Write { number: 0, service, endpoint, user, calls, late, corrected, repeats }
        },
    )
}

impl Write {
    fn request(&self, calls: usize, corrected: Option<u64>) -> Request {
        let made = self.calls[..calls].iter().zip(0..).map(|((model, count, cost), span)| {
            let count = corrected.filter(|_| span == 0).unwrap_or(*count);
            call(self.number, span, model, tokens(count, count / 2), *cost)
        });
        request(self.number, &self.service, &self.endpoint, self.user.as_deref(), made.collect())
    }
}

fn sum(samples: &BTreeMap<String, f64>, family: &str) -> f64 {
    samples.iter().filter(|(series, _)| series.split('{').next() == Some(family)).map(|(_, value)| value).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Through late calls, corrections, repeats and names that are folded: no counter falls, none vanishes, and together they are what was
    /// written.
    #[test]
    fn a_counter_never_falls_and_nothing_is_lost_in_folding(mut writes in prop::collection::vec(write(), 1..60)) {
        let metrics = Metrics::new(&MetricsConfig { per_user_top: 2 });
        let (mut before, mut requests, mut input, mut nanousd) = (BTreeMap::<String, f64>::new(), 0, 0, 0);
        for (write, number) in writes.iter_mut().zip(0..) {
            write.number = number;
            let first = write.request(write.calls.len() - write.late, None);
            let last = write.request(write.calls.len(), write.corrected);
            metrics.committed(&[], std::slice::from_ref(&first));
            for _ in 0..write.repeats {
                // The second of equal writes finds what the first has written.
                metrics.committed(std::slice::from_ref(&first), std::slice::from_ref(&first));
            }
            metrics.committed(std::slice::from_ref(&first), std::slice::from_ref(&last));
            metrics.committed(std::slice::from_ref(&last), std::slice::from_ref(&last));
            requests += 1;
            for (call, place) in last.calls.iter().zip(0..) {
                let earlier: u64 = first.calls.get(place).map_or(0, |call| call.usage.tokens().input);
                input += call.usage.tokens().input.max(earlier);
                nanousd += u64::try_from(call.cost.charged().unwrap().0).unwrap();
            }
            let now = samples(&metrics.exposition(Format::Text));
            for (series, value) in &before {
                let counts = series.split('{').next().unwrap();
                if ["_total", "_bucket", "_sum", "_count"].iter().any(|end| counts.ends_with(end)) {
                    prop_assert!(now.get(series).is_some_and(|now| now >= value), "{series} fell from {value}");
                }
            }
            before = now;
        }
        prop_assert_eq!(sum(&before, catalogue::REQUESTS.name), f64::from(requests));
        prop_assert_eq!(sum(&before, catalogue::USER_REQUESTS.name), f64::from(requests));
        let tokens_in = |family: &Family| {
            let of = before.iter().filter(|(series, _)| series.starts_with(family.name) && series.contains("type=\"input\""));
            of.map(|(_, value)| value).sum::<f64>()
        };
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let (input, dollars) = (input as f64, nanousd as f64 / 1e9);
        prop_assert_eq!(tokens_in(&catalogue::TOKENS), input);
        prop_assert_eq!(tokens_in(&catalogue::USER_TOKENS), input);
        prop_assert!((sum(&before, catalogue::COST.name) - dollars).abs() < 1e-9);
        prop_assert!((sum(&before, catalogue::USER_COST.name) - dollars).abs() < 1e-9);
    }
}

fn series_of(page: &str, family: &Family) -> usize {
    let is = |series: &str| {
        let name = series.split('{').next().unwrap();
        name == family.name
            || ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(family.name))
    };
    page.lines().filter(|line| !line.starts_with('#') && is(line.split(' ').next().unwrap_or_default())).count()
}

/// Ten thousand models, a name of a megabyte, control characters, in every name there is.
#[test]
fn hostile_names_leave_the_series_within_the_bound() {
    let metrics = Metrics::new(&MetricsConfig { per_user_top: 5 });
    let long = "m".repeat(1 << 20);
    let junk = [&*long, "a\nb", "\u{0}", "\u{1b}[2J", "", "\u{fffd}"].map(str::to_owned);
    let names: Vec<String> = (0..10_000).map(|nth| format!("name-{nth}")).chain(junk).collect();
    for (name, number) in names.iter().zip(0..) {
        let mut request = request(number, name, name, Some(name), vec![call(number, 1, name, tokens(3, 4), 5)]);
        request.calls[0].provider = Some(name.as_str().into());
        request.calls[0].operation = Some(name.as_str().into());
        request.record.method = Some(name.as_str().into());
        request.record.status = u16::try_from(number).ok();
        let mut unknown = request.clone();
        unknown.record.key = key(number, 7);
        unknown.calls[0].key = key(number, 8);
        unknown.calls[0].usage = Usage::Unknown(tacho_core::domain::call::UnknownUsage::Stream);
        unknown.calls[0].cost = Cost::Unknown;
        let mut unpriced = request.clone();
        unpriced.record.key = key(number, 9);
        unpriced.calls[0].key = key(number, 10);
        unpriced.calls[0].cost = Cost::Unpriced;
        metrics.committed(&[], &[request, unknown, unpriced]);
        metrics.seen(name, 1.0);
    }
    let page = metrics.exposition(Format::OpenMetrics);
    assert!(!page.contains(&long) && page.lines().all(|line| line.chars().all(|char| !char.is_control())));
    let mut all = 0;
    for family in catalogue::GROUPS.iter().flat_map(|(_, families)| *families) {
        let series = series_of(&page, family);
        assert!(series <= family.bound(), "{} has {series} series", family.name);
        all += series;
    }
    assert_eq!(all, page.lines().filter(|line| !line.starts_with('#')).count(), "a series is of no family");
    assert!(samples(&page)["tacho_series_dropped_total{metric=\"tacho_tokens_total\"}"] > 10_000.0);
    // Every family that can be filled is, so that the bound is one that is met.
    assert_eq!(series_of(&page, &catalogue::INGEST_LAST_SPAN), 101);
}

/// Label sets, not only names, have a bound: a hundred services with three hundred models are not thirty thousand series.
#[test]
fn combinations_of_known_names_are_folded_too() {
    let metrics = Metrics::default();
    let mut number = 0;
    for service in 0..100 {
        for model in 0..50 {
            let (service, model) = (format!("s{service}"), format!("m{model}"));
            metrics.committed(
                &[],
                &[request(number, &service, "/", None, vec![call(number, 1, &model, tokens(2, 1), 1)])],
            );
            number += 1;
        }
    }
    let page = metrics.exposition(Format::Text);
    let series = series_of(&page, &catalogue::TOKENS);
    assert_eq!(series, catalogue::TOKENS.bound(), "what is full is just full");
    assert_eq!(sum(&samples(&page), catalogue::TOKENS.name), 3.0 * 5_000.0);
    let folded =
        format!("tacho_tokens_total{{model=\"{OTHER}\",provider=\"{OTHER}\",service=\"{OTHER}\",type=\"input\"}}");
    assert!(samples(&page)[&folded] > 0.0);
}
