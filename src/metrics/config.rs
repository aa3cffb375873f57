//! What the operator says of metrics.

use serde::Deserialize;

use super::catalogue::MOST_USERS;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// So many users that cost most get series of their own, and as many again that come to cost more. None by default: a label by
    /// user is the surest way to more series than a server can hold.
    #[serde(deserialize_with = "few")]
    pub per_user_top: usize,
}

fn few<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let most = MOST_USERS / 2;
    let users = usize::deserialize(deserializer)?;
    if users > most {
        return Err(serde::de::Error::custom(format!("at most {most} users can have series of their own")));
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_users_are_refused_with_the_line() {
        let read = |text: &str| toml::from_str::<MetricsConfig>(text).map_err(|error| error.to_string());
        assert_eq!(read("per_user_top = 1000").unwrap().per_user_top, 1_000);
        let refused = read("\nper_user_top = 1001").unwrap_err();
        assert!(refused.contains("line 2") && refused.contains("at most 1000 users"), "{refused}");
    }
}
