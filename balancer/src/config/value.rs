//! The values that a configuration is written in, each read in one place.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

pub use crate::fleet::listed::Server;
use crate::fleet::seat::{Hostname, Seat};

/// A duration: `250ms`, `10s`, `5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes: `4096`, `64KiB`, `256MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A share: `20%`, `0.5%`. Not limited to 100%.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

/// A network, or an address alone: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// A command and its arguments, split into words as a shell does, and run without one. `{port}`,
/// `{seat}` and `{hostname}` are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

/// A variable of a replica's environment: `NAME=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable(pub String, pub String);

/// 16 bytes in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex16(pub [u8; 16]);

/// What is filled into a command.
const PLACEHOLDERS: [&str; 3] = ["{port}", "{seat}", "{hostname}"];

// === impl Span ===

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("{text:?} is no duration such as 250ms, 10s or 5m: {error}"))
    }
}

impl Span {
    /// The same, where a number alone is seconds.
    ///
    /// # Errors
    /// What it must be.
    pub fn or_seconds(text: &str) -> Result<Self, String> {
        let seconds = text.parse::<f64>().ok().and_then(|it| Duration::try_from_secs_f64(it).ok());
        seconds.map_or_else(|| text.parse(), |seconds| Ok(Self(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

// === impl Size ===

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match text[digits.len()..].trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1_u64 << 30),
            _ => None,
        };
        let size = digits.parse::<u64>().ok().zip(factor).and_then(|(n, f)| n.checked_mul(f));
        size.map(Self).ok_or_else(|| format!("{text:?} is no size such as 4096, 64KiB or 256MiB"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1_u64 << 10, "KiB")];
        let whole = units.iter().find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit));
        let (unit, name) = whole.unwrap_or(&(1, "B"));
        write!(f, "{}{name}", self.0 / unit)
    }
}

// === impl Percent ===

impl Percent {
    /// 1 for 100%.
    pub fn share(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The standard library also reads `inf`, `1e9` and signs.
        let plain = |number: &&str| number.bytes().all(|c| c.is_ascii_digit() || c == b'.');
        let number = text.strip_suffix('%').map(str::trim_end).filter(plain);
        let percent = number.and_then(|number| number.parse().ok());
        percent.map(Self).ok_or_else(|| format!("{text:?} is no percentage such as 20% or 0.5%"))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

// === impl Network ===

impl FromStr for Network {
    type Err = String;

    /// Bits beyond the prefix say nothing: `10.1.2.3/8` is `10.0.0.0/8`.
    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let network = match trimmed.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address.to_canonical())),
            Err(_) => trimmed.parse::<IpNet>().ok().map(|network| network.trunc()),
        };
        network
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no address or network such as ::1 or 10.0.0.0/8"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl CommandLine ===

impl CommandLine {
    /// Its words, the program first, as they were written.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

/// The words of a command with its placeholders filled in; `{seat}` is `spare` without one.
pub fn filled(words: &[String], port: u16, seat: Option<Seat>, hostname: &Hostname) -> Vec<String> {
    let values = [port.to_string(), seat_text(seat), hostname.to_string()];
    let fill = |word: &String| {
        PLACEHOLDERS.iter().zip(&values).fold(word.clone(), |w, (name, v)| w.replace(name, v))
    };
    words.iter().map(fill).collect()
}

/// Reports whether a word of a command has a placeholder.
pub fn has_placeholder(word: &str) -> bool {
    PLACEHOLDERS.iter().any(|placeholder| word.contains(placeholder))
}

/// A seat as replicas are told it (`SERVER_ID`): its number, or `spare`.
pub fn seat_text(seat: Option<Seat>) -> String {
    seat.map_or_else(|| "spare".to_owned(), |seat| seat.to_string())
}

impl FromStr for CommandLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words =
            shlex::split(text).ok_or_else(|| format!("{text:?} has a quote that is not closed"))?;
        if words.is_empty() {
            return Err("the command is empty".to_owned());
        }
        Ok(Self(words))
    }
}

// === impl Variable ===

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
                Ok(Self(name.to_owned(), value.to_owned()))
            }
            Some(_) | None => Err(format!("{text:?} is no NAME=value")),
        }
    }
}

// === impl Hex16 ===

impl FromStr for Hex16 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Not the text in the error: it is a secret.
        let bad = || "it must be 16 bytes in hexadecimal (32 digits)".to_owned();
        if text.len() != 32 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 16];
        for (byte, at) in bytes.iter_mut().zip((0..32).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_not_hex| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// Reads a value from a string in a file as it is read from a flag.
macro_rules! read_as_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

read_as_text!(Span, Size, Percent, Network, Server, CommandLine, Variable, Hex16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, bytes) in [
            ("4096", 4096),
            ("1B", 1),
            ("64KiB", 65_536),
            ("256 MiB", 268_435_456),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "KiB", "1kb", "-1", "1.5GiB", "99999999999999999999", "20000000000GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_percentages_are_shown_as_they_are_written() {
        for text in ["0B", "64B", "1025B", "1KiB", "1536KiB", "256MiB", "3GiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["0%", "0.5%", "20%", "100%", "150%"] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_percentage_needs_its_sign() {
        assert_eq!("20 %".parse(), Ok(Percent(20.0)));
        assert_eq!("20%".parse::<Percent>().unwrap().share(), 0.2);
        for text in ["", "%", "20", "0.2", "-1%", "+1%", "1e1%", "inf%", "NaN%", "1.2.3%", "1%%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_a_network_of_its_own() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            (" 192.0.2.7 ", "192.0.2.7/32"),
            ("::1", "::1/128"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("fd00::/8", "fd00::/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), network, "{text}");
        }
        for text in ["", "localhost", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.1:80", "[::1]"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_command_is_split_into_words_and_filled_in() {
        let command: CommandLine =
            "run --name '{hostname} x' -p {port} {seat}/{seat}".parse().unwrap();
        let hostname = Hostname::parse("Server 4").unwrap();
        assert_eq!(
            filled(command.words(), 80, Seat::new(2), &hostname),
            ["run", "--name", "Server 4 x", "-p", "80", "2/2"]
        );
        assert!("".parse::<CommandLine>().is_err());
        assert!("a 'b".parse::<CommandLine>().is_err());
    }
}
