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
