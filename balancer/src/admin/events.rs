//! `GET /admin/events`: what has happened to the fleet, as JSON, or live as server-sent events
//! (HTML Standard 9.2) to whoever accepts `text/event-stream`.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Admin, READ, refuse};
use crate::reply;
use crate::state::Shared;
use crate::state::history::Entry;

/// Most events in one piece of a stream: a reader that does not read holds no more than a piece.
const PIECE: usize = 32;

/// A stream on which nothing happens says so, so that nobody between takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Events<'a> {
    events: Vec<&'a Entry>,
    /// The number of the last event there was: ask for what comes after it.
    last: u64,
}

/// A reader of live events.
struct Reader {
    shared: Arc<Shared>,
    news: watch::Receiver<u64>,
    /// The last event that it was sent.
    last: u64,
    greeted: bool,
}

/// `?since=ID`: only the events after that one.
pub(super) async fn events(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    if let Some(refusal) = refuse(&request, &admin, READ) {
        return refusal;
    }
    let since = match since(&request) {
        Ok(since) => since,
        Err(bad) => {
            let message = format!("'since' must be the number of an event, not {bad:?}");
            return reply::failure(StatusCode::BAD_REQUEST, &message);
        }
    };
    let history = admin.shared.history();
    let last = *history.last().borrow();
    // A number that is still to come was seen before the balancer's restart: all is news then.
    let since = since.filter(|seen| *seen <= last).unwrap_or(0);
    // The answer to HEAD has no body that could go on.
    if request.method() == Method::GET && wants_stream(&request) {
        return HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/event-stream"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .streaming(live(Arc::clone(&admin.shared), since));
    }
    let entries = history.since(since);
    let events = entries.iter().map(AsRef::as_ref).collect();
    reply::success(StatusCode::OK, Events { events, last })
}

/// Where to begin: a reader that comes back says what it saw last.
fn since(request: &HttpRequest) -> Result<Option<u64>, String> {
    let asked = request.query_string().split('&').find_map(|pair| pair.strip_prefix("since="));
    let seen = request.headers().get("Last-Event-ID").and_then(|seen| seen.to_str().ok());
    let Some(given) = seen.or(asked) else { return Ok(None) };
    given.parse().map(Some).map_err(|_not_a_number| given.to_owned())
}

fn wants_stream(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT);
    accepted.filter_map(|value| value.to_str().ok()).any(|value| {
        let mut kinds = value.split(',').filter_map(|kind| kind.split(';').next());
        kinds.any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

/// Events after `last`, then all that happen, until the balancer stops.
fn live(
    shared: Arc<Shared>,
    last: u64,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let news = shared.history().last();
    let reader = Reader { shared, news, last, greeted: false };
    stream::unfold(reader, |mut reader| async {
        let text = reader.next().await?;
        Some((Ok(Bytes::from(text)), reader))
    })
}

// === impl Reader ===

impl Reader {
    async fn next(&mut self) -> Option<String> {
        loop {
            self.news.borrow_and_update();
            let mut entries = self.shared.history().since(self.last);
            entries.truncate(PIECE);
            if let Some(last) = entries.last() {
                self.last = last.id;
                self.greeted = true;
                return Some(entries.iter().map(|entry| told(entry)).collect());
            }
            // The first thing is sent at once, so that the reader knows that it is connected.
            if !std::mem::replace(&mut self.greeted, true) {
                return Some(": nothing has happened yet\n\n".to_owned());
            }
            tokio::select! {
                () = self.shared.stopped() => return None,
                news = timeout(KEEP_ALIVE, self.news.changed()) => match news {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(": nothing happens\n\n".to_owned()),
                },
            }
        }
    }
}

/// An event as one of a stream. JSON has no raw line breaks, so one `data` line holds it.
fn told(entry: &Entry) -> String {
    let data = serde_json::to_string(entry).expect("texts and numbers are always JSON");
    format!("id: {}\nevent: {}\ndata: {data}\n\n", entry.id, entry.event)
}
