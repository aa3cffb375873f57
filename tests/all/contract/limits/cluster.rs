//! Redis as a cluster: a slot moves while it is asked for, a master dies and its replica takes over.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::*;

/// Three masters with a third of the slots each, and a replica of the first.
struct Cluster {
    nodes: Vec<Node>,
}

struct Node {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
    id: String,
}

const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];
/// How long a master is missed before its replica takes over.
const MISSED: &str = "1000";
const PATIENCE: Duration = Duration::from_millis(500);

impl Cluster {
    async fn start() -> Self {
        let nodes: Vec<Node> = (0..4).map(|_| Node::start()).collect();
        let cluster = Self { nodes };
        for (node, epoch) in cluster.nodes.iter().zip(1..) {
            node.ok(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]);
        }
        for (node, (first, last)) in cluster.nodes.iter().zip(SLOTS) {
            node.ok(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
        }
        for node in &cluster.nodes[1..] {
            let (port, bus) = (node.port.to_string(), node.bus().to_string());
            cluster.nodes[0].ok(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let replica = &cluster.nodes[3];
        until("the nodes to know each other", || {
            let known = |node: &Node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:4")
            };
            cluster.nodes.iter().all(known)
        })
        .await;
        replica.ok(&["CLUSTER", "REPLICATE", &cluster.nodes[0].id]);
        until("the replica to follow", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"))
            .await;
        cluster
    }

    async fn client(&self) -> Store {
        let url: Vec<String> = self.nodes[..3].iter().map(|node| format!("redis://127.0.0.1:{}", node.port)).collect();
        Store::redis(&url.join(","), PATIENCE).await.unwrap()
    }

    /// Blocks: for a thread of its own.
    fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (slot, from, to) = (slot.to_string(), &self.nodes[from], &self.nodes[to]);
        let pause = || std::thread::sleep(Duration::from_millis(30));
        to.ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id]);
        from.ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]);
        loop {
            pause();
            let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            if keys.is_empty() {
                break;
            }
            let port = to.port.to_string();
            let moved = from.cli(&["MIGRATE", "127.0.0.1", &port, &keys, "0", "5000"]);
            assert!(moved == "OK" || moved == "NOKEY", "{moved}");
        }
        to.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.id]);
        pause();
        from.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &to.id]);
    }
}

impl Node {
    fn start() -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Both held at once, so that they differ.
        let (port, bus) = (free(), free());
        let [port, bus] = [port, bus].map(|listener| listener.local_addr().unwrap().port());
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--cluster-port", &bus.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"])
            .args(["--cluster-enabled", "yes", "--cluster-node-timeout", MISSED])
            // What the others hold is not gone with one of them.
            .args(["--cluster-require-full-coverage", "no"])
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: run tests/setup.sh");
        let mut node = Self { process, folder, port, id: String::new() };
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "redis did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        node.id = node.cli(&["CLUSTER", "MYID"]);
        node
    }

    fn bus(&self) -> String {
        let nodes = std::fs::read_to_string(self.folder.path().join("nodes.conf")).unwrap();
        let own = nodes.lines().find(|line| line.contains("myself")).unwrap();
        own.split('@').nth(1).unwrap().split([' ', ',']).next().unwrap().to_owned()
    }

    fn cli(&self, command: &[&str]) -> String {
        let asked = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(command).output().unwrap();
        String::from_utf8(asked.stdout).unwrap().trim_end().to_owned()
    }

    fn ok(&self, command: &[&str]) {
        let said = self.cli(command);
        assert_eq!(said, "OK", "{command:?}");
    }

    fn kill(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Of a key's name only what stands in braces counts.
fn slot(key: Key) -> u16 {
    let crc = key.to_string().bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    });
    crc % 16384
}

fn owner(key: Key) -> usize {
    SLOTS.iter().position(|(_, last)| slot(key) <= *last).unwrap()
}

/// An instance that holds as much as it gets of every key.
struct Taker {
    who: Reporter,
    store: Store,
    held: BTreeMap<Key, (u64, i64)>,
    failed: usize,
}

const LIMIT: i64 = 100;

impl Taker {
    async fn take(&mut self, keys: &[Key]) -> bool {
        let ask = |key: &Key| {
            let (version, held) = self.held.get(key).copied().unwrap_or_default();
            quota(*key, version + 1, held, quota_wish(1, 3, LIMIT))
        };
        let asks: Vec<Ask> = keys.iter().map(ask).collect();
        let answers = self.store.ask(&self.who, &asks, clock()).await;
        for (place, ask) in asks.iter().enumerate() {
            let known = self.held.entry(ask.key).or_default();
            known.0 = ask.version;
            known.1 += answers.as_ref().map_or(0, |answers| answers.told[place].map_or(0, granted));
        }
        self.failed += usize::from(answers.is_err());
        answers.is_ok()
    }
}

fn assert_never_more(takers: &[Taker], keys: &[Key]) {
    for key in keys {
        let sum: i64 = takers.iter().filter_map(|taker| taker.held.get(key)).map(|(_, held)| held).sum();
        assert!(sum <= LIMIT, "{key}: {sum}");
    }
}

#[tokio::test]
async fn a_cluster_moves_slots_and_masters_and_never_grants_more_than_there_is() {
    let mut cluster = Arc::new(Cluster::start().await);
    let mut takers = Vec::new();
    for name in ["one", "two"] {
        let store = cluster.client().await;
        takers.push(Taker { who: reporter(name, "l"), store, held: BTreeMap::new(), failed: 0 });
    }
    let mut keys: Vec<Key> = (0..120).map(|n| key("cluster", n)).collect();
    let moving = slot(*keys.iter().find(|key| owner(**key) == 1).unwrap());
    keys.extend((120..).map(|n| key("cluster", n)).filter(|key| slot(*key) == moving).take(6));

    // A slot moves from the second master to the third.
    let [one, two] = &mut takers[..] else { unreachable!() };
    let taking = async |taker: &mut Taker| {
        for _ in 0..25 {
            taker.take(&keys).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mover = Arc::clone(&cluster);
    let moved = tokio::task::spawn_blocking(move || mover.move_slot(moving, 1, 2));
    tokio::join!(taking(one), taking(two));
    moved.await.unwrap();
    assert_never_more(&takers, &keys);
    let failed = takers.iter().map(|taker| taker.failed).sum::<usize>();
    assert!(failed <= 10, "{failed} of 50 batches failed while a slot was moved");

    // Replication has caught up, then the first master dies.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Arc::get_mut(&mut cluster).unwrap().nodes[0].kill();
    let (dead, others): (Vec<Key>, Vec<Key>) = keys.iter().partition(|key| owner(**key) == 0);
    let killed = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut refused = 0;
    loop {
        let begun = Instant::now();
        refused += usize::from(!takers[0].take(&others).await);
        slowest = slowest.max(begun.elapsed());
        if takers[1].take(&dead).await {
            break;
        }
        assert!(killed.elapsed() < Duration::from_secs(20), "the replica did not take over");
    }
    assert!(killed.elapsed() > Duration::from_millis(100), "it was not away");
    assert_eq!(refused, 0, "keys of other masters were refused");
    assert!(slowest < PATIENCE, "{slowest:?}");

    // All goes on as before, to the last unit.
    for _ in 0..60 {
        for taker in &mut takers {
            taker.take(&keys).await;
        }
    }
    assert_never_more(&takers, &keys);
    for key in &keys {
        let sum: i64 = takers.iter().map(|taker| taker.held[key].1).sum();
        assert_eq!(sum, LIMIT, "{key}");
    }
}
