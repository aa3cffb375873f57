use super::*;
use crate::config::Config;

/// What `tacho check-config` says of a file, from the line on.
fn complaint(limits: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tacho.toml");
    std::fs::write(&path, limits).unwrap();
    let error = Config::load(Some(&path), std::iter::empty()).unwrap_err().to_string();
    error.replace(&path.display().to_string(), "tacho.toml")
}

#[track_caller]
fn refuses(limit: &str, why: &str) {
    // The limit at fault is the second, so that its line means something.
    let file = format!(
        "[[limit]]\nname = \"first\"\nmeter = \"requests\"\nquota = {{ limit = 1, period = \"day\" }}\n\n[[limit]]\n{limit}\n"
    );
    let complaint = complaint(&file);
    assert!(complaint.contains(why), "{complaint}");
    let line: usize = complaint.split("line ").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap();
    assert!((6..=6 + limit.lines().count()).contains(&line), "{complaint}");
}

fn rate(rest: &str) -> String {
    format!("name = \"x\"\nmeter = \"requests\"\nrate = {{ {rest} }}")
}

fn quota(rest: &str) -> String {
    format!("name = \"x\"\nmeter = \"requests\"\nquota = {{ {rest} }}")
}

#[test]
fn a_limit_that_cannot_be_held_to_is_refused_on_its_line() {
    refuses(
        "name = \"first\"\nmeter = \"requests\"\nquota = { limit = 1, period = \"day\" }",
        "a second limit of the same name",
    );
    refuses("name = \"x\"\nmeter = \"requests\"", "needs either `rate` or `quota`");
    refuses("name = \"a b\"\nmeter = \"requests\"\nquota = { limit = 1, period = \"day\" }", "a name has");
    refuses("name = \"x\"\nmetre = \"requests\"", "unknown field `metre`");
    refuses("name = \"x\"\nmeter = \"words\"", "unknown variant, expected one of `requests`");
    refuses(&quota("limit = 1, period = \"fortnight\""), "unknown variant, expected one of `hour`");
    refuses(&quota("limit = 1, period = \"day\", timezone = \"Europe/Atlantis\""), "time zone");
    refuses(&quota("limit = 1, period = \"day\", anchor = \"anniversary\""), "needs `user` in `per`");
    refuses(&quota("limit = 1, period = \"lifetime\", anchor = \"rolling\""), "does not roll");
    refuses(&quota("limit = 1.5, period = \"day\""), "no amount of requests");
    refuses(&quota("limit = -1, period = \"day\""), "not negative");
    refuses(&rate("limit = 0, period = \"1m\""), "over 0");
    refuses(&rate("limit = 1, period = \"0s\""), "`period` must be over 0");
    refuses(&rate("limit = 1, period = \"1y\", burst = 1000"), "too large");
    refuses(&rate("limit = 10, period = \"1m\", burst = 10, window = \"strict\""), "must be less");
    refuses(&rate("limit = 900000000000000000, period = \"1s\", burst = 7"), "over 0.1 %");
    refuses(&rate("limit = 99999999999999999999, period = \"1s\""), "");
    let warn = format!("{}\nwarn_at = [1.5]", quota("limit = 1, period = \"day\""));
    refuses(&warn, "`warn_at`");
    let overshoot = format!("{}\nmax_overshoot = \"lots\"", quota("limit = 1, period = \"day\""));
    refuses(&overshoot, "an overshoot is");
}

fn rules(limits: &str) -> Vec<Rule> {
    #[derive(Deserialize)]
    struct File {
        limit: Rules,
    }
    toml::from_str::<File>(limits).unwrap().limit.0
}

fn compiled(limit: &str) -> Rate {
    match rules(&format!("[[limit]]\n{limit}")).remove(0).kind {
        Kind::Rate(rate) => rate,
        Kind::Quota(quota) => panic!("{quota:?}"),
    }
}

#[test]
fn great_rates_are_counted_in_coarser_cells_that_change_them_by_less_than_a_thousandth() {
    let small = compiled(&rate("limit = 60, period = \"1m\", burst = 20"));
    assert_eq!((small.scale, small.cell, small.cells.get()), (1, 1_000_000_000, 20));
    for (limit, period) in [(90_000i128, 60i128), (7_000_000, 60), (700_000_000, 60), (1_000_000_000_000, 60), (3, 1)] {
        let rate = compiled(&rate(&format!("limit = {limit}, period = \"{period}s\"")));
        let nanos = period * 1_000_000_000;
        let (exact, ours) = (nanos * i128::from(rate.scale), i128::from(rate.cell) * limit);
        assert!(ours <= exact && (exact - ours) * 1_000 <= exact, "{limit} in {period} s: {rate:?}");
    }
    let money = compiled("name = \"x\"\nmeter = \"cost\"\nrate = { limit = 250, period = \"30d\" }");
    assert_eq!((money.limit.0, money.burst.0), (250_000_000_000, 250_000_000_000));
}

#[test]
fn the_amount_of_a_limit_may_change_and_its_usage_stays() {
    let of = |limit: &str| rules(&format!("[[limit]]\n{limit}")).remove(0).id;
    assert_eq!(of(&quota("limit = 1, period = \"day\"")), of(&quota("limit = 2, period = \"day\"")));
    assert_ne!(of(&quota("limit = 1, period = \"day\"")), of(&quota("limit = 1, period = \"week\"")));
    assert_eq!(of(&rate("limit = 1, period = \"1s\"")), of(&rate("limit = 5, period = \"1m\"")));
}
