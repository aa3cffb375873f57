//! Money is whole billionths of a US dollar. It never becomes a float before it is shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Billionths of a US dollar. Signed: an amendment can give money back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// `None` on overflow: 9.2 thousand million dollars, which no honest sum reaches.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
}

/// Dollars with all nine decimals that count and at least two: `0.0050475`, `12.50`.
impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let amount = self.0.unsigned_abs();
        let decimals = format!("{:09}", amount % 1_000_000_000);
        let shown = decimals.trim_end_matches('0').len().max(2);
        f.pad(&format!("{sign}{}.{}", amount / 1_000_000_000, &decimals[..shown]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_show_every_decimal_that_counts() {
        for (nano, text) in [(0, "0.00"), (5_047_500, "0.0050475"), (12_500_000_000, "12.50"), (-1, "-0.000000001")] {
            assert_eq!(NanoUsd(nano).to_string(), text);
        }
        assert_eq!(NanoUsd(i64::MIN).to_string(), "-9223372036.854775808");
    }
}
