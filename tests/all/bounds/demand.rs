//! Checks over connections that stay open, each at its own steady pace, and what came of every one of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// One check and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    pub sent: Instant,
    pub heard: Instant,
    pub admitted: bool,
    pub degraded: bool,
    pub retry_after: bool,
}

/// What is asked of some instances together.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// The agent that the checks name, which picks their limit.
    pub agent: &'static str,
    pub per_second: u32,
    pub connections_each: u32,
    pub lasts: Duration,
}

impl Demand {
    /// Every connection asks in turn; one that is late does not catch up, so that a slow machine lowers the demand and no more.
    pub async fn on(self, instances: &[SocketAddr]) -> Vec<Said> {
        let connections = u32::try_from(instances.len()).unwrap() * self.connections_each;
        let pause = Duration::from_secs(1) * connections / self.per_second;
        let begun = Instant::now();
        let mut asking = JoinSet::new();
        for nth in 0..connections {
            let address = instances[usize::try_from(nth).unwrap() % instances.len()];
            asking.spawn(async move {
                let mut connection = Connection::open(address).await;
                let body = format!(r#"{{"user":"ann","agent":"{}"}}"#, self.agent);
                let (mut said, mut next) = (Vec::new(), begun + pause * nth / connections);
                while next < begun + self.lasts {
                    tokio::time::sleep_until(next.into()).await;
                    said.push(connection.check(&body).await);
                    next = (next + pause).max(Instant::now());
                }
                said
            });
        }
        let mut said = asking.join_all().await.concat();
        said.sort_by_key(|said| said.sent);
        said
    }
}

/// One HTTP connection that stays open.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub async fn check(&mut self, body: &str) -> Said {
        let sent = Instant::now();
        let (head, body) = self.ask("POST", "/v1/check", body).await;
        let status = head.split(' ').nth(1).unwrap();
        assert!(status == "200" || status == "429", "{head}\n{body}");
        Said {
            sent,
            heard: Instant::now(),
            admitted: status == "200",
            degraded: body.contains(r#""degraded":true"#),
            retry_after: header(&head, "retry-after").is_some(),
        }
    }

    /// Head and body of the answer.
    pub async fn ask(&mut self, method: &str, path: &str, body: &str) -> (String, String) {
        let length = body.len();
        let ask = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(ask.as_bytes()).await.unwrap();
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await;
        };
        let head = String::from_utf8(self.read[..end].to_vec()).unwrap();
        let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
        while self.read.len() < end + length {
            self.more().await;
        }
        let body = String::from_utf8(self.read[end..end + length].to_vec()).unwrap();
        self.read.drain(..end + length);
        (head, body)
    }

    async fn more(&mut self) {
        assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "the connection ended before the answer");
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// What one metric of an instance says, by its name and labels as they stand there.
pub async fn metric(instance: SocketAddr, name: &str) -> Option<f64> {
    let (_, text) = Connection::open(instance).await.ask("GET", "/metrics", "").await;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The most that was admitted in any window beyond what a bucket of `burst` and `rate` a second allows. A window begins as a check
/// was sent and ends as one was answered, so what is counted in it was decided in it. Windows of the first `from` on.
pub fn worst_excess(said: &[Said], burst: f64, rate: f64, from: Option<Instant>) -> f64 {
    let admitted: Vec<&Said> = said.iter().filter(|said| said.admitted).collect();
    // In the order of their answers; of the beginnings some hundred will do, the first ones among them.
    let mut by_answer = admitted.clone();
    by_answer.sort_by_key(|said| said.heard);
    let step = (admitted.len() / 400).max(1);
    let later = admitted.iter().filter(|said| from.is_none_or(|from| said.sent >= from));
    let windows = later.step_by(step).map(|first| {
        let mut count = 0.0;
        let mut worst = f64::NEG_INFINITY;
        for said in by_answer.iter().filter(|said| said.sent >= first.sent) {
            count += 1.0;
            let window = (said.heard - first.sent).as_secs_f64();
            worst = f64::max(worst, count - burst - rate * window);
        }
        worst
    });
    windows.fold(f64::NEG_INFINITY, f64::max)
}

/// At the median, at the 99th percentile, and the longest.
pub fn waits<'s>(said: impl Iterator<Item = &'s Said>) -> [Duration; 3] {
    let mut times: Vec<Duration> = said.map(|said| said.heard - said.sent).collect();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
    [at(50), at(99), at(100)]
}
