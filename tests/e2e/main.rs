//! The real binary with real clients and both databases.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../support/alertmanager.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod alertmanager;
#[path = "../support/bot.rs"]
mod bot;
#[path = "../support/captures.rs"]
mod captures;
#[path = "../support/client.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod client;
mod clients;
mod durability;
mod limits;
#[path = "../support/load.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod load;
mod notices;
#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod postgres;
#[path = "../support/prometheus.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod prometheus;
#[path = "../support/redis.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod redis;
#[path = "../support/tacho.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod tacho_process;
mod truth;
