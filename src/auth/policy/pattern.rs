//! Text that a policy compares with a request's: wildcards and policy variables.
//!
//! `*` stands for any number of characters and `?` for one; neither stops at a slash. `${key}` stands for the one value
//! that a key has in the request, `${key, 'text'}` for `text` where it has none, and `${*}`, `${?}`, `${$}` for these
//! characters themselves. What a variable brings in is compared letter by letter: an asterisk in somebody's name is an
//! asterisk.

use std::cell::Cell;

/// One element of a pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Char(char),
    One,
    Any,
    /// A place in [`Pattern::variables`].
    Variable(u16),
}

#[derive(Clone, Debug, PartialEq)]
struct Variable {
    /// Lower-case.
    key: String,
    default: Option<String>,
}

/// Which characters of a pattern mean more than themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syntax {
    /// `*` and `?` are wildcards.
    pub(super) wild: bool,
    /// `${...}` is a variable.
    pub(super) variables: bool,
}

/// A pattern, ready to be compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    tokens: Box<[Token]>,
    variables: Vec<Variable>,
}

/// What a comparison with a pattern says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    No,
    /// A variable of the pattern has no value in this request.
    Unresolved,
}

/// Letters that may be compared to answer one request; a few milliseconds' worth. Real policies need thousands.
const STEPS_MAX: usize = 1_000_000;

/// What the comparisons for one request share: the values of variables, and how long they may take together.
pub(super) struct Scope<'a> {
    /// Finds the one value of a (lower-case) key.
    resolve: &'a dyn Fn(&str) -> Option<String>,
    left: Cell<usize>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(resolve: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { resolve, left: Cell::new(STEPS_MAX) }
    }

    /// Whether the steps are used up. What was compared since then did not fit, whatever it was.
    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    fn spend(&self, steps: usize) {
        self.left.set(self.left.get().saturating_sub(steps));
    }
}

impl Pattern {
    /// Reads `text`. The error is what is wrong with it, in words.
    pub(super) fn new(text: &str, syntax: Syntax) -> Result<Self, String> {
        let mut tokens = Vec::with_capacity(text.len());
        let mut variables = Vec::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if syntax.variables && rest.starts_with("${") {
                let Some(end) = rest.find('}') else {
                    return Err(format!("{text:?} has a \"${{\" without its \"}}\""));
                };
                match &rest[2..end] {
                    "*" => tokens.push(Token::Char('*')),
                    "?" => tokens.push(Token::Char('?')),
                    "$" => tokens.push(Token::Char('$')),
                    name => {
                        let place =
                            u16::try_from(variables.len()).map_err(|_| "there are too many variables".to_owned())?;
                        variables.push(variable(name)?);
                        tokens.push(Token::Variable(place));
                    }
                }
                rest = &rest[end + 1..];
                continue;
            }
            tokens.push(match next {
                '*' if syntax.wild => Token::Any,
                '?' if syntax.wild => Token::One,
                other => Token::Char(other),
            });
            rest = &rest[next.len_utf8()..];
        }
        // Stars in a row say what one says.
        tokens.dedup_by(|later, earlier| *later == Token::Any && *earlier == Token::Any);
        Ok(Self { tokens: tokens.into_boxed_slice(), variables })
    }

    /// Whether it has neither a wildcard nor a variable, so that it stands for one text only.
    pub(super) fn is_fixed(&self) -> bool {
        self.tokens.iter().all(|token| matches!(token, Token::Char(c) if !matches!(c, '*' | '?')))
    }

    /// The keys of its variables, in lower case.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| variable.key.as_str())
    }

    /// Compares with `text`, letter by letter.
    pub(super) fn fit(&self, text: &str, scope: &Scope<'_>) -> Fit {
        self.compare(text, false, scope)
    }

    /// Compares with `text`, taking capitals and small letters as the same.
    pub(super) fn fit_any_case(&self, text: &str, scope: &Scope<'_>) -> Fit {
        self.compare(text, true, scope)
    }

    fn compare(&self, text: &str, any_case: bool, scope: &Scope<'_>) -> Fit {
        let answer = |fits| if fits { Fit::Yes } else { Fit::No };
        if self.variables.is_empty() {
            return answer(glob(&self.tokens, text, any_case, scope));
        }
        let mut tokens = Vec::with_capacity(self.tokens.len());
        for token in &self.tokens {
            let Token::Variable(place) = token else {
                tokens.push(*token);
                continue;
            };
            let variable = &self.variables[usize::from(*place)];
            let Some(value) = (scope.resolve)(&variable.key).or_else(|| variable.default.clone()) else {
                return Fit::Unresolved;
            };
            scope.spend(value.len());
            if scope.is_spent() {
                return Fit::No;
            }
            tokens.extend(value.chars().map(Token::Char));
        }
        answer(glob(&tokens, text, any_case, scope))
    }

    /// Compares with `text` where no variable can have a value.
    pub(super) fn fits_alone(&self, text: &str, any_case: bool) -> bool {
        self.compare(text, any_case, &Scope::new(&|_| None)) == Fit::Yes
    }

    /// Whether something that begins with `start` can fit, whatever the variables stand for.
    pub(super) fn may_begin(&self, start: &str) -> bool {
        // The set of places in the pattern that can be reached by the letters so far.
        let mut places = vec![false; self.tokens.len() + 1];
        places[0] = true;
        for letter in start.chars() {
            self.skip_open(&mut places);
            let mut next = vec![false; places.len()];
            for (place, token) in self.tokens.iter().enumerate().filter(|(place, _)| places[*place]) {
                match token {
                    Token::Any | Token::Variable(_) => next[place] = true,
                    Token::One => next[place + 1] = true,
                    Token::Char(own) => next[place + 1] |= *own == letter,
                }
            }
            places = next;
        }
        places.contains(&true)
    }

    /// Whatever can stand for nothing may be passed over.
    fn skip_open(&self, places: &mut [bool]) {
        for (place, token) in self.tokens.iter().enumerate() {
            if places[place] && matches!(token, Token::Any | Token::Variable(_)) {
                places[place + 1] = true;
            }
        }
    }
}

/// Reads what stands between `${` and `}`.
fn variable(text: &str) -> Result<Variable, String> {
    let (key, default) = match text.split_once(',') {
        None => (text.trim(), None),
        Some((key, default)) => {
            let quoted = default.trim().strip_prefix('\'').and_then(|default| default.strip_suffix('\''));
            let Some(default) = quoted else {
                return Err(format!("the default of ${{{text}}} has to stand between single quotes"));
            };
            (key.trim(), Some(default.to_owned()))
        }
    };
    let known = key.split_once(':').is_some_and(|(service, name)| !service.is_empty() && !name.is_empty());
    if !known || key.contains(char::is_whitespace) {
        return Err(format!("${{{text}}} is no policy variable; write one such as ${{aws:username}}"));
    }
    Ok(Variable { key: key.to_ascii_lowercase(), default })
}

fn same(own: char, other: char, any_case: bool) -> bool {
    own == other || (any_case && own.to_lowercase().eq(other.to_lowercase()))
}

/// Whether all of `text` fits. Only the last star is ever taken back, so the steps are at most the product of the two
/// lengths; when those of `scope` are used up, nothing fits.
fn glob(pattern: &[Token], text: &str, any_case: bool, scope: &Scope<'_>) -> bool {
    let mut place = 0;
    let mut rest = text.chars();
    let mut star: Option<(usize, std::str::Chars<'_>)> = None;
    while !scope.is_spent() {
        scope.spend(1);
        let mut after = rest.clone();
        match (pattern.get(place), after.next()) {
            (None, None) => return true,
            (Some(Token::Any), _) => {
                place += 1;
                star = Some((place, rest.clone()));
                continue;
            }
            (Some(Token::One), Some(_)) => {
                place += 1;
                rest = after;
                continue;
            }
            (Some(Token::Char(own)), Some(letter)) if same(*own, letter, any_case) => {
                place += 1;
                rest = after;
                continue;
            }
            // Text is used up and a letter is still asked for: no longer star helps.
            (Some(_), None) => return false,
            _ => {}
        }
        let Some((begin, from)) = &mut star else { return false };
        if from.next().is_none() {
            return false;
        }
        place = *begin;
        rest = from.clone();
    }
    false
}

#[cfg(test)]
mod tests {
    //! Wildcards at every edge against a slow matcher that is plainly right, variables, and a pattern that would take
    //! a naive matcher for ever.
    use proptest::prelude::*;

    use super::*;

    const ALL: Syntax = Syntax { wild: true, variables: true };

    fn fits(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, ALL).unwrap().fits_alone(text, false)
    }

    #[test]
    fn wildcards() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b/c", true),
            ("?", "", false),
            ("?", "é", true),
            ("?", "ab", false),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "bba", true),
            ("*a", "bab", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*ab", "aab", true),
            ("a?c*", "abc", true),
            ("a?c*", "ac", false),
            ("**a**", "xax", true),
            ("b/a*", "b/", false),
            ("b/a*z", "b/az", true),
            ("*?", "", false),
            ("*?", "x", true),
            ("?*?", "x", false),
            ("A", "a", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
        assert!(Pattern::new("S3:GET*", ALL).unwrap().fits_alone("s3:GetObject", true));
        assert!(!Pattern::new("*", Syntax { wild: false, variables: true }).unwrap().fits_alone("x", false));
    }

    #[test]
    fn variables() {
        let resolve = |key: &str| match key {
            "aws:username" => Some("a*b".to_owned()),
            _ => None,
        };
        let fit = |pattern: &str, text: &str| Pattern::new(pattern, ALL).unwrap().fit(text, &Scope::new(&resolve));
        assert_eq!(fit("home/${aws:username}/*", "home/a*b/x"), Fit::Yes);
        assert_eq!(fit("home/${AWS:UserName}/*", "home/a*b/x"), Fit::Yes);
        assert_eq!(fit("home/${aws:username}/*", "home/aXb/x"), Fit::No);
        assert_eq!(fit("home/${aws:userid}/*", "home//x"), Fit::Unresolved);
        assert_eq!(fit("home/${aws:userid, 'none'}/*", "home/none/x"), Fit::Yes);
        assert_eq!(fit("${*}${?}${$}", "*?$"), Fit::Yes);
        assert_eq!(fit("${*}", "x"), Fit::No);
        for bad in ["${", "x${aws:username", "${}", "${username}", "${aws:}", "${aws:username, none}", "${ a:b c}"] {
            assert!(Pattern::new(bad, ALL).is_err(), "{bad}");
        }
        let literal = Pattern::new("${aws:username}", Syntax { wild: true, variables: false }).unwrap();
        assert_eq!(literal.fit("${aws:username}", &Scope::new(&resolve)), Fit::Yes);
    }

    #[test]
    fn beginnings() {
        let may = |pattern: &str, start: &str| Pattern::new(pattern, ALL).unwrap().may_begin(start);
        assert!(may("bucket/*", "bucket/"));
        assert!(may("buck*.jpg", "bucket/"));
        assert!(may("*", "bucket/"));
        assert!(may("b?cket/x", "bucket/"));
        assert!(may("${aws:username}/x", "bucket/"));
        assert!(!may("bucket", "bucket/"));
        assert!(!may("other/*", "bucket/"));
        assert!(!may("bucket2/*", "bucket/"));
    }

    #[test]
    fn steps_are_bounded() {
        // Many stars cost nothing much.
        let resolve = |_: &str| Some("a".repeat(100_000));
        let scope = Scope::new(&resolve);
        let stars = Pattern::new(&("a*".repeat(500) + "b"), ALL).unwrap();
        assert_eq!(stars.fit(&"a".repeat(20_000), &scope), Fit::No);
        assert!(!scope.is_spent());
        // What would take long comes to an end, and so does what would take much memory.
        let long = Pattern::new(&format!("*{}b", "a".repeat(10_000)), ALL).unwrap();
        assert_eq!(long.fit(&"a".repeat(100_000), &scope), Fit::No);
        assert!(scope.is_spent());
        let scope = Scope::new(&resolve);
        let large = Pattern::new(&"${aws:useragent}".repeat(1_000), ALL).unwrap();
        assert_eq!(large.fit("a", &scope), Fit::No);
        assert!(scope.is_spent());
        assert_eq!(Pattern::new("*", ALL).unwrap().fit("", &scope), Fit::No);
    }

    /// The definition itself.
    fn slow(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|taken| slow(rest, &text[taken..])),
            Some(('?', rest)) => !text.is_empty() && slow(rest, &text[1..]),
            Some((own, rest)) => text.first() == Some(own) && slow(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let slowly = slow(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
            prop_assert_eq!(fits(&pattern, &text), slowly);
        }

        #[test]
        fn never_panics(pattern in ".*", text in ".*") {
            if let Ok(pattern) = Pattern::new(&pattern, ALL) {
                pattern.fit_any_case(&text, &Scope::new(&|_| Some(text.clone())));
                pattern.may_begin(&text);
            }
        }
    }
}
