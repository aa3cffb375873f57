use expect_test::expect;

use super::super::LimitReading;
use super::*;

fn filled() -> Metrics {
    let metrics = Metrics::default();
    let odd = "/a\"b\\c";
    metrics.committed(&[], &[request(1, "bot", odd, None, vec![call(1, 1, "gpt-4o", tokens(900, 300), 5_250_000)])]);
    metrics.limits.stand(vec![LimitReading {
        limit: "budget".into(),
        amount: 20.0,
        overshoot_bound: 0.5,
        used_ratio: 0.8125,
        over: vec![(0.8, 3), (1.0, 0)],
        period: Some((86_400.0, 1_790_035_200.0)),
    }]);
    metrics
}

fn of(metrics: &Metrics, format: Format, families: &[&str]) -> String {
    let page = metrics.exposition(format);
    let wanted = |line: &&str| families.iter().any(|family| line.contains(family));
    page.lines().filter(wanted).map(|line| format!("{line}\n")).collect()
}

const SHOWN: [&str; 4] =
    ["tacho_requests", "tacho_cost_usd", "tacho_llm_call_duration_seconds", "tacho_limit_used_ratio"];

#[test]
fn prometheus_has_its_own_format() {
    expect![[r##"
        # HELP tacho_cost_usd_total Cost in US dollars.
        # TYPE tacho_cost_usd_total counter
        tacho_cost_usd_total{model="gpt-4o",provider="openai",service="bot"} 0.00525
        # HELP tacho_limit_used_ratio Used and held share of a limit, of the subject that has used most.
        # TYPE tacho_limit_used_ratio untyped
        tacho_limit_used_ratio{limit="budget",quantile="max"} 0.8125
        # HELP tacho_llm_call_duration_seconds Duration of calls.
        # TYPE tacho_llm_call_duration_seconds histogram
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.01"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.02"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.04"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.08"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.16"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.32"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.64"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="1.28"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="2.56"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="5.12"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="10.24"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="20.48"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="40.96"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="81.92"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="+Inf"} 1
        tacho_llm_call_duration_seconds_sum{model="gpt-4o",provider="openai"} 0.7
        tacho_llm_call_duration_seconds_count{model="gpt-4o",provider="openai"} 1
        # HELP tacho_requests_total Bot requests recorded.
        # TYPE tacho_requests_total counter
        tacho_requests_total{endpoint="/a\"b\\c",method="POST",service="bot",status="200"} 1
        tacho_series_dropped_total{metric="tacho_cost_usd_total"} 0
        tacho_series_dropped_total{metric="tacho_llm_call_duration_seconds"} 0
        tacho_series_dropped_total{metric="tacho_requests_total"} 0
    "##]]
    .assert_eq(&of(&filled(), Format::Text, &SHOWN));
}

#[test]
fn openmetrics_has_exemplars_and_an_end() {
    let metrics = filled();
    expect![[r##"
        # HELP tacho_cost_usd Cost in US dollars.
        # TYPE tacho_cost_usd counter
        tacho_cost_usd_total{model="gpt-4o",provider="openai",service="bot"} 0.00525 # {trace_id="00000000000000000000000000000002"} 0.00525
        # HELP tacho_limit_used_ratio Used and held share of a limit, of the subject that has used most.
        # TYPE tacho_limit_used_ratio unknown
        tacho_limit_used_ratio{limit="budget",quantile="max"} 0.8125
        # HELP tacho_llm_call_duration_seconds Duration of calls.
        # TYPE tacho_llm_call_duration_seconds histogram
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.01"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.02"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.04"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.08"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.16"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.32"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="0.64"} 0
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="1.28"} 1 # {trace_id="00000000000000000000000000000002"} 0.7
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="2.56"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="5.12"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="10.24"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="20.48"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="40.96"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="81.92"} 1
        tacho_llm_call_duration_seconds_bucket{model="gpt-4o",provider="openai",le="+Inf"} 1
        tacho_llm_call_duration_seconds_sum{model="gpt-4o",provider="openai"} 0.7
        tacho_llm_call_duration_seconds_count{model="gpt-4o",provider="openai"} 1
        # HELP tacho_requests Bot requests recorded.
        # TYPE tacho_requests counter
        tacho_requests_total{endpoint="/a\"b\\c",method="POST",service="bot",status="200"} 1
        tacho_series_dropped_total{metric="tacho_cost_usd_total"} 0
        tacho_series_dropped_total{metric="tacho_llm_call_duration_seconds"} 0
        tacho_series_dropped_total{metric="tacho_requests_total"} 0
    "##]].assert_eq(&of(&metrics, Format::OpenMetrics, &SHOWN));
    assert!(metrics.exposition(Format::OpenMetrics).ends_with("\n# EOF\n"));
}

/// One series in both formats, so that a server that changes between them sees no second one.
#[test]
fn both_formats_have_the_same_series() {
    let metrics = filled();
    let [text, open] = [Format::Text, Format::OpenMetrics].map(|format| samples(&metrics.exposition(format)));
    assert_eq!(text, open);
    assert!(text.contains_key("tacho_journal_fsync_seconds_bucket{le=\"1.0\"}"));
    assert!(text.contains_key("tacho_limit_check_duration_seconds_bucket{le=\"0.00001\"}"));
}

/// What is gone has no series: neither a limit that was taken out, nor a drift that is not known.
#[test]
fn a_snapshot_is_replaced_as_a_whole() {
    let metrics = filled();
    assert!(
        of(&metrics, Format::Text, &["\"budget\""])
            .contains("tacho_limit_subjects_over{limit=\"budget\",threshold=\"0.8\"} 3\n")
    );
    assert_eq!(of(&metrics, Format::Text, &["tacho_ledger_drift"]), "");
    metrics.limits.stand(Vec::new());
    metrics.drift(Default::default());
    assert_eq!(of(&metrics, Format::Text, &["budget"]), "");
    assert!(of(&metrics, Format::Text, &["tacho_ledger_drift"]).contains("tacho_ledger_drift{counter=\"tokens\"} 0\n"));
}
