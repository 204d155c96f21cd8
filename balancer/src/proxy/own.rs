//! The balancer's own routes on the traffic listener: actix-web's app, called in the same thread,
//! without a connection between.

pub mod answer;

use std::net::SocketAddr;
use std::rc::Rc;

use actix_http::h1;
use actix_service::{IntoServiceFactory as _, Service as _, ServiceFactory as _};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, Uri};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpResponse};
use futures_util::future::LocalBoxFuture;
use memchr::{memchr, memchr_iter};
use percent_encoding::percent_decode;
use smallvec::SmallVec;

use super::message::Asked;
use crate::admin::{self, Admin};

/// Bytes of a path segment that are compared: more than any reserved name has.
const SEGMENT: usize = 16;

type Called = LocalBoxFuture<'static, Result<ServiceResponse<BoxBody>, actix_web::Error>>;

/// The admin routes of one worker.
#[derive(Clone)]
pub struct Own(Rc<dyn Fn(actix_http::Request) -> Called>);

// === impl Own ===

impl Own {
    /// Makes the app.
    ///
    /// # Errors
    /// When actix-web cannot make it; it logs why.
    pub async fn new(admin: Admin) -> Result<Self, ()> {
        let app = App::new()
            .app_data(Data::new(admin))
            .configure(admin::routes)
            .default_service(web::to(admin::unknown));
        let service = app.into_factory().new_service(AppConfig::default()).await?;
        Ok(Self(Rc::new(move |request| Box::pin(service.call(request)))))
    }

    /// Reports whether a path is reserved for the balancer, however it is spelled: a server would
    /// take `/%61dmin`, `//admin` or `/x/../admin` for `/admin`.
    pub fn has(path: &[u8]) -> bool {
        is_reserved(path) || (may_be_odd(path) && is_reserved_when_plain(path))
    }

    /// Answers a request whose body is `body`.
    pub async fn call(&self, asked: &Asked<'_>, body: Bytes) -> HttpResponse {
        let Some(request) = request(asked, body) else {
            // A path that no route could have: the URI is beyond what the router reads.
            return HttpResponse::NotFound().finish();
        };
        match (self.0)(request).await {
            Ok(answer) => answer.into_parts().1,
            Err(error) => error.error_response(),
        }
    }
}

/// Reports whether a path in its plain spelling is reserved.
fn is_reserved(path: &[u8]) -> bool {
    matches!(path, b"/rep" | b"/add" | b"/rm" | b"/metrics" | b"/admin")
        || path.starts_with(b"/admin/")
        || path.starts_with(b"/loadbalancer/")
}

/// Reports whether a path may have another plain spelling that is reserved. Most paths have
/// neither an escape, nor an empty or a dot segment.
fn may_be_odd(path: &[u8]) -> bool {
    memchr(b'%', path).is_some()
        || path.starts_with(b"//")
        || memchr_iter(b'/', path).any(|at| matches!(path.get(at + 1), Some(b'/' | b'.')))
}

/// Reports whether the plain spelling of a path is reserved: escapes decoded once, empty and dot
/// segments removed (RFC 3986 5.2.4, 6.2.2). Allocates nothing, however long the path is.
fn is_reserved_when_plain(path: &[u8]) -> bool {
    let (mut first, mut depth, mut is_folder) = (SmallVec::new(), 0_usize, false);
    let mut segment = SmallVec::<[u8; SEGMENT]>::new();
    for byte in percent_decode(path).chain([b'/']) {
        if byte != b'/' {
            // A longer segment is none of the reserved names.
            if segment.len() < SEGMENT {
                segment.push(byte);
            }
            continue;
        }
        is_folder = matches!(&segment[..], b"" | b"." | b"..");
        if segment[..] == *b".." {
            depth = depth.saturating_sub(1);
        } else if !is_folder {
            if depth == 0 {
                first = std::mem::take(&mut segment);
            }
            depth += 1;
        }
        segment.clear();
    }
    match &first[..] {
        b"rep" | b"add" | b"rm" | b"metrics" => depth == 1 && !is_folder,
        b"admin" => depth > 0,
        b"loadbalancer" => depth > 1 || (depth == 1 && is_folder),
        _ => false,
    }
}

fn request(asked: &Asked<'_>, body: Bytes) -> Option<actix_http::Request> {
    let Asked { request, head, .. } = asked;
    let (_, mut payload) = h1::Payload::create(true);
    payload.unread_data(body);
    let mut made = actix_http::Request::with_payload(actix_http::Payload::from(payload));
    let to = made.head_mut();
    to.method = Method::from_bytes(request.method.of(head)).ok()?;
    let (_, target) = request.target(head);
    to.uri = Uri::try_from(target).ok()?;
    to.peer_addr = asked.peer.text().parse().ok().map(|ip| SocketAddr::new(ip, 0));
    for line in asked.lines {
        let name = HeaderName::from_bytes(line.name.of(head)).ok()?;
        let value = HeaderValue::from_bytes(line.value.of(head)).ok()?;
        to.headers.append(name, value);
    }
    if let Some(host) = request.host {
        let host = HeaderValue::from_bytes(host.of(head)).ok()?;
        to.headers.insert(actix_web::http::header::HOST, host);
    }
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_path_is_found_in_every_spelling() {
        for reserved in [
            "/rep",
            "/add",
            "/rm",
            "/metrics",
            "/admin",
            "/admin/",
            "/admin/fleet",
            "/loadbalancer/nodes",
            "/%61dmin",
            "/%61%64min/fleet",
            "/admin%2Ffleet",
            "/admin%2ffleet",
            "%2Fadmin",
            "//admin",
            "///admin//fleet",
            "/./admin",
            "/x/../admin",
            "/x/y/../../rep",
            "/../rep",
            "/x/%2e%2e/rep",
            "/loadbalancer//x",
        ] {
            assert!(Own::has(reserved.as_bytes()), "{reserved}");
        }
        for free in [
            "/",
            "",
            "*",
            "/home",
            "/rep/x",
            "/reports",
            "/administrators",
            "/x/admin",
            "/x//admin",
            "/x/../home",
            "/x/../rep/",
            "/x/./loadbalancer",
            "/%2e%2e/adminadminadminadmin",
            "/%2561dmin",
            "/loadbalancer",
            "/%zzadmin",
            "/RM",
        ] {
            assert!(!Own::has(free.as_bytes()), "{free}");
        }
    }
}
