//! Keys: two are random, all others follow from them.

use hmac::{Hmac, KeyInit, Mac};
use nkeys::{KeyPair, KeyPairType};
use sha2::Sha256;
use std::fmt;

/// Why keys can't be used. No message shows one.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct KeyError {
    what: &'static str,
    problem: String,
}

impl KeyError {
    pub(super) fn new(what: &'static str, problem: impl ToString) -> KeyError {
        KeyError {
            what,
            problem: problem.to_string(),
        }
    }
}

/// The seeds that must be kept: whoever has them can make every other key anew.
#[derive(Clone)]
pub struct Seeds {
    /// Signs accounts.
    pub operator: String,
    /// The account in which everything is stored: another one sees nothing of it.
    pub account: String,
}

impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeds")
    }
}

impl Seeds {
    /// New ones.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn random() -> Result<Seeds, KeyError> {
        let seed = |kind| {
            let pair = KeyPair::new(kind);
            pair.seed()
                .map_err(|error| KeyError::new("a new key", error))
        };
        Ok(Seeds {
            operator: seed(KeyPairType::Operator)?,
            account: seed(KeyPairType::Account)?,
        })
    }
}

/// Key pairs of an installation.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) operator: KeyPair,
    pub(super) account: KeyPair,
    pub(super) system: KeyPair,
    /// Signs users. With another `rotation` it is another one, and users that the one before signed are no longer let in.
    pub(super) signing: KeyPair,
}

impl Keys {
    pub(super) fn new(seeds: &Seeds, rotation: u32) -> Result<Keys, KeyError> {
        let pair = |what, seed: &str, kind| {
            let pair = KeyPair::from_seed(seed.trim());
            let pair = pair.map_err(|error| KeyError::new(what, error))?;
            match pair.key_pair_type() == kind {
                true => Ok(pair),
                false => Err(KeyError::new(what, "it is the seed of something else")),
            }
        };
        let operator = pair("operator.seed", &seeds.operator, KeyPairType::Operator)?;
        let account = pair("account.seed", &seeds.account, KeyPairType::Account)?;
        Ok(Keys {
            system: derived(&operator, KeyPairType::Account, "system account")?,
            signing: derived(
                &account,
                KeyPairType::Account,
                &format!("signing key {rotation}"),
            )?,
            operator,
            account,
        })
    }

    /// The key of a user, by what only one user is called.
    pub(super) fn user(&self, label: &str) -> Result<KeyPair, KeyError> {
        derived(&self.signing, KeyPairType::User, &format!("user {label}"))
    }
}

/// A key that follows from another one and a label.
fn derived(from: &KeyPair, kind: KeyPairType, label: &str) -> Result<KeyPair, KeyError> {
    let failed = |problem: String| KeyError::new("a derived key", problem);
    let seed = from.seed().map_err(|error| failed(error.to_string()))?;
    let (_, seed) = nkeys::decode_seed(&seed).map_err(|error| failed(error.to_string()))?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&seed).map_err(|error| failed(error.to_string()))?;
    mac.update(b"tidemill ");
    mac.update(label.as_bytes());
    let pair = KeyPair::new_from_raw(kind, mac.finalize().into_bytes().into());
    pair.map_err(|error| failed(error.to_string()))
}
