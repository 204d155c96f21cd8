//! The body of `/admin/rehearse`.

use serde_json::{Map, Value};

use super::{BadBody, WEIGHTS_MAX, names, only, positive};
use crate::fleet::listed::Server;
use crate::fleet::roster::Rehearsal;
use crate::fleet::seat::Hostname;

/// What it can be told.
const FIELDS: (&[&str], &str) = (&["add", "rm"], "'add' and 'rm'");

/// What is to be rehearsed.
pub(super) fn read(fields: &Map<String, Value>, listed: bool) -> Result<Rehearsal, BadBody> {
    only(fields, FIELDS)?;
    let given = |field| fields.get(field).is_some_and(|value| !value.is_null());
    if !given("add") && !given("rm") {
        return Err(BadBody::Nothing);
    }
    let mut rehearsal = Rehearsal::default();
    if given("add") {
        match listed {
            true => rehearsal.servers = servers(&names(fields, "add")?)?,
            false => rehearsal.add = positive(fields, "add")?,
        }
    }
    if listed {
        rehearsal.add = rehearsal.servers.len();
    }
    if given("rm") {
        let hostname = |name: &str| match (listed, name.parse::<Server>()) {
            (false, _) => Hostname::parse(name),
            (true, Ok(server)) => Ok(server.hostname()),
            (true, Err(_)) => Ok(Hostname::listed(name)),
        };
        let names = names(fields, "rm")?;
        rehearsal.rm = names.into_iter().map(hostname).collect::<Result<_, _>>()?;
    }
    if rehearsal.add == 0 && rehearsal.rm.is_empty() {
        return Err(BadBody::Nothing);
    }
    Ok(rehearsal)
}

fn servers(names: &[&str]) -> Result<Vec<Server>, BadBody> {
    let server = |name: &&str| {
        let server = name.parse::<Server>().map_err(BadBody::Add)?;
        if server.literal().is_none() {
            return Err(BadBody::Unresolved(server.address));
        }
        Ok(server)
    };
    let servers: Vec<Server> = names.iter().map(server).collect::<Result<_, _>>()?;
    let weights: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
    if weights <= WEIGHTS_MAX { Ok(servers) } else { Err(BadBody::TooHeavy) }
}

#[cfg(test)]
mod tests {
    use super::super::object;
    use super::*;

    #[test]
    fn a_rehearsal_is_read_with_what_comes_and_what_goes() {
        let read = |body: &str, listed| super::read(&object(body.as_bytes())?, listed);
        let names = |names: &[&str]| names.iter().map(|name| Hostname::listed(name)).collect();
        let both = read(r#"{"add": 2, "rm": ["S5", "Server 4"]}"#, false).unwrap();
        let rm = names(&["S5", "Server 4"]);
        assert_eq!(both, Rehearsal { add: 2, servers: Vec::new(), rm });
        let one = read(r#"{"add": null, "rm": ["S5"]}"#, false).unwrap();
        assert_eq!(one, Rehearsal { rm: names(&["S5"]), ..Rehearsal::default() });
        let body = r#"{"add": ["10.0.0.1:80 weight=3", "http://[::1]"], "rm": ["http://a:80/"]}"#;
        let servers = vec!["10.0.0.1:80 weight=3".parse().unwrap(), "[::1]:80".parse().unwrap()];
        let listed = Rehearsal { add: 2, servers, rm: names(&["a:80"]) };
        assert_eq!(read(body, true).unwrap(), listed);
        for (body, listed, message) in [
            ("{}", false, "'add' or 'rm' must be there"),
            (r#"{"add": null}"#, false, "'add' or 'rm' must be there"),
            (r#"{"rm": []}"#, false, "'add' or 'rm' must be there"),
            (r#"{"add": []}"#, true, "'add' or 'rm' must be there"),
            (r#"{"n": 1}"#, false, r#""n" is no field of this call: there are 'add' and 'rm'"#),
            (r#"{"add": 0}"#, false, "'add' must be an integer of at least 1, not 0"),
            (r#"{"add": ["a:1"]}"#, false, "'add' must be an integer of at least 1, not a list"),
            (r#"{"rm": "S1"}"#, false, "'rm' must be a list of strings, not a string"),
            (r#"{"rm": ["../x"]}"#, false, r#"hostname "../x" must be"#),
            (r#"{"add": 1}"#, true, "'add' must be a list of strings, not a number"),
            (
                r#"{"add": ["x"]}"#,
                true,
                "replicas are listed, so 'add' must be a list of addresses",
            ),
            (r#"{"add": ["a:80"]}"#, true, "'add' must have IP addresses: \"a:80\" has a name"),
        ] {
            let told = read(body, listed).unwrap_err().to_string();
            assert!(told.starts_with(message), "{body}: {told}");
        }
        let heavy = |count: u8| {
            let one = |last| format!("\"10.0.0.{last}:80 weight=1000\"");
            let all: Vec<String> = (1..=count).map(one).collect();
            read(&format!(r#"{{"add": [{}]}}"#, all.join(",")), true)
        };
        assert!(heavy(10).is_ok());
        assert!(matches!(heavy(11), Err(BadBody::TooHeavy)));
    }
}
