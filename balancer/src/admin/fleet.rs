//! `GET /admin/fleet`: the fleet as its supervisor sees it. `/admin/roll`: rolling updates.

use std::collections::BTreeMap;

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use tracing::info;

use super::body::read_roll;
use super::guard::{may_change, may_name_programs};
use super::{Admin, READ, ROLL, deny, fail, refuse};
use crate::fleet::roster::FleetStatus;
use crate::fleet::scale::ScaleStatus;
use crate::reply;
use crate::state::PoolStatus;

#[derive(Serialize)]
struct Fleet {
    #[serde(flatten)]
    fleet: FleetStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<ScaleStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<PoolStatus>,
    engine: Engine,
    /// How many of each event there were since the balancer's start.
    counts: BTreeMap<&'static str, u64>,
}

/// What runs the replicas.
#[derive(Serialize)]
struct Engine {
    reachable: bool,
    error: Option<String>,
}

pub(super) async fn fleet(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    if let Some(refusal) = refuse(&request, &admin, READ) {
        return refusal;
    }
    match admin.shared.status().await {
        Ok(status) => {
            let error = status.engine_error;
            let engine = Engine { reachable: error.is_none(), error };
            let counts = admin.shared.history().counts();
            let (fleet, scale, pool) = (status.fleet, status.scale, status.pool);
            let fleet = Fleet { fleet, scale, pool, engine, counts };
            reply::success(StatusCode::OK, fleet)
        }
        Err(error) => fail(&error),
    }
}

/// `GET`: how the last rolling update stands. `POST`: begins one; 202, it goes on by itself.
pub(super) async fn roll(request: HttpRequest, body: Payload, admin: Data<Admin>) -> HttpResponse {
    if let Some(refusal) = refuse(&request, &admin, ROLL) {
        return refusal;
    }
    if request.method() != Method::POST {
        return match admin.shared.status().await {
            Ok(status) => reply::success(StatusCode::OK, status.fleet.roll),
            Err(error) => fail(&error),
        };
    }
    if let Err(denied) = may_change(&request, &admin.config) {
        return deny(&denied);
    }
    let asked = match read_roll(&request, body).await {
        Ok(asked) => asked,
        Err(bad) => return reply::failure(bad.status(), &bad.to_string()),
    };
    if (asked.image.is_some() || asked.command.is_some())
        && let Err(denied) = may_name_programs(&admin.config)
    {
        return deny(&denied);
    }
    info!(image = asked.image, command = ?asked.command, batch = asked.batch, "rolling update asked for");
    match admin.shared.roll(asked).await {
        Ok(status) => reply::success(StatusCode::ACCEPTED, status),
        Err(error) => fail(&error),
    }
}
