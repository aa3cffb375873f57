//! What Alertmanager talks to, on this machine: chats and a webhook over HTTP, a mail server. Each keeps what it was told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One message as it came.
#[derive(Clone, Debug)]
pub struct Told {
    /// Path of the request; `mail` for mail.
    pub to: String,
    /// The header `authorization`, or what the mail client logged in with.
    pub login: String,
    pub text: String,
}

impl Told {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// All that came, in order, and how far each receiver's were looked at.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<Told>>>);

impl Heard {
    fn keep(&self, told: Told) {
        self.0.lock().unwrap().push(told);
    }

    /// Takes out the first message to `to`, waiting for it.
    pub async fn next(&self, to: &str) -> Told {
        let started = Instant::now();
        loop {
            {
                let mut heard = self.0.lock().unwrap();
                if let Some(place) = heard.iter().position(|told| told.to == to) {
                    return heard.remove(place);
                }
                assert!(started.elapsed() < PATIENCE, "nothing came to {to}; waiting: {heard:#?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What came and nobody asked for.
    pub fn rest(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|told| told.to.clone()).collect()
    }
}

/// Answers every request as Slack, Telegram and a webhook would.
pub async fn http(heard: &Heard, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(take).with_state(heard.clone());
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn take(State(heard): State<Heard>, uri: Uri, headers: HeaderMap, text: String) -> &'static str {
    let login = headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
    let to = uri.path().to_owned();
    let is_telegram = to.ends_with("/sendMessage");
    heard.keep(Told { to, login, text });
    if is_telegram { r#"{"ok":true,"result":{"message_id":1,"date":1,"chat":{"id":1,"type":"group"}}}"# } else { "ok" }
}

/// Takes every mail.
pub async fn mail(heard: &Heard, tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = heard.clone();
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((connection, _)) = listener.accept().await {
            clients.spawn(converse(connection, heard.clone()));
        }
    });
    address
}

async fn converse(connection: TcpStream, heard: Heard) -> std::io::Result<()> {
    let (read, mut write) = connection.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut login = String::new();
    write.write_all(b"220 here\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let answer = match line.split([' ', ':']).next().unwrap_or("") {
            "EHLO" => "250-here\r\n250 AUTH PLAIN\r\n",
            "AUTH" => {
                line.clone_into(&mut login);
                "235 welcome\r\n"
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                let mut text = String::new();
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    // A dot at the begin of a line was doubled.
                    text += line.strip_prefix('.').unwrap_or(&line);
                    text.push('\n');
                }
                heard.keep(Told { to: "mail".to_owned(), login: login.clone(), text });
                "250 taken\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 fine\r\n",
        };
        write.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// The part of a mail that has this type, its quoted-printable undone.
pub fn part(mail: &str, kind: &str) -> String {
    let (_, after) = mail.split_once(&format!("Content-Type: {kind}")).unwrap_or_else(|| panic!("no {kind}: {mail}"));
    let (_, body) = after.split_once("\n\n").unwrap();
    let (body, _) = body.split_once("\n--").unwrap();
    // A line that ends in `=` goes on in the next.
    let joined = body.replace("=\n", "");
    let mut pieces = joined.split('=');
    let mut plain = pieces.next().unwrap_or("").as_bytes().to_vec();
    for piece in pieces {
        let (code, text) = piece.split_at(2);
        plain.push(u8::from_str_radix(code, 16).unwrap());
        plain.extend_from_slice(text.as_bytes());
    }
    String::from_utf8(plain).unwrap()
}
