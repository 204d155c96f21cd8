//! The works: what every proxy is asked to do.

use clap::ValueEnum;

/// One kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Small answers, 1 connection
    #[value(name = "get-1")]
    Get1,
    /// Small answers, 64 connections
    #[value(name = "get-64")]
    Get64,
    /// Small answers, 512 connections
    #[value(name = "get-512")]
    Get512,
    /// Answers of 10 KiB, 64 connections
    #[value(name = "answer-10k")]
    Answer10k,
    /// Answers of 1 MiB, 64 connections
    #[value(name = "answer-1m")]
    Answer1m,
    /// Requests of 64 KiB, 64 connections
    #[value(name = "upload-64k")]
    Upload64k,
    /// Small answers, a new connection for each request, 64 at a time
    Close,
    /// 5,000 connections that idle after one answer each
    Idle,
    /// The balancer alone: its memory over a million small answers
    Million,
}

/// What wrk sends in a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) path: &'static str,
    /// Bytes of a request's body; a request with a body is a POST.
    pub(crate) body: usize,
    /// Whether each request asks for the end of its connection.
    pub(crate) closes: bool,
}

/// The path of the small answer.
pub(crate) const SMALL: &str = "/small";
/// Different ids in turn: enough for shares as the placement has them, few enough to be prepared.
const IDS: usize = 1_000;
/// The same for requests with a body, each of which is prepared as a whole.
const IDS_WITH_BODY: usize = 100;

// === impl Work ===

impl Work {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Self; 9] = [
        Self::Get1,
        Self::Get64,
        Self::Get512,
        Self::Answer10k,
        Self::Answer1m,
        Self::Upload64k,
        Self::Close,
        Self::Idle,
        Self::Million,
    ];

    /// On the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Get1 => "get-1",
            Work::Get64 => "get-64",
            Work::Get512 => "get-512",
            Work::Answer10k => "answer-10k",
            Work::Answer1m => "answer-1m",
            Work::Upload64k => "upload-64k",
            Work::Close => "close",
            Work::Idle => "idle",
            Work::Million => "million",
        }
    }

    /// In the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Work::Get1 => "Small answers, 1 connection",
            Work::Get64 => "Small answers, 64 connections",
            Work::Get512 => "Small answers, 512 connections",
            Work::Answer10k => "Answers of 10 KiB, 64 connections",
            Work::Answer1m => "Answers of 1 MiB, 64 connections",
            Work::Upload64k => "Uploads of 64 KiB, 64 connections",
            Work::Close => "A new connection for each request, 64 at a time",
            Work::Idle => "Connections that idle",
            Work::Million => "A million requests",
        }
    }

    /// What wrk sends; nothing where wrk is not needed.
    pub(crate) fn load(self) -> Option<Load> {
        let small = Load { connections: 64, path: SMALL, body: 0, closes: false };
        match self {
            Work::Get1 => Some(Load { connections: 1, ..small }),
            Work::Get64 | Work::Million => Some(small),
            Work::Get512 => Some(Load { connections: 512, ..small }),
            Work::Answer10k => Some(Load { path: "/10k", ..small }),
            Work::Answer1m => Some(Load { path: "/1m", ..small }),
            Work::Upload64k => Some(Load { path: "/upload", body: 64 * 1024, ..small }),
            Work::Close => Some(Load { closes: true, ..small }),
            Work::Idle => None,
        }
    }
}

// === impl Load ===

impl Load {
    /// The script for wrk: all requests are made before the first is sent, and sent in turn. At
    /// the end it prints one line of JSON, which [`Sent`](super::wrk::Sent) is read from.
    pub(crate) fn script(&self) -> String {
        let Self { path, body, closes, .. } = self;
        let (ids, method, content) = match body {
            0 => (IDS, "GET", "nil".to_owned()),
            bytes => (IDS_WITH_BODY, "POST", format!("string.rep('x', {bytes})")),
        };
        let close = if *closes { "headers['Connection'] = 'close'\n    " } else { "" };
        format!(
            "local requests, last = {{}}, 0\n\
             function init(args)\n  \
               local body = {content}\n  \
               for i = 1, {ids} do\n    \
                 local headers = {{ ['X-Request-Id'] = tostring(100000 + i * 7919 % 900000) }}\n    \
                 {close}requests[i] = wrk.format('{method}', '{path}', headers, body)\n  \
               end\n\
             end\n\
             function request()\n  \
               last = last % {ids} + 1\n  \
               return requests[last]\n\
             end\n\
             function done(summary, latency, requests)\n  \
               local errors = summary.errors\n  \
               io.write(string.format('{{\"requests\":%d,\"micros\":%d,\"p50\":%d,\"p99\":%d,\
                 \"connect\":%d,\"read\":%d,\"write\":%d,\"status\":%d,\"timeout\":%d}}\\n',\n    \
                 summary.requests, summary.duration, latency:percentile(50),\n    \
                 latency:percentile(99), errors.connect, errors.read, errors.write,\n    \
                 errors.status, errors.timeout))\n\
             end\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_work_is_called_on_the_command_line_as_it_calls_itself() {
        for work in Work::ALL {
            assert_eq!(work.to_possible_value().unwrap().get_name(), work.name());
        }
        assert_eq!(Work::value_variants(), Work::ALL);
    }

    #[test]
    fn a_script_sends_what_its_load_says() {
        let script = Work::Get64.load().unwrap().script();
        assert!(script.contains("wrk.format('GET', '/small', headers, body)"), "{script}");
        assert!(script.contains("local body = nil") && !script.contains("close"), "{script}");
        let script = Work::Upload64k.load().unwrap().script();
        assert!(script.contains("'POST', '/upload'"), "{script}");
        assert!(script.contains("string.rep('x', 65536)"), "{script}");
        let script = Work::Close.load().unwrap().script();
        assert!(script.contains("headers['Connection'] = 'close'\n"), "{script}");
    }
}
