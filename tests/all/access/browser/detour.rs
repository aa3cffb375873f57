//! A port that hands its connections on to a server elsewhere, byte for byte, and can change which one that is: what a
//! browser sees of a host name that is made to lead to another server.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub struct Detour {
    server: watch::Sender<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Detour {
    /// From `address` to `server`.
    pub async fn open(address: SocketAddr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        let (sender, receiver) = watch::channel(server);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(carry(client, receiver.clone()));
            }
        });
        Self { server: sender, _tasks: tasks }
    }

    /// Ends all connections; new ones lead to this server.
    pub fn lead_to(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }
}

async fn carry(mut client: TcpStream, mut server: watch::Receiver<SocketAddr>) {
    let address = *server.borrow_and_update();
    let Ok(mut connection) = TcpStream::connect(address).await else { return };
    tokio::select! {
        // However it ends, both sides see the end.
        _ = copy_bidirectional(&mut client, &mut connection) => {}
        _ = server.changed() => {}
    }
}
