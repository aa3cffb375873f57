//! Redis, one or a cluster. A script for each kind of state has the same rules as shared.rs; each call is for one key, so that a
//! cluster can put every key where it likes.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    Pipeline, RedisError, RedisFuture, Script, ScriptInvocation, TlsCertificates, Value,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::shared::{Ask, Key, Ledger, NodeId, QuotaAsk, RateAsk, Reporter, Told, What};
use super::store::{Answers, StoreError};
use crate::remote::{Address, CertificateFiles, Certificates, Misconfigured, Target};

pub struct RedisStore {
    servers: Servers,
    timeout: Duration,
    /// Opened when it is needed, and again when it broke; since when it stands.
    connection: Mutex<Option<(Connection, Instant)>>,
    rate: Script,
    quota: Script,
    nodes: Script,
}

enum Servers {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
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
    pub async fn open(target: &Target, timeout: Duration) -> Result<Self, StoreError> {
        let servers = Servers::of(target, timeout).map_err(unusable)?;
        let script = |code| Script::new(code);
        let store = Self {
            servers,
            timeout,
            connection: Mutex::default(),
            rate: script(include_str!("rate.lua")),
            quota: script(include_str!("quota.lua")),
            nodes: script(include_str!("nodes.lua")),
        };
        store.warn_of_eviction().await;
        Ok(store)
    }

    /// Whether it could be opened, but for the server.
    pub fn check(target: &Target) -> Result<(), StoreError> {
        Servers::of(target, Duration::ZERO).map(drop).map_err(unusable)
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
        let opening = tokio::time::timeout(self.timeout * OPENING, self.servers.open(self.timeout)).await;
        let opened = opening.map_err(|late| StoreError::Away(late.into()))?.map_err(meaning)?;
        *slot = Some((opened.clone(), Instant::now()));
        Ok((opened, true))
    }

    /// That to a cluster learns by it who has taken over from whom, but its healthy part should not wait for that too often.
    async fn forget(&self) {
        let mut slot = self.connection.lock().await;
        let too_soon = |since: &Instant| matches!(self.servers, Servers::Cluster(_)) && since.elapsed() < SETTLING;
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

/// The URLs as the library understands them. What it says of one that it does not is not told: it may repeat it.
pub(super) fn addresses(address: &Address) -> Result<Vec<ConnectionInfo>, &'static str> {
    let parsed = address.parts().map(|part| part.into_connection_info());
    let parsed: Result<Vec<_>, _> = parsed.collect();
    parsed.map_err(|_| "a Redis is redis://HOST:PORT or, with TLS, rediss://HOST:PORT; several are parted by commas")
}

fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unusable(error.into())
}

impl Servers {
    fn of(target: &Target, timeout: Duration) -> Result<Self, Misconfigured> {
        let files = &target.files;
        let mut servers = addresses(&target.address).map_err(|problem| files.problem("url", problem))?;
        let certificates = certificates(files)?;
        let is_plain = |server: &ConnectionInfo| !matches!(server.addr(), ConnectionAddr::TcpTls { .. });
        if certificates.is_some() && servers.iter().any(is_plain) {
            return Err(files.problem("ca_file", "needs rediss:// in the URL, which is redis with TLS"));
        }
        let failed = |error: RedisError| files.problem("url", error);
        if servers.len() == 1 {
            let server = servers.remove(0);
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(server, certificates),
                None => Client::open(server),
            };
            return Ok(Self::One(Box::new(client.map_err(failed)?)));
        }
        let mut builder = ClusterClientBuilder::new(servers)
            .connection_timeout(timeout * OPENING)
            .response_timeout(timeout)
            // Within that time, over all: the client would pause for a second before it tries again.
            .min_retry_wait(RETRY.0)
            .max_retry_wait(RETRY.1);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        Ok(Self::Cluster(Box::new(builder.build().map_err(failed)?)))
    }

    async fn open(&self, timeout: Duration) -> Result<Connection, RedisError> {
        match self {
            Self::One(client) => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(timeout * OPENING))
                    .set_response_timeout(Some(timeout));
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
            }
            Self::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }
}

/// `None` where the system's authorities and no certificate of our own do.
fn certificates(files: &CertificateFiles) -> Result<Option<TlsCertificates>, Misconfigured> {
    let Certificates { authority, own } = files.read()?;
    if authority.is_none() && own.is_none() {
        return Ok(None);
    }
    let client_tls = own.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    Ok(Some(TlsCertificates { client_tls, root_cert: authority }))
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
