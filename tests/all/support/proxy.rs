//! A proxy in front of a server, which harms connections on command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to every connection, until another fault is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Nobody listens, and connections that were open are cut.
    Refuse,
    /// Each part of an answer comes so much later.
    Delay(Duration),
    /// The request reaches the server; after so many bytes of its answer the connection is cut.
    CutAfter(usize),
}

pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    cuts: watch::Sender<()>,
    answers_cut: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl FaultProxy {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (fault, cuts) = (watch::Sender::new(Fault::None), watch::Sender::new(()));
        let answers_cut = Arc::new(AtomicU64::new(0));
        let line = Line { server, fault: fault.subscribe(), cuts: cuts.subscribe(), answers_cut: answers_cut.clone() };
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, line));
        Self { address, fault, cuts, answers_cut, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// When it returns, new connections and new parts of answers meet this fault.
    pub async fn set(&self, fault: Fault) {
        let before = self.fault.send_replace(fault);
        if (before == Fault::Refuse) != (fault == Fault::Refuse) {
            while TcpStream::connect(self.address).await.is_err() != (fault == Fault::Refuse) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Ends all connections that are open; new ones are taken.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// How many answers `CutAfter` has cut.
    pub fn answers_cut(&self) -> u64 {
        self.answers_cut.load(Ordering::Relaxed)
    }
}

/// What a connection must know.
#[derive(Clone)]
struct Line {
    server: SocketAddr,
    fault: watch::Receiver<Fault>,
    cuts: watch::Receiver<()>,
    answers_cut: Arc<AtomicU64>,
}

async fn serve(mut listener: TcpListener, mut line: Line) {
    let address = listener.local_addr().unwrap();
    let mut connections = JoinSet::new();
    loop {
        if *line.fault.borrow_and_update() == Fault::Refuse {
            drop(listener);
            connections.shutdown().await;
            if line.fault.wait_for(|fault| *fault != Fault::Refuse).await.is_err() {
                return;
            }
            listener = TcpListener::bind(address).await.unwrap();
        }
        tokio::select! {
            accepted = listener.accept() => {
                let mut line = line.clone();
                // An earlier cut is none of this connection's.
                line.cuts.mark_unchanged();
                connections.spawn(line.carry(accepted.unwrap().0));
            }
            changed = line.fault.changed() => if changed.is_err() { return },
        }
    }
}

impl Line {
    async fn carry(mut self, mut client: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(self.server).await?;
        let (mut request, mut answer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        // Of the answer to what the client said last.
        let mut passed = 0;
        loop {
            tokio::select! {
                read = client.read(&mut request) => {
                    let length = read?;
                    if length == 0 {
                        return Ok(());
                    }
                    server.write_all(&request[..length]).await?;
                    passed = 0;
                }
                read = server.read(&mut answer) => {
                    let length = read?;
                    if length == 0 {
                        return Ok(());
                    }
                    let fault = *self.fault.borrow();
                    if let Fault::Delay(delay) = fault {
                        tokio::select! {
                            () = tokio::time::sleep(delay) => {}
                            _ = self.cuts.changed() => return Ok(()),
                        }
                    }
                    if let Fault::CutAfter(most) = fault && passed + length > most {
                        self.answers_cut.fetch_add(1, Ordering::Relaxed);
                        return client.write_all(&answer[..most.saturating_sub(passed)]).await;
                    }
                    client.write_all(&answer[..length]).await?;
                    passed += length;
                }
                _ = self.cuts.changed() => return Ok(()),
            }
        }
    }
}
