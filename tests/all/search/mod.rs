//! Elasticsearch and OpenSearch: the real servers that tests start, and the fake that holds a client to what they
//! demand.

mod alike;
mod drill;
mod export;
mod fake;
mod faults;
mod proxy;
mod servers;
