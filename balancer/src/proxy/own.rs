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

use super::message::Asked;
use crate::admin::{self, Admin};

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

    /// Whether a path is one of the balancer's own.
    pub fn has(path: &[u8]) -> bool {
        matches!(path, b"/rep" | b"/add" | b"/rm" | b"/metrics" | b"/admin")
            || path.starts_with(b"/admin/")
            || path.starts_with(b"/loadbalancer/")
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
