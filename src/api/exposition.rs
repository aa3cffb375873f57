//! The text of a scrape. Writing out many thousand series takes a while, so it is not done where spans are taken, and
//! once for all who ask meanwhile: a thousand scrapes at a time are two texts and not a thousand.

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::task::JoinError;
use tokio::time::Instant;

/// Writes the whole registry, in OpenMetrics or in Prometheus' own format.
type Write = std::sync::Arc<dyn Fn(bool) -> String + Send + Sync>;

pub(crate) struct Expositions {
    write: Write,
    /// The last text of each format, and when its writing began.
    last: [Mutex<Option<(Instant, Bytes)>>; 2],
}

impl Expositions {
    pub(crate) fn new(write: Write) -> Self {
        Self { write, last: Default::default() }
    }

    /// A text that is no older than the question.
    pub(super) async fn text(&self, openmetrics: bool) -> Result<Bytes, JoinError> {
        let asked = Instant::now();
        let mut last = self.last[usize::from(openmetrics)].lock().await;
        if let Some((_, text)) = last.as_ref().filter(|(begun, _)| *begun >= asked) {
            return Ok(text.clone());
        }
        let (begun, write) = (Instant::now(), self.write.clone());
        let text = Bytes::from(tokio::task::spawn_blocking(move || write(openmetrics)).await?);
        *last = Some((begun, text.clone()));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_meanwhile_get_the_same_text() {
        let written = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&written);
        let expositions = Expositions::new(Arc::new(move |_| {
            std::thread::sleep(Duration::from_millis(50));
            count.fetch_add(1, Ordering::Relaxed).to_string()
        }));
        let asks = (0..100).map(|_| expositions.text(false));
        let texts = futures_util::future::join_all(asks).await;
        assert!(texts.into_iter().all(|text| text.is_ok()));
        assert!(written.load(Ordering::Relaxed) <= 2);
        let fresh = expositions.text(false).await.unwrap();
        assert_eq!(fresh, (written.load(Ordering::Relaxed) - 1).to_string());
    }
}
