//! The time as answers tell it.

use std::time::{Duration, Instant};

/// The time as answers tell it (RFC 9110 5.6.7), made once a second.
#[derive(Debug, Default)]
pub struct Clock {
    made: Option<(Instant, [u8; 29])>,
}

// === impl Clock ===

impl Clock {
    /// The time now, within a second.
    pub fn now(&mut self) -> [u8; 29] {
        let now = Instant::now();
        if let Some((made, text)) = &self.made
            && now.duration_since(*made) < Duration::from_millis(500)
        {
            return *text;
        }
        let mut text = [b' '; 29];
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        let length = date.len().min(text.len());
        text[..length].copy_from_slice(&date.as_bytes()[..length]);
        self.made = Some((now, text));
        text
    }
}
