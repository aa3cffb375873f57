//! Redis, one or a cluster. A script for each kind of state has the same rules as shared.rs; each call is for one key, so that a
//! cluster can put every key where it likes.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, Script, ScriptInvocation, Value,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::shared::{Ask, Key, Ledger, NodeId, QuotaAsk, RateAsk, Reporter, Told, What};
use super::store::{Answers, StoreError};

pub struct RedisStore {
    address: Address,
    timeout: Duration,
    /// Opened when it is needed, and again when it broke; since when it stands.
    connection: Mutex<Option<(Connection, Instant)>>,
    rate: Script,
    quota: Script,
    nodes: Script,
}

enum Address {
    One(Box<Client>),
    Cluster(Vec<String>),
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

const NODES: &str = "tacho:instances";
/// What a server says to one who may not, or not like this.
const REFUSALS: [&str; 5] = ["NOAUTH", "WRONGPASS", "NOPERM", "WRONGTYPE", "MOVED"];
/// How long a connection to a cluster is kept at least.
const SETTLING: Duration = Duration::from_secs(1);
/// Milliseconds before a cluster is asked once more, as a slot of it may have moved.
const RETRY: (u64, u64) = (1, 20);
/// Opening takes some round trips more than an ask, in a cluster to several servers.
const OPENING: u32 = 20;

impl RedisStore {
    /// An address that is none is an error; a server that is away is not, as it is asked later.
    pub async fn open(url: &str, timeout: Duration) -> Result<Self, StoreError> {
        let addresses: Vec<String> = url.split(',').map(|address| address.trim().to_owned()).collect();
        let client = |address: &str| Client::open(address).map_err(|error| StoreError::Unusable(error.into()));
        let address = match addresses.as_slice() {
            [one] => Address::One(Box::new(client(one)?)),
            several => {
                several.iter().try_for_each(|address| client(address).map(drop))?;
                Address::Cluster(addresses)
            }
        };
        let script = |code| Script::new(code);
        let store = Self {
            address,
            timeout,
            connection: Mutex::default(),
            rate: script(include_str!("rate.lua")),
            quota: script(include_str!("quota.lua")),
            nodes: script(include_str!("nodes.lua")),
        };
        store.warn_of_eviction().await;
        Ok(store)
    }

    /// An answer for each ask that got one: of a cluster a part can be away. An error where nobody answers.
    pub async fn ask(&self, who: &Reporter, asks: &[Ask]) -> Result<Answers, StoreError> {
        let (connection, is_new) = self.connection().await?;
        let mut answers = self.put_all(connection, who, asks).await;
        if answers.iter().any(is_broken) {
            self.forget().await;
        }
        if !is_new && !answers.is_empty() && answers.iter().all(is_cut) {
            // It broke while nobody used it. Reports say the whole, so saying it again does no harm.
            answers = self.put_all(self.connection().await?.0, who, asks).await;
        }
        let now = answers.iter().flatten().map(|(now, _)| *now).max();
        match (now, answers.iter().position(Result::is_err)) {
            (None, Some(failed)) => self.checked(answers.swap_remove(failed).map(|_| unreachable!("it failed"))).await,
            (now, _) => {
                let told = answers.into_iter().map(|answer| answer.ok().map(|(_, told)| told));
                Ok(Answers { now: now.unwrap_or(0), told: told.collect() })
            }
        }
    }

    async fn put_all(
        &self,
        connection: Connection,
        who: &Reporter,
        asks: &[Ask],
    ) -> Vec<Result<(u64, Told), RedisError>> {
        join_all(asks.iter().map(|ask| self.put(connection.clone(), who, ask))).await
    }

    /// No time at all: it is gone.
    pub async fn heartbeat(&self, node: &NodeId, ttl: Duration) -> Result<u32, StoreError> {
        let (mut connection, _) = self.connection().await?;
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let mut call = self.nodes.key(NODES);
        let lived = call.arg(&**node).arg(ttl).invoke_async(&mut connection).await;
        self.checked(lived).await
    }

    async fn put(&self, mut connection: Connection, who: &Reporter, ask: &Ask) -> Result<(u64, Told), RedisError> {
        match &ask.what {
            What::Rate(rate) => {
                let answer: [i64; 3] = self.rate_call(who, ask, rate).invoke_async(&mut connection).await?;
                let [now, tat, granted] = answer;
                Ok((now.unsigned_abs(), Told::Rate { tat: tat.unsigned_abs(), granted }))
            }
            What::Quota(quota) => {
                let answer: [i64; 6] = self.quota_call(who, ask, quota).invoke_async(&mut connection).await?;
                let [now, spent, version, used, others, granted] = answer;
                let ledger = u64::try_from(version).ok().map(|version| Ledger { version, used });
                Ok((now.unsigned_abs(), Told::Quota { spent, ledger, others, granted }))
            }
        }
    }

    fn rate_call(&self, who: &Reporter, ask: &Ask, rate: &RateAsk) -> ScriptInvocation<'_> {
        let (least, most, capacity) = rate.wish.map_or((-1, 0, 0), |wish| (wish.least, wish.most, wish.capacity));
        let mut call = self.rate.key(name(ask.key));
        call.arg(&*who.node).arg(ask.incarnation).arg(ask.version).arg(rate.total).arg(rate.acked).arg(rate.floor);
        call.arg(rate.cell).arg(least).arg(most).arg(capacity).arg(rate.own);
        call
    }

    fn quota_call(&self, who: &Reporter, ask: &Ask, quota: &QuotaAsk) -> ScriptInvocation<'_> {
        let (least, most, limit) = quota.wish.map_or((-1, 0, 0), |wish| (wish.least, wish.most, wish.limit));
        let (version, used) =
            quota.ledger.map_or(("-1".to_owned(), 0), |ledger| (ledger.version.to_string(), ledger.used));
        let mut call = self.quota.key(name(ask.key));
        call.arg(&*who.node).arg(&*who.ledger).arg(ask.incarnation).arg(ask.version).arg(quota.out).arg(quota.until);
        call.arg(version).arg(used).arg(least).arg(most).arg(limit).arg(quota.ends);
        call
    }

    /// The connection, and whether it was opened just now.
    async fn connection(&self) -> Result<(Connection, bool), StoreError> {
        let mut slot = self.connection.lock().await;
        if let Some((connection, _)) = &*slot {
            return Ok((connection.clone(), false));
        }
        let opening = tokio::time::timeout(self.timeout * OPENING, self.address.open(self.timeout)).await;
        let opened = opening.map_err(|late| StoreError::Away(late.into()))?.map_err(meaning)?;
        *slot = Some((opened.clone(), Instant::now()));
        Ok((opened, true))
    }

    /// That to a cluster learns by it who has taken over from whom, but its healthy part should not wait for that too often.
    async fn forget(&self) {
        let mut slot = self.connection.lock().await;
        let too_soon = |since: &Instant| matches!(self.address, Address::Cluster(_)) && since.elapsed() < SETTLING;
        if slot.as_ref().is_some_and(|(_, since)| !too_soon(since)) {
            *slot = None;
        }
    }

    /// A connection that broke is opened anew by whoever comes next.
    async fn checked<T>(&self, answer: Result<T, RedisError>) -> Result<T, StoreError> {
        if is_broken(&answer) {
            self.forget().await;
        }
        answer.map_err(meaning)
    }

    /// Limits that the server forgets when its memory is full are no limits.
    async fn warn_of_eviction(&self) {
        let Ok((Connection::One(mut connection), _)) = self.connection().await else { return };
        let asked: Result<Vec<String>, _> =
            redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(&mut connection).await;
        if let Some(policy) =
            asked.ok().and_then(|answer| answer.into_iter().nth(1)).filter(|policy| policy.starts_with("allkeys"))
        {
            tracing::warn!(
                maxmemory_policy = policy,
                "redis may evict limits: set maxmemory-policy to noeviction or volatile-ttl"
            );
        }
    }
}

/// The braces let a cluster hash nothing but the key.
fn name(key: Key) -> String {
    format!("tacho:limit:{{{key}}}")
}

fn is_broken<T>(answer: &Result<T, RedisError>) -> bool {
    answer
        .as_ref()
        .err()
        .is_some_and(|error| error.is_unrecoverable_error() || error.is_io_error() || error.is_timeout())
}

/// Cut, and not only slow.
fn is_cut<T>(answer: &Result<T, RedisError>) -> bool {
    is_broken(answer) && answer.as_ref().err().is_some_and(|error| !error.is_timeout())
}

fn meaning(error: RedisError) -> StoreError {
    match error.kind() {
        _ if error.code().is_some_and(|code| REFUSALS.contains(&code)) => StoreError::Unusable(error.into()),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::UnexpectedReturnType => {
            StoreError::Unusable(error.into())
        }
        _ => StoreError::Away(error.into()),
    }
}

impl Address {
    async fn open(&self, timeout: Duration) -> Result<Connection, RedisError> {
        match self {
            Self::One(client) => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(timeout * OPENING))
                    .set_response_timeout(Some(timeout));
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
            }
            Self::Cluster(addresses) => {
                let client = ClusterClientBuilder::new(addresses.clone())
                    .connection_timeout(timeout * OPENING)
                    .response_timeout(timeout)
                    // Within that time, over all: the client would pause for a second before it tries again.
                    .min_retry_wait(RETRY.0)
                    .max_retry_wait(RETRY.1)
                    .build()?;
                client.get_async_connection().await.map(Connection::Cluster)
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(commands, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
