//! Clients that send units until they are told to stop, each body until it is acknowledged: again after a refusal, after a cut
//! connection, and sometimes for no reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::client::{Call, Channel, call};
use crate::support::load::{self, Account, Shape};

const SENDERS: u64 = 4;

#[derive(Default)]
pub struct Sent {
    /// Of all that was acknowledged, which is all that was sent.
    pub account: Account,
    pub bodies: u64,
    pub refused: u64,
    /// Sends without an answer.
    pub broken: u64,
    /// Sends of what was acknowledged before.
    pub again: u64,
}

pub struct Senders {
    tasks: JoinSet<Sent>,
    stop: Arc<AtomicBool>,
}

impl Senders {
    pub fn start(shape: Shape, seed: u64, address: watch::Receiver<SocketAddr>) -> Self {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for number in 0..SENDERS {
            let sender = Sender {
                shape,
                next: Arc::clone(&next),
                random: StdRng::seed_from_u64(seed << 8 | number),
                address: address.clone(),
                channel: None,
                sent: Sent::default(),
            };
            let stop = Arc::clone(&stop);
            tasks.spawn(sender.run(stop));
        }
        Self { tasks, stop }
    }

    /// What was sent, once the last body is acknowledged.
    pub async fn finish(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for sent in self.tasks.join_all().await {
            load::add(&mut all.account, &sent.account);
            all.bodies += sent.bodies;
            all.refused += sent.refused;
            all.broken += sent.broken;
            all.again += sent.again;
        }
        all
    }
}

struct Sender {
    shape: Shape,
    next: Arc<AtomicU64>,
    random: StdRng,
    address: watch::Receiver<SocketAddr>,
    channel: Option<Channel>,
    sent: Sent,
}

impl Sender {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Sent {
        let mut earlier: Vec<Call> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let unit = self.shape.unit(self.next.fetch_add(1, Ordering::Relaxed));
            for body in unit.bodies {
                let call = call(body);
                self.deliver(&call).await;
                self.sent.bodies += 1;
                // Much later, and over any number of restarts.
                if self.random.random_bool(0.1) {
                    earlier.push(call);
                }
            }
            load::add(&mut self.sent.account, &unit.account);
            if !earlier.is_empty() && self.random.random_bool(0.1) {
                let again = earlier.swap_remove(self.random.random_range(0..earlier.len()));
                self.deliver(&again).await;
                self.sent.again += 1;
            }
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..15))).await;
        }
        for again in std::mem::take(&mut earlier) {
            self.deliver(&again).await;
            self.sent.again += 1;
        }
        self.sent
    }

    /// Until it is acknowledged.
    async fn deliver(&mut self, call: &Call) {
        loop {
            if self.random.random_bool(0.02) {
                // Sent, but the answer is not waited for; then sent again.
                let patience = Duration::from_micros(self.random.random_range(0..3_000));
                drop(tokio::time::timeout(patience, self.send(call)).await);
                self.channel = None;
                self.sent.broken += 1;
            }
            match self.send(call).await {
                Some(answer) if answer == "Ok" => return,
                Some(answer) => {
                    assert!(answer.starts_with("Unavailable: "), "{answer}");
                    self.sent.refused += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                None => {
                    self.channel = None;
                    self.sent.broken += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// `None` where the connection ended before the answer, or there was none.
    async fn send(&mut self, call: &Call) -> Option<String> {
        if self.address.has_changed().unwrap_or(false) || self.channel.is_none() {
            let address = *self.address.borrow_and_update();
            self.channel = Some(Channel::open(address).await.ok()?);
        }
        let answer = self.channel.as_mut()?.send(call).await.ok()?;
        // A server that is going away says so in its own words.
        (!answer.starts_with("no gRPC status")).then_some(answer)
    }
}
