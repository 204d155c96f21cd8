//! `/loadbalancer/*`: the API by which overload controllers of other makes see how loaded replicas
//! are, and take them out of rotation.

mod stats;

use actix_web::http::{Method, StatusCode, header};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::guard::{may_change, may_come_without_json};
use super::{Admin, READ, deny, fail, refuse, unknown};
use crate::fleet::seat::Hostname;

const CHANGE: &[Method] = &[Method::POST];
const STATS: &[Method] = &[Method::GET, Method::HEAD, Method::DELETE];

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<String>,
}

/// Why a call failed (RFC 9457).
#[derive(Serialize)]
struct Problem<'a> {
    title: &'static str,
    status: u16,
    detail: &'a str,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    List,
    Stats,
    /// One node, to be switched on or off where that is said.
    Node(Hostname, Option<bool>),
}

pub(super) async fn call(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    let Some(call) = Call::parse(request.uri().path()) else {
        return unknown(request, admin).await;
    };
    let methods = match &call {
        Call::List | Call::Node(_, None) => READ,
        Call::Node(_, Some(_)) => CHANGE,
        Call::Stats => STATS,
    };
    if let Some(refusal) = refuse(&request, &admin, methods) {
        return refusal;
    }
    let changes = !READ.contains(request.method());
    if changes
        && let Err(denied) =
            may_change(&request, &admin.config).and_then(|()| may_come_without_json(&request))
    {
        return deny(&denied);
    }
    match call {
        Call::List => match admin.shared.nodes().await {
            Ok(nodes) => HttpResponse::Ok().json(Nodes { nodes }),
            Err(error) => fail(&error),
        },
        Call::Stats => stats::stats(&admin, changes).await,
        Call::Node(hostname, enable) => node(&admin, hostname, enable).await,
    }
}

async fn node(admin: &Admin, hostname: Hostname, enable: Option<bool>) -> HttpResponse {
    let detail = format!("no replica that has joined is called {:?}", hostname.as_str());
    match admin.shared.node(hostname, enable).await {
        Ok(Some(node)) => HttpResponse::Ok().json(node),
        Ok(None) => problem(StatusCode::NOT_FOUND, "Not Found", &detail),
        Err(error) => fail(&error),
    }
}

fn problem(status: StatusCode, title: &'static str, detail: &str) -> HttpResponse {
    let problem = Problem { title, status: status.as_u16(), detail };
    HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, "application/problem+json"))
        .body(serde_json::to_string(&problem).expect("two strings and a number are always JSON"))
}

// === impl Call ===

impl Call {
    /// The call that a path, as it came, stands for. A name with a slash or a space in it is
    /// percent-encoded there.
    fn parse(path: &str) -> Option<Self> {
        let path = path.strip_prefix("/loadbalancer/")?;
        if let Some(rest) = path.strip_prefix("node/") {
            let (name, enable) = match rest.split_once('/') {
                None => (rest, None),
                Some((name, "enable")) => (name, Some(true)),
                Some((name, "disable")) => (name, Some(false)),
                Some(_) => return None,
            };
            let name =
                percent_decode_str(name).decode_utf8().ok().filter(|name| !name.is_empty())?;
            return Some(Call::Node(Hostname::listed(&name), enable));
        }
        match path {
            "node_list" => Some(Call::List),
            "stats" => Some(Call::Stats),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_calls() {
        let node = |name, enable| Some(Call::Node(Hostname::listed(name), enable));
        for (path, call) in [
            ("/loadbalancer/node_list", Some(Call::List)),
            ("/loadbalancer/stats", Some(Call::Stats)),
            ("/loadbalancer/node/S1", node("S1", None)),
            ("/loadbalancer/node/Server%204/enable", node("Server 4", Some(true))),
            ("/loadbalancer/node/web:80%2F10.0.0.1/disable", node("web:80/10.0.0.1", Some(false))),
            ("/loadbalancer/node/enable", node("enable", None)),
            ("/loadbalancer/node/", None),
            ("/loadbalancer/node//enable", None),
            ("/loadbalancer/node/%ff", None),
            ("/loadbalancer/node/S1/", None),
            ("/loadbalancer/node/S1/Enable", None),
            ("/loadbalancer/", None),
            ("/loadbalancer/stats/", None),
        ] {
            assert_eq!(Call::parse(path), call, "{path}");
        }
    }
}
