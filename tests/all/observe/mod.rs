//! What operators see: metrics in a real Prometheus, the panels over a day of them, alerts, notices.

mod alerts;
mod chain;
mod dashboards;
mod day;
mod deploy;
mod families;
mod panels;
mod promql;
mod scrape;
