//! A second reader of chunks, in the simplest way: the fuzz target reads with it, too.

/// A body that was read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) content: Vec<u8>,
    pub(super) trailers: Vec<u8>,
    pub(super) length: usize,
}

/// Reads all of it at once: `None` unless it is whole and good.
pub(super) fn naive(bytes: &[u8]) -> Option<Whole> {
    let line = |from: usize| {
        let length = bytes[from..].windows(2).position(|end| end == b"\r\n")?;
        let line = &bytes[from..from + length];
        (!line.contains(&b'\r') && !line.contains(&b'\n')).then_some((line, from + length + 2))
    };
    let good_byte = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    let (mut at, mut content) = (0, Vec::new());
    loop {
        let (text, behind) = line(at)?;
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = text.split_at(digits);
        let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        let begins = |text: &[u8]| text.is_empty() || text.trim_ascii_start().starts_with(b";");
        let good = begins(extension) && extension.iter().all(good_byte) && extension.len() <= 1_024;
        if !good || digits.len() > 16 {
            return None;
        }
        at = behind;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).ok()?;
        content.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        bytes[at..].starts_with(b"\r\n").then_some(())?;
        at += 2;
    }
    let begin = at;
    loop {
        let (text, behind) = line(at)?;
        if text.is_empty() {
            let trailers = bytes[begin..at].to_vec();
            return (trailers.len() <= 8_192).then_some(Whole {
                content,
                trailers,
                length: behind,
            });
        }
        at = behind;
    }
}
