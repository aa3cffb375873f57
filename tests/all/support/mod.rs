//! What tests start and talk to: Tacho, the services around it, bots, clients, and load with an exact account.
//! Benches take single files from here.

pub mod alertmanager;
pub mod bot;
pub mod captures;
pub mod certificates;
pub mod chromium;
pub mod client;
pub mod fake_search;
pub mod half_refuser;
pub mod load;
pub mod postgres;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod search;
pub mod tacho_process;
pub mod tls_front;
pub mod usage;
