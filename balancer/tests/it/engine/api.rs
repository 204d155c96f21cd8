//! The part of the engine's API that the balancer uses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::http::{Reply, Request};
use super::world::{Call, Container, State, World};

/// What a request asks, and about which container.
pub(super) fn call(request: &Request) -> (Call, String) {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let (call, about) = match (request.method.as_str(), path.as_slice()) {
        (_, ["version" | "_ping"]) => (Call::Version, ""),
        (_, ["networks", ..]) => (Call::Network, ""),
        (_, ["volumes", ..]) => (Call::Volume, ""),
        (_, ["events"]) if filters(request, "type") == ["network"] => (Call::NetworkEvents, ""),
        (_, ["events"]) => (Call::Events, ""),
        ("GET", ["containers", "json"]) => (Call::List, ""),
        ("POST", ["containers", "create"]) => {
            (Call::Create, request.query.get("name").map_or("", String::as_str))
        }
        ("POST", ["containers", id, "start"]) => (Call::Start, *id),
        ("POST", ["containers", id, "stop"]) => (Call::Stop, *id),
        ("GET", ["containers", id, "json"]) => (Call::Inspect, *id),
        ("POST", ["containers", id, "rename"]) => (Call::Rename, *id),
        ("POST", ["images", "create"]) => (Call::Pull, ""),
        ("GET", ["images", .., "json"]) => (Call::Image, ""),
        ("DELETE", ["containers", id]) => (Call::Remove, *id),
        other => panic!("the engine knows no {other:?}"),
    };
    (call, about.to_owned())
}

pub(super) fn carry_out(world: &mut World, request: &Request) -> Reply {
    let (call, about) = call(request);
    match call {
        Call::Version => Reply(200, json!({"Version": "scripted", "ApiVersion": world.api})),
        Call::Network => network(world, request),
        Call::Volume => volume(world, request),
        Call::List => {
            let wanted = |container: &&Container| {
                filters(request, "label").iter().all(|label| has(&container.labels, label))
            };
            let listed = world.containers.iter().filter(wanted).map(summary).collect();
            Reply(200, Value::Array(listed))
        }
        Call::Create => create(world, request, &about),
        Call::Start => match world.run(&about) {
            Ok(true) => Reply(204, Value::Null),
            Ok(false) => Reply(304, Value::Null),
            Err((status, why)) => Reply(status, json!({ "message": why })),
        },
        Call::Stop | Call::Remove | Call::Inspect | Call::Rename
            if world.find(&about).is_none() =>
        {
            Reply(404, json!({ "message": format!("No such container: {about}") }))
        }
        Call::Stop => Reply(if world.kill(&about, 143) { 204 } else { 304 }, Value::Null),
        Call::Remove => {
            world.remove(&about);
            Reply(204, Value::Null)
        }
        Call::Rename => match world.rename(&about, &request.query["name"]) {
            Ok(()) => Reply(204, Value::Null),
            Err((status, why)) => Reply(status, json!({ "message": why })),
        },
        // It has no registry.
        Call::Pull => {
            let why = format!("pull access denied for {}", request.query["fromImage"]);
            Reply(404, json!({ "message": why }))
        }
        // Its images are their own IDs.
        Call::Image => {
            let name = request.path[1..request.path.len() - 1].join("/");
            if world.images.contains(&name) {
                Reply(200, json!({"Id": format!("sha256:{name}")}))
            } else {
                Reply(404, json!({ "message": format!("No such image: {name}:latest") }))
            }
        }
        Call::Inspect => Reply(200, world.find(&about).map_or(Value::Null, details)),
        Call::Events | Call::NetworkEvents | Call::Any => unreachable!("not carried out but told"),
    }
}

fn network(world: &mut World, request: &Request) -> Reply {
    let name = match request.path.get(1).map(String::as_str) {
        Some("create") => request.body["Name"].as_str().unwrap(),
        Some(name) => name.strip_prefix("id-of-").unwrap_or(name),
        None => return networks(world, request),
    };
    let known = world.networks.contains_key(name);
    match request.method.as_str() {
        "POST" if known => Reply(409, json!({"message": "network exists already"})),
        "POST" => {
            world.networks.insert(name.to_owned(), request.body["Labels"].clone());
            Reply(201, json!({"Id": format!("id-of-{name}"), "Warning": ""}))
        }
        _ if !known => Reply(404, json!({"message": format!("network {name} not found")})),
        "DELETE" => {
            world.networks.remove(name);
            Reply(204, Value::Null)
        }
        _ => Reply(200, json!({"Name": name, "Labels": world.networks[name]})),
    }
}

fn networks(world: &World, request: &Request) -> Reply {
    let labels = |labels: &Value| serde_json::from_value(labels.clone()).unwrap_or_default();
    let wanted = |labels: &BTreeMap<String, String>| {
        filters(request, "label").iter().all(|label| has(labels, label))
    };
    let listed = world.networks.iter().filter(|(_, it)| wanted(&labels(it)));
    let listed = listed.map(
        |(name, labels)| json!({"Id": format!("id-of-{name}"), "Name": name, "Labels": labels}),
    );
    Reply(200, Value::Array(listed.collect()))
}

fn volume(world: &mut World, request: &Request) -> Reply {
    let shown = |name: &str, labels: &BTreeMap<String, String>| {
        json!({"Name": name, "Driver": "local", "Mountpoint": "/", "Labels": labels,
               "Scope": "local", "Options": null})
    };
    match (request.method.as_str(), request.path.get(1).map(String::as_str)) {
        ("GET", None) => {
            let wanted = |labels: &BTreeMap<String, String>| {
                filters(request, "label").iter().all(|label| match label.split_once('=') {
                    Some(_) => has(labels, label),
                    None => labels.contains_key(label),
                })
            };
            let listed = world.volumes.iter().filter(|(_, labels)| wanted(labels));
            let listed: Vec<Value> = listed.map(|(name, labels)| shown(name, labels)).collect();
            Reply(200, json!({"Volumes": listed, "Warnings": null}))
        }
        ("POST", Some("create")) => {
            let name = request.body["Name"].as_str().unwrap().to_owned();
            let labels = serde_json::from_value(request.body["Labels"].clone()).unwrap();
            // As the real one: the labels of a volume that is there stay.
            let labels = world.volumes.entry(name.clone()).or_insert(labels);
            Reply(201, shown(&name, labels))
        }
        ("DELETE", Some(name)) => match world.volumes.remove(name) {
            Some(_) => Reply(204, Value::Null),
            None => Reply(404, json!({"message": format!("get {name}: no such volume")})),
        },
        other => panic!("the engine knows no {other:?} of volumes"),
    }
}

fn create(world: &mut World, request: &Request, name: &str) -> Reply {
    let body = &request.body;
    let labels: BTreeMap<String, String> =
        serde_json::from_value(body["Labels"].clone()).unwrap_or_default();
    let network = body["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
    if !world.networks.contains_key(network) {
        return Reply(404, json!({"message": format!("network {network} not found")}));
    }
    match world.create(name, labels, body["Image"].as_str().unwrap()) {
        Ok(id) => {
            world.connect(&id, network);
            Reply(201, json!({"Id": id, "Warnings": []}))
        }
        Err((status, why)) => Reply(status, json!({ "message": why })),
    }
}

/// A container in a listing.
fn summary(container: &Container) -> Value {
    let address = container.address().map(|address| address.ip().to_string()).unwrap_or_default();
    let networks = match container.detached {
        true => json!({}),
        false => json!({&container.network: {"IPAddress": address}}),
    };
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Labels": container.labels,
        "State": status(container),
        "Status": "as it is",
        "Created": container.created,
        "NetworkSettings": {"Networks": networks},
    })
}

/// A container by itself.
fn details(container: &Container) -> Value {
    json!({
        "Id": container.id,
        "Name": format!("/{}", container.name),
        "Config": {"Labels": container.labels},
        "State": {
            "Status": status(container),
            "Running": container.state == State::Running,
            "OOMKilled": container.out_of_memory,
            "ExitCode": container.exit_code,
            "StartedAt": humantime::format_rfc3339_nanos(container.started).to_string(),
        },
    })
}

fn status(container: &Container) -> &'static str {
    match container.state {
        State::Created => "created",
        State::Running => "running",
        State::Exited => "exited",
    }
}

/// Whether a subscriber asked for an event like this one.
pub(super) fn wants(request: &Request, event: &Value) -> bool {
    let labels: BTreeMap<String, String> =
        serde_json::from_value(event["Actor"]["Attributes"].clone()).unwrap_or_default();
    let kinds = filters(request, "event");
    let networks = filters(request, "network");
    filters(request, "type").iter().any(|kind| event["Type"] == kind.as_str())
        && filters(request, "label").iter().all(|label| has(&labels, label))
        && networks.iter().all(|name| labels.get("name") == Some(name))
        && kinds.iter().any(|kind| event["Action"] == kind.as_str())
}

fn filters(request: &Request, kind: &str) -> Vec<String> {
    let filters = request.query.get("filters").map_or("{}", String::as_str);
    let filters: Value = serde_json::from_str(filters).unwrap();
    serde_json::from_value(filters[kind].clone()).unwrap_or_default()
}

/// Whether a `name=value` is among the labels.
fn has(labels: &BTreeMap<String, String>, label: &str) -> bool {
    let (name, value) = label.split_once('=').unwrap();
    labels.get(name).is_some_and(|is| is == value)
}
