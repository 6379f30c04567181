use std::{fmt, str::FromStr, sync::Arc};

/// Name of a service or a backend: `[a-z0-9][a-z0-9.-]{0,62}`, so that it can stand in a metric label, a path of the
/// API and a shell command without quoting. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name can't be empty")]
    Empty,
    #[error("a name has at most {MAX_LENGTH} characters, this one has {0}")]
    TooLong(usize),
    #[error(
        "a name starts with a lower-case letter or a digit and goes on with those, '.' and '-'; {0:?} is neither"
    )]
    Character(char),
}

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |index: usize, c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || (index > 0 && matches!(c, '.' | '-'))
        };
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some((_, wrong)) = text.chars().enumerate().find(|&(index, c)| !allowed(index, c)) {
            return Err(NameError::Character(wrong));
        }
        if text.len() > MAX_LENGTH {
            return Err(NameError::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

const MAX_LENGTH: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_one_shape() {
        assert!("web-1.example".parse::<Name>().is_ok());
        assert!("0".parse::<Name>().is_ok());
        assert!("a".repeat(63).parse::<Name>().is_ok());
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("-a".parse::<Name>(), Err(NameError::Character('-')));
        assert_eq!("Web".parse::<Name>(), Err(NameError::Character('W')));
        assert_eq!("a b".parse::<Name>(), Err(NameError::Character(' ')));
        assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::TooLong(64)));
    }
}
