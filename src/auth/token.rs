//! A token: what its holder keeps, and what Tacho keeps of it, which is only a hash.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Role;

/// Bytes of chance in a token: nobody guesses it, so a plain hash of it is enough.
const BYTES: usize = 32;

/// What its holder shows: `tacho_ROLE_` and 64 hex digits. It is printed once, where somebody asked for it.
#[derive(Clone)]
pub struct Token(String);

#[derive(Debug, thiserror::Error)]
pub enum NoToken {
    #[error("the operating system gives no random bytes: {0}")]
    NoChance(getrandom::Error),
    #[error("what is there is no token of the role {}", .0.label())]
    Malformed(Role),
}

impl Token {
    pub fn new(role: Role) -> Result<Self, NoToken> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(NoToken::NoChance)?;
        Ok(Self(format!("tacho_{}_{}", role.label(), hex(&bytes))))
    }

    /// A token of this role as it was written down, with white space around it.
    pub fn parse(text: &str, role: Role) -> Result<Self, NoToken> {
        let text = text.trim();
        let digits = text.strip_prefix("tacho_").and_then(|rest| rest.strip_prefix(role.label())?.strip_prefix('_'));
        let is_whole = |digits: &&str| digits.len() == 2 * BYTES && digits.bytes().all(|c| c.is_ascii_hexdigit());
        digits.filter(is_whole).map(|_| Self(text.to_owned())).ok_or(NoToken::Malformed(role))
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.as_bytes())
    }

    /// The token itself, for its holder.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// SHA-256 of a token; in files as hex.
#[derive(Clone, Copy, Debug, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub(super) fn of(shown: &[u8]) -> Self {
        Self(Sha256::digest(shown).into())
    }

    /// Names the token for people: the beginning of its hash, of which nothing can be learned.
    pub fn id(&self) -> String {
        hex(&self.0[..6])
    }
}

/// Takes the same time wherever the two differ.
impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl TryFrom<String> for TokenHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let digit = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(digit).collect();
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.filter(|_| text.len() == 64).map(Self).ok_or("is no SHA-256 in 64 hex digits")
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> Self {
        hex(&hash.0)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash() {
        let token = Token::new(Role::Read).unwrap();
        let written = format!(" {}\n", token.reveal());
        assert_eq!(Token::parse(&written, Role::Read).unwrap().hash(), token.hash());
        assert!(Token::parse(&written, Role::Admin).is_err());
        assert!(Token::parse("tacho_read_12", Role::Read).is_err());
        assert_ne!(Token::new(Role::Read).unwrap().hash(), token.hash());
        assert_eq!(TokenHash::try_from(String::from(token.hash())).unwrap(), token.hash());
        assert!(TokenHash::try_from("12".to_owned()).is_err() && TokenHash::try_from("é".repeat(32)).is_err());
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
