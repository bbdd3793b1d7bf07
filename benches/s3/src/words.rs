//! The words of the command line: `name=value`.

use std::collections::HashMap;
use std::str::FromStr;

use crate::Error;

/// All words after the first.
pub struct Words(HashMap<String, String>);

impl Words {
    /// Reads them.
    pub fn parse(given: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut words = HashMap::new();
        for word in given {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is not name=value"))?;
            words.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self(words))
    }

    /// A word that must be there.
    pub fn text(&self, name: &str) -> Result<&str, Error> {
        self.0.get(name).map(String::as_str).ok_or_else(|| format!("the word {name}= is missing").into())
    }

    /// A word that may be left out.
    pub fn maybe(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A number, `otherwise` where it is left out.
    pub fn number<T: FromStr>(&self, name: &str, otherwise: T) -> Result<T, Error> {
        match self.0.get(name) {
            None => Ok(otherwise),
            Some(text) => text.parse().map_err(|_| format!("{name}={text} is no number of its kind").into()),
        }
    }
}
