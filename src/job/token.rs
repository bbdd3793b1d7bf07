//! Tokens: what a node shows to be let in. All three of a task are derived from its one secret, so nothing but that is
//! stored, a restarted appliance hands out the same ones, and wiping the secret ends them all.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use ring::{digest, hmac};

use crate::job::TaskRow;
use crate::model::{JobId, NodeName};
use crate::sys::entropy;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// Part of the boot image's address; 32 hexadecimal digits, because some BMCs refuse long addresses.
    Media,
    /// The agent: order, progress, report, pull; 64 hexadecimal digits.
    Install,
    /// The installed system's one report; 64 hexadecimal digits.
    Boot,
}

impl TokenKind {
    const ALL: [Self; 3] = [Self::Media, Self::Install, Self::Boot];

    fn label(self) -> &'static [u8] {
        match self {
            Self::Media => b"bedplate media",
            Self::Install => b"bedplate install",
            Self::Boot => b"bedplate boot",
        }
    }
}

/// A fresh secret: 32 random bytes as text.
#[must_use]
pub fn fresh_secret() -> String {
    let mut bytes = [0; 32];
    entropy::fill(&mut bytes);
    hex::encode(bytes)
}

/// The token of that kind for a task's secret.
#[must_use]
pub fn derive(secret: &str, kind: TokenKind) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut text = hex::encode(hmac::sign(&key, kind.label()).as_ref());
    if kind == TokenKind::Media {
        text.truncate(32);
    }
    text
}

/// Whether `shown` is the task's token of that kind; takes the same time wherever they differ.
#[must_use]
pub fn is_token(secret: &str, kind: TokenKind, shown: &str) -> bool {
    let wanted = derive(secret, kind);
    let (wanted, shown) = (wanted.as_bytes(), shown.as_bytes());
    let difference = wanted.iter().zip(shown).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    wanted.len() == shown.len() && difference == 0
}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The job.
    pub job: JobId,
    /// The node.
    pub node: NodeName,
}

/// The tokens of all open tasks, by their SHA-256; in memory only, and rebuilt from the journal at start.
#[derive(Default)]
pub struct TokenIndex {
    known: RwLock<HashMap<(TokenKind, [u8; 32]), Bearer>>,
}

impl TokenIndex {
    /// Adds the tokens of an open task.
    pub fn add(&self, task: &TaskRow) {
        let Some(secret) = &task.secret else { return };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for kind in TokenKind::ALL {
            let bearer = Bearer { job: task.job, node: task.node.clone() };
            known.insert((kind, hash(&derive(secret, kind))), bearer);
        }
    }

    /// Forgets the tokens of a task that is over, but for the installed system's: it may say the same word again, because
    /// the answer to the first was lost, and nothing else can be done with it.
    pub fn retire(&self, job: JobId, node: &NodeName) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(kind, _), bearer| *kind == TokenKind::Boot || bearer.job != job || bearer.node != *node);
    }

    /// Whose token it is, if anyone's; the caller still compares it with the task's own.
    #[must_use]
    pub fn find(&self, kind: TokenKind, shown: &str) -> Option<Bearer> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&(kind, hash(shown))).cloned()
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    //! A token is known to be its own task's and kind's, and nothing else is.
    use super::*;

    #[test]
    fn tells_tokens_apart() {
        let (one, two) = (fresh_secret(), fresh_secret());
        assert_ne!(one, two);
        assert_eq!(derive(&one, TokenKind::Media).len(), 32);
        assert!(is_token(&one, TokenKind::Install, &derive(&one, TokenKind::Install)));
        assert!(!is_token(&one, TokenKind::Install, &derive(&two, TokenKind::Install)));
        assert!(!is_token(&one, TokenKind::Install, &derive(&one, TokenKind::Boot)));
        assert!(!is_token(&one, TokenKind::Install, &derive(&one, TokenKind::Install)[..63]));
        assert!(!is_token(&one, TokenKind::Install, ""));
    }
}
