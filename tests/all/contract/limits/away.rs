//! A Redis that is away, stands still, or is none.

use tacho::limit::store::StoreError;

use super::*;

const PATIENCE: Duration = Duration::from_millis(250);

fn ask() -> Ask {
    quota(key("away", 0), 1, 0, None)
}

async fn asked(store: &Store) -> Result<(), StoreError> {
    store.ask(&reporter("n", "l"), &[ask()], clock()).await.map(drop)
}

/// Whatever it is, the next question or the one after it is answered.
async fn is_back(store: &Store) {
    let begun = Instant::now();
    while asked(store).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the store did not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_redis_that_is_gone_is_away_at_once_and_comes_back() {
    let mut redis = Redis::start();
    let store = Store::redis(&redis.url(), PATIENCE).await.unwrap();
    asked(&store).await.unwrap();
    for _ in 0..2 {
        redis.kill();
        for _ in 0..3 {
            let begun = Instant::now();
            let away = asked(&store).await;
            assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
            assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        }
        assert!(matches!(store.heartbeat(&"n".into(), PATIENCE, 0).await, Err(StoreError::Away(_))));
        redis.again();
        is_back(&store).await;
    }
    // One that was not there from the start is asked later as well.
    redis.kill();
    let early = Store::redis(&redis.url(), PATIENCE).await.unwrap();
    assert!(matches!(asked(&early).await, Err(StoreError::Away(_))));
    redis.again();
    is_back(&early).await;
}

/// The connection stands, only nothing comes. A caller that waits no longer leaves nothing behind.
#[tokio::test]
async fn a_redis_that_stands_still_is_away_in_time_and_comes_back() {
    let redis = Redis::start();
    let store = Store::redis(&redis.url(), PATIENCE).await.unwrap();
    asked(&store).await.unwrap();
    redis.signal("-STOP");
    let begun = Instant::now();
    let away = asked(&store).await;
    assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");
    assert!(begun.elapsed() < PATIENCE * 2, "{:?}", begun.elapsed());
    let left = join_all((0..5).map(|_| tokio::time::timeout(PATIENCE, asked(&store)))).await;
    assert!(left.iter().all(|left| !matches!(left, Ok(Ok(())))), "{left:?}");
    redis.signal("-CONT");
    is_back(&store).await;
}

#[tokio::test]
async fn what_somebody_must_mend_is_unusable() {
    for url in ["nonsense", "redis://127.0.0.1:port", "http://127.0.0.1", "redis://127.0.0.1:1,nonsense", ""] {
        let refused = Store::redis(url, PATIENCE).await.err();
        assert!(matches!(refused, Some(StoreError::Unusable(_))), "{url}: {refused:?}");
    }
    for url in ["postgres://127.0.0.1:port/x", "sqlite://?mode=none"] {
        let refused = Store::database(url).await.err();
        assert!(matches!(refused, Some(StoreError::Unusable(_))), "{url}: {refused:?}");
    }
    let redis = Redis::start();
    redis.cli(&["ACL", "SETUSER", "weak", "on", ">word", "~*", "+@connection"]);
    redis.cli(&["ACL", "SETUSER", "default", "off"]);
    for who in ["weak:word", "weak:wrong", "nobody:word", ""] {
        let url = format!("redis://{who}@127.0.0.1:{}", redis.port);
        let store = Store::redis(&url, PATIENCE).await.unwrap();
        let refused = store.heartbeat(&"n".into(), PATIENCE, 0).await;
        assert!(matches!(refused, Err(StoreError::Unusable(_))), "{who}: {refused:?}");
    }
}
