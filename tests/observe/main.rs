//! What operators see: metrics in a real Prometheus, the panels over a day of them, alerts, notices.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../support/alertmanager.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod alertmanager;
mod alerts;
#[path = "../support/bot.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod bot;
mod chain;
#[path = "../support/client.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod client;
mod dashboards;
mod day;
mod deploy;
mod families;
#[path = "../support/load.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod load;
mod panels;
#[path = "../support/prometheus.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod prometheus;
mod promql;
mod scrape;
#[path = "../support/tacho.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod tacho_process;
#[path = "../support/usage.rs"]
mod usage;
