//! One case after the other, each on keys of its own.

use super::*;

pub async fn all(place: &Place<'_>) {
    a_report_that_comes_twice_charges_once(place).await;
    a_lost_answer_is_made_good(place).await;
    a_node_that_forgot_begins_anew(place).await;
    a_changed_limit_carries_its_backlog_along(place).await;
    what_is_given_back_is_no_credit(place).await;
    a_share_that_is_over_counts_no_longer(place).await;
    a_ledger_goes_by_its_version(place).await;
    great_amounts_stay_exact(place).await;
    a_store_that_forgot_is_told_again(place).await;
    nodes_are_counted(place).await;
    if let Some(redis) = place.redis {
        scripts_that_are_gone_are_sent_again(place, redis).await;
        keys_end_with_what_they_hold(place, redis).await;
    }
}

struct Bucket {
    backlog: i64,
    granted: i64,
}

impl Place<'_> {
    /// The backlog in whole seconds, as some time passes between asks.
    async fn rate(&self, who: &Reporter, ask: Ask) -> Bucket {
        let answers = self.store.ask(who, &[ask], clock()).await.unwrap();
        let Told::Rate { tat, granted } = answers.told[0].unwrap() else { panic!("{answers:?}") };
        let backlog = i64::try_from(tat).unwrap() - i64::try_from(answers.now).unwrap();
        Bucket { backlog: (backlog + SECOND / 2).div_euclid(SECOND), granted: granted / SECOND }
    }

    /// spent, others, granted
    async fn quota(&self, who: &Reporter, ask: Ask) -> (i64, i64, i64) {
        let answers = self.store.ask(who, &[ask], clock()).await.unwrap();
        let Told::Quota { spent, others, granted, .. } = answers.told[0].unwrap() else { panic!("{answers:?}") };
        (spent, others, granted)
    }
}

fn seconds(key: Key, version: u64, total: i64, acked: i64, least: i64) -> Ask {
    let wish =
        (least > 0).then_some(RateWish { least: least * SECOND, most: least * SECOND, capacity: 1_000 * SECOND });
    let what = RateAsk { total: total * SECOND, acked: acked * SECOND, floor: 0, own: JUST_NOW, cell: 1_000, wish };
    Ask { key, incarnation: 1, version, what: What::Rate(what) }
}

async fn a_report_that_comes_twice_charges_once(place: &Place<'_>) {
    let (who, of) = (reporter("n", "l"), key("twice", 0));
    for (version, total, backlog) in [(1, 100, 100), (1, 100, 100), (2, 300, 300), (1, 100, 300), (2, 300, 300)] {
        let found = place.rate(&who, seconds(of, version, total, 0, 0)).await;
        assert_eq!(found.backlog, backlog, "{}: version {version}", place.name);
    }
    // Nor is a wish granted twice.
    assert_eq!(place.rate(&who, seconds(of, 3, 300, 0, 50)).await.granted, 50);
    assert_eq!(place.rate(&who, seconds(of, 3, 300, 0, 50)).await.granted, 0);
    let of = key("twice", 1);
    assert_eq!(place.quota(&who, quota(of, 1, 10, quota_wish(5, 5, 100))).await, (0, 0, 5));
    assert_eq!(place.quota(&who, quota(of, 1, 10, quota_wish(5, 5, 100))).await, (0, 0, 0));
    assert_eq!(place.quota(&reporter("m", "l"), quota(of, 1, 0, None)).await, (0, 15, 0));
}

/// The node did not hear of the grant, so its next report does not hold it.
async fn a_lost_answer_is_made_good(place: &Place<'_>) {
    let (who, other, of) = (reporter("n", "l"), reporter("m", "l"), key("lost", 0));
    assert_eq!(place.rate(&who, seconds(of, 1, 100, 0, 50)).await.granted, 50);
    let back = place.rate(&who, seconds(of, 2, 120, 0, 0)).await;
    assert_eq!(back.backlog, 120, "{}", place.name);
    let of = key("lost", 1);
    assert_eq!(place.quota(&who, quota(of, 1, 10, quota_wish(5, 50, 100))).await.2, 50);
    assert_eq!(place.quota(&who, quota(of, 2, 12, None)).await.2, 0);
    assert_eq!(place.quota(&other, quota(of, 1, 0, None)).await.1, 12, "{}", place.name);
}

/// Its totals begin with nothing again, what it charged before stays. What comes late from before is not heard.
async fn a_node_that_forgot_begins_anew(place: &Place<'_>) {
    let (who, of) = (reporter("n", "l"), key("anew", 0));
    let of_life = |incarnation, ask: Ask| Ask { incarnation, ..ask };
    assert_eq!(place.rate(&who, of_life(1, seconds(of, 7, 100, 0, 0))).await.backlog, 100);
    assert_eq!(place.rate(&who, of_life(2, seconds(of, 1, 0, 0, 0))).await.backlog, 100);
    assert_eq!(place.rate(&who, of_life(2, seconds(of, 2, 30, 0, 0))).await.backlog, 130);
    assert_eq!(place.rate(&who, of_life(1, seconds(of, 8, 110, 100, 0))).await.backlog, 130, "{}", place.name);
    let (other, of) = (reporter("m", "l"), key("anew", 1));
    assert_eq!(place.quota(&who, of_life(1, quota(of, 9, 70, None))).await, (0, 0, 0));
    assert_eq!(place.quota(&who, of_life(2, quota(of, 1, 5, quota_wish(95, 95, 100)))).await, (0, 0, 95));
    assert_eq!(place.quota(&other, quota(of, 1, 0, quota_wish(1, 1, 100))).await, (0, 100, 0), "{}", place.name);
}

/// A month's bucket that is nearly full, by cells that Lua does not multiply exactly: right to the microsecond and one more.
async fn a_changed_limit_carries_its_backlog_along(place: &Place<'_>) {
    let (who, of) = (reporter("n", "l"), key("carry", 0));
    let oracle = Store::memory();
    let mut now = clock();
    for (version, cell) in (1..).zip([2_592_000_000_000, 864_000_000_000, 2_592_000_000_000, 77]) {
        let what = RateAsk { total: 2_500_000 * SECOND, acked: 0, floor: 0, own: JUST_NOW, cell, wish: None };
        let ask = Ask { key: of, incarnation: 1, version, what: What::Rate(what) };
        let found = place.store.ask(&who, std::slice::from_ref(&ask), now).await.unwrap();
        let expected = oracle.ask(&who, &[ask], found.now).await.unwrap();
        let (Told::Rate { tat, .. }, Told::Rate { tat: about, .. }) =
            (found.told[0].unwrap(), expected.told[0].unwrap())
        else {
            panic!("{found:?}")
        };
        assert!(tat.abs_diff(about) <= version, "{}: {tat} {about}", place.name);
        now = clock();
    }
}

/// A bucket is never more than empty: who gives back more than is in it has nothing of it later.
async fn what_is_given_back_is_no_credit(place: &Place<'_>) {
    let (who, of) = (reporter("n", "l"), key("credit", 0));
    assert_eq!(place.rate(&who, seconds(of, 1, 100, 0, 0)).await.backlog, 100);
    assert_eq!(place.rate(&who, seconds(of, 2, -300, 100, 0)).await.backlog, 0, "{}", place.name);
    assert_eq!(place.rate(&who, seconds(of, 3, -290, -300, 0)).await.backlog, 10, "{}", place.name);
    // The answer before was lost: the store still knows what it has.
    let of = key("credit", 1);
    assert_eq!(place.rate(&who, seconds(of, 1, -60, 0, 0)).await.backlog, 0);
    assert_eq!(place.rate(&who, seconds(of, 2, 10, 0, 0)).await.backlog, 70, "{}", place.name);
}

async fn a_share_that_is_over_counts_no_longer(place: &Place<'_>) {
    let (who, other, of) = (reporter("n", "l"), reporter("m", "l"), key("over", 0));
    let mut ask = quota(of, 1, 60, None);
    let What::Quota(what) = &mut ask.what else { unreachable!() };
    what.until = clock() + 300_000;
    place.quota(&who, ask).await;
    assert_eq!(place.quota(&other, quota(of, 1, 0, quota_wish(50, 50, 100))).await, (0, 60, 0));
    tokio::time::sleep(Duration::from_millis(320)).await;
    assert_eq!(place.quota(&other, quota(of, 2, 0, quota_wish(50, 50, 100))).await, (0, 0, 50), "{}", place.name);
}

/// Two nodes of one ledger say the same thing, at different times; another ledger adds to it.
async fn a_ledger_goes_by_its_version(place: &Place<'_>) {
    let (who, other, of) = (reporter("n", "l"), reporter("m", "l"), key("ledger", 0));
    for (who, version, ledger, used, spent) in [
        (&who, 1, 5, 100, 100),
        (&other, 1, 4, 90, 100),
        (&other, 2, 6, 80, 80),
        (&who, 2, 6, 81, 80),
        (&reporter("o", "elsewhere"), 1, 1, 7, 87),
    ] {
        let ask = with_ledger(quota(of, version, 0, None), ledger, used);
        assert_eq!(place.quota(who, ask).await, (spent, 0, 0), "{}: {ledger} {used}", place.name);
    }
    // Also from one whose report is stale.
    let ask = with_ledger(quota(of, 1, 0, None), 7, -3);
    assert_eq!(place.quota(&who, ask).await, (4, 0, 0), "{}", place.name);
}

/// Nine million dollars in billionths: the last of them is granted, and not one more.
async fn great_amounts_stay_exact(place: &Place<'_>) {
    let limit = 9_000_000_000_000_001;
    let (who, of) = (reporter("n", "l"), key("great", 0));
    let ask = with_ledger(quota(of, 1, 0, quota_wish(1, 10, limit)), 1, limit - 3);
    assert_eq!(place.quota(&who, ask).await, (limit - 3, 0, 3), "{}", place.name);
    assert_eq!(place.quota(&who, quota(of, 2, 3, quota_wish(1, 1, limit))).await.2, 0);
    // A total of a bucket, and what is charged beside it.
    let of = key("great", 1);
    for (version, total, acked) in [(1, 8_999_999_999, 8_999_999_900), (2, 9_000_000_000, 0)] {
        let found = place.rate(&who, seconds(of, version, total, acked, 0)).await;
        assert_eq!(found.backlog, i64::try_from(version).unwrap() + 98, "{}", place.name);
    }
}

/// The floor is a bucket's TAT as the node saw it last; a quota has its ledger.
async fn a_store_that_forgot_is_told_again(place: &Place<'_>) {
    let (who, [of_rate, of_quota]) = (reporter("n", "l"), [key("forgot", 0), key("forgot", 1)]);
    let told = place.store.ask(&who, &[seconds(of_rate, 1, 500, 0, 0)], clock()).await.unwrap().told[0].unwrap();
    let Told::Rate { tat, .. } = told else { panic!("{told:?}") };
    place.quota(&who, with_ledger(quota(of_quota, 1, 5, None), 3, 70)).await;
    place.forget().await;
    let mut ask = seconds(of_rate, 2, 510, 500, 100);
    let What::Rate(what) = &mut ask.what else { unreachable!() };
    what.floor = tat;
    let found = place.rate(&who, ask).await;
    assert_eq!((found.backlog, found.granted), (610, 100), "{}", place.name);
    let ask = with_ledger(quota(of_quota, 2, 5, quota_wish(20, 50, 100)), 3, 70);
    assert_eq!(place.quota(&who, ask).await, (70, 0, 25), "{}", place.name);
}

async fn nodes_are_counted(place: &Place<'_>) {
    let beat = async |node: &str, millis| {
        place.store.heartbeat(&node.into(), Duration::from_millis(millis), clock()).await.unwrap()
    };
    assert_eq!(beat("a", 60_000).await, 1, "{}", place.name);
    assert_eq!(beat("a", 60_000).await, 1);
    assert_eq!(beat("b", 300).await, 2);
    assert_eq!(beat("c", 60_000).await, 3);
    tokio::time::sleep(Duration::from_millis(320)).await;
    assert_eq!(beat("a", 60_000).await, 2, "{}", place.name);
    place.store.leave(&"c".into()).await.unwrap();
    place.store.leave(&"nobody".into()).await.unwrap();
    assert_eq!(beat("a", 60_000).await, 1, "{}", place.name);
}

/// As after a restart of the server.
async fn scripts_that_are_gone_are_sent_again(place: &Place<'_>, redis: &Redis) {
    redis.cli(&["SCRIPT", "FLUSH"]);
    let asks: Vec<Ask> = (0..200).map(|n| quota(key("flushed", n), 1, 1, quota_wish(1, 1, 2))).collect();
    let answers = place.store.ask(&reporter("n", "l"), &asks, clock()).await.unwrap();
    assert!(answers.told.iter().all(|told| granted(told.unwrap()) == 1));
    redis.cli(&["SCRIPT", "FLUSH"]);
    place.store.heartbeat(&"a".into(), TIMEOUT, clock()).await.unwrap();
}

/// A bucket when it is full and some seconds more; a quota two days after its period; a lifetime never.
async fn keys_end_with_what_they_hold(place: &Place<'_>, redis: &Redis) {
    let (who, keys) = (reporter("n", "l"), [0, 1, 2].map(|n| key("ends", n)));
    let left = |key: Key| redis.cli(&["PTTL", &format!("tacho:limit:{{{key}}}")]).parse::<i64>().unwrap();
    place.rate(&who, seconds(keys[0], 1, 100, 0, 0)).await;
    assert!((109_000..=110_000).contains(&left(keys[0])), "{}", left(keys[0]));
    place.rate(&who, seconds(keys[0], 2, 20, 100, 0)).await;
    assert!((29_000..=30_000).contains(&left(keys[0])), "{}", left(keys[0]));
    let mut ask = quota(keys[1], 1, 1, None);
    let What::Quota(what) = &mut ask.what else { unreachable!() };
    what.ends = clock() + 60_000_000;
    place.quota(&who, ask).await;
    let two_days = 48 * 3_600_000;
    assert!((two_days + 59_000..=two_days + 60_000).contains(&left(keys[1])), "{}", left(keys[1]));
    place.quota(&who, quota(keys[2], 1, 1, None)).await;
    assert_eq!(left(keys[2]), -1);
}
