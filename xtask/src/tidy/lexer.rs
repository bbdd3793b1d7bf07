//! Just enough of Rust's lexical rules to tell code from comments and strings.

/// The text with every comment, string and character literal replaced by blanks; lines and columns stay.
pub(super) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at + 1),
            b'r' | b'b' if !continues_a_word(bytes, at) => match prefixed_string_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            b'\'' => match char_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn continues_a_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut at) = (0usize, at);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
            (b'*', Some(b'/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r"…"`, `r#"…"#`, `b"…"`, `br"…"` or `b'…'` that begins at `at`; `None` where a plain word begins.
fn prefixed_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut next = at + 1;
    if bytes[at] == b'b' && bytes.get(next) == Some(&b'r') {
        next += 1;
    } else if bytes[at] == b'b' {
        return match bytes.get(next)? {
            b'"' => Some(string_end(bytes, next + 1)),
            b'\'' => char_end(bytes, next),
            _ => None,
        };
    }
    let hashes = bytes[next..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(next + hashes) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    let from = next + hashes + 1;
    let length = bytes[from..].windows(close.len()).position(|window| window == close)?;
    Some(from + length + close.len())
}

/// The end of a character literal; `None` where the quote begins a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes.get(at + 3..)?.iter().position(|b| *b == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let width = match bytes.get(at + 1)? {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(at + 1 + width) == Some(&b'\'')).then_some(at + 2 + width)
}

#[cfg(test)]
mod tests {
    //! Comments, strings and characters vanish; lifetimes and code stay, each in its column.
    use super::blank;

    #[test]
    fn blanks_what_is_not_code() {
        let text =
            "let a = \"fn \\\" x\"; // fn\nlet b = r#\"{\"#; /* { /* } */ */ let c: &'a u8 = &b'{'; let d = '\\n';";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        assert!(!code.contains('{') && !code.contains('}') && !code.contains("fn"));
        assert!(code.contains("&'a u8") && code.contains("let d ="));
    }
}
