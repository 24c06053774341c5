//! `tidemill permissions`.

use super::lint;
use crate::args::Written;
use crate::context::Context;
use crate::error::{CliError, Exit, Result};
use crate::manifests::{Manifests, Missing, Options, Severity};
use crate::output::{Text, Tone};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use tidemill_core::contract::{Connection, Contract};
use tidemill_core::names::{Kind, ResourceId};
use tidemill_nats::permissions::{self, Grant, Permissions, Responses, covers};

/// Shown at the end of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  tidemill permissions manifests/
  tidemill permissions manifests/ --resource saga/order-fulfilment -o json
  tidemill permissions manifests/ --participant inventory.reserve
  tidemill permissions manifests/ -o nats > users.conf

The files must declare every stream that the resources name. What isn't listed is to be denied. With -o nats it is a part of \
nats-server's configuration, with a user for each resource, whose passwords come from the server's environment.";

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files, folders (with everything below them), or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One resource, such as saga/order-fulfilment [default: all]
    #[arg(long, value_name = "KIND/NAME", value_parser = resource)]
    resource: Option<(Kind, String)>,
    /// What a program needs that answers requests on this subject
    #[arg(long, value_name = "SUBJECT", conflicts_with = "resource")]
    participant: Option<String>,
    /// JetStream domain that workers use
    #[arg(long, value_name = "NAME", conflicts_with = "jetstream_api_prefix")]
    jetstream_domain: Option<String>,
    /// Prefix of JetStream's API that workers use
    #[arg(long, value_name = "SUBJECT")]
    jetstream_api_prefix: Option<String>,
    /// Prefix of workers' inboxes [default: one for each resource]
    #[arg(long, value_name = "SUBJECT")]
    inbox_prefix: Option<String>,
}

/// Reads `KIND/NAME`.
pub(super) fn resource(text: &str) -> std::result::Result<(Kind, String), String> {
    let (kind, name) = text
        .split_once('/')
        .ok_or("write projection/NAME or saga/NAME")?;
    Ok((kind.to_ascii_lowercase().parse()?, name.to_owned()))
}

/// Somebody who needs permissions.
struct Needs {
    /// `Saga shop/order-fulfilment`.
    who: String,
    /// For programs.
    identity: Map<String, Value>,
    user: String,
    permissions: Permissions,
}

pub(crate) fn run(args: &Args, written: Written, context: &Context) -> Result<()> {
    let options = Options {
        run_here: false,
        namespace: context.given_namespace().map(str::to_owned),
        missing: Missing::Error,
        declared_before: BTreeSet::new(),
    };
    let manifests = Manifests::load(&args.files, &options)?;
    if manifests.errors() > 0 {
        for finding in manifests.of_severity(Severity::Error) {
            eprintln!("{}", crate::output::visible(&finding.to_string()));
        }
        return Err(CliError::failed("there are errors in the manifests")
            .remedy("mend them: `tidemill lint` lists them too"));
    }
    if manifests.resources.is_empty() {
        return Err(lint::nothing(&args.files));
    }
    let connection = Connection {
        jetstream_domain: args.jetstream_domain.clone(),
        jetstream_api_prefix: args.jetstream_api_prefix.clone(),
        inbox_prefix: args.inbox_prefix.clone(),
        ..Connection::plain("")
    };
    let contracts = manifests.resources.iter();
    let contracts: Vec<Contract> = contracts
        .filter_map(|declared| declared.contract(&connection))
        .collect();
    let needs = match (&args.participant, &args.resource) {
        (Some(subject), _) => vec![participant(subject, &contracts)?],
        (None, None) => contracts.iter().map(worker).collect(),
        (None, Some((kind, name))) => vec![worker(named(*kind, name, &contracts, context)?)],
    };
    match written {
        Written::Table => for_people(&needs, context),
        Written::Nats => context.output.own(configuration(&needs).trim_end()),
        Written::Json | Written::Yaml => {
            let documents: Vec<Value> = needs.iter().map(document).collect();
            context.output.document(&documents)
        }
    }
}

fn worker(contract: &Contract) -> Needs {
    let ResourceId {
        namespace,
        kind,
        name,
    } = &contract.resource;
    let identity = [
        ("kind", json!(kind)),
        ("namespace", json!(namespace)),
        ("name", json!(name)),
    ];
    let word = match kind {
        Kind::Projection => "Projection",
        Kind::Saga => "Saga",
    };
    Needs {
        who: format!("{word} {namespace}/{name}"),
        identity: identity
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        user: permissions::user_name(&contract.resource),
        permissions: permissions::worker(contract),
    }
}

fn named<'a>(
    kind: Kind,
    name: &str,
    contracts: &'a [Contract],
    context: &Context,
) -> Result<&'a Contract> {
    let namespace = match name.contains('/') {
        true => Some(context.qualify(name).0),
        false => context.given_namespace().map(str::to_owned),
    };
    let name = name.rsplit('/').next().unwrap_or_default();
    let is_it = |resource: &ResourceId| {
        let in_namespace = |namespace: &String| *namespace == resource.namespace;
        resource.kind == kind && resource.name == name && namespace.iter().all(in_namespace)
    };
    let mut found = contracts
        .iter()
        .filter(|contract| is_it(&contract.resource));
    match (found.next(), found.next()) {
        (Some(contract), None) => Ok(contract),
        (Some(_), Some(_)) => Err(CliError::usage(format!(
            "{kind} {name} is there in several namespaces"
        ))
        .remedy("name one with -n")),
        (None, _) => {
            let there: Vec<String> = contracts.iter().map(|c| c.resource.to_string()).collect();
            Err(
                CliError::not_found(format!("there is no {kind} {name} in these files"))
                    .remedy(format!("there is {}", or_nothing(&there))),
            )
        }
    }
}

fn participant(subject: &str, contracts: &[Contract]) -> Result<Needs> {
    let requests = contracts.iter().flat_map(permissions::request_subjects);
    let requests: BTreeSet<&str> = requests.collect();
    if !requests.iter().any(|request| covers(subject, request)) {
        let requests: Vec<&str> = requests.into_iter().collect();
        let there = or_nothing(&requests);
        let what = format!("no step in these files sends requests to {subject}");
        return Err(CliError::new(Exit::NotFound, what).remedy(format!("they go to {there}")));
    }
    let word = subject.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    Ok(Needs {
        who: format!("Participant on {subject}"),
        identity: Map::from_iter([("participant".to_owned(), json!(subject))]),
        user: format!("participant-{}", word.trim_matches('-')),
        permissions: permissions::participant(subject, contracts),
    })
}

fn or_nothing<T: AsRef<str>>(texts: &[T]) -> String {
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    match texts.is_empty() {
        true => "nothing".to_owned(),
        false => texts.join(", "),
    }
}

/// Everything that is permitted: what, to which subject, why.
fn lines(permissions: &Permissions) -> Vec<(&'static str, &str, String)> {
    let Permissions {
        publish,
        subscribe,
        responses,
    } = permissions;
    let mut lines = Vec::new();
    for (may, grants) in [("publish", publish), ("subscribe", subscribe)] {
        for Grant { subject, why } in grants {
            lines.push((may, subject.as_str(), why.clone()));
        }
    }
    if let Some(Responses { max, within }) = responses {
        let within = within.as_secs();
        let why = format!("answers requests: {max} message each, within {within} s");
        lines.push(("respond", "(as asked)", why));
    }
    lines
}

fn for_people(needs: &[Needs], context: &Context) -> Result<()> {
    for (index, needs) in needs.iter().enumerate() {
        if index > 0 {
            context.output.own("")?;
        }
        context.output.line(&needs.who)?;
        let rows = lines(&needs.permissions).into_iter();
        let rows = rows.map(|(may, subject, why)| {
            vec![may.into(), subject.into(), Text::toned(why, Tone::Faint)]
        });
        let heads = ["may", "subject", "why"];
        context.output.table(&heads, rows.collect(), "nothing")?;
    }
    Ok(())
}

fn document(needs: &Needs) -> Value {
    let Needs {
        who: _,
        identity,
        user,
        permissions,
    } = needs;
    let Permissions {
        publish,
        subscribe,
        responses,
    } = permissions;
    let rights = |grants: &[Grant]| {
        let allow: Vec<&str> = grants.iter().map(|grant| grant.subject.as_str()).collect();
        match allow.is_empty() {
            true => json!({ "deny": [">"] }),
            false => json!({ "allow": allow }),
        }
    };
    let why = lines(permissions).into_iter();
    let why: Vec<Value> = why
        .map(|(may, subject, why)| json!({ "may": may, "subject": subject, "why": why }))
        .collect();
    let mut document = identity.clone();
    document.insert("user".to_owned(), json!(user));
    document.insert("publish".to_owned(), rights(publish));
    document.insert("subscribe".to_owned(), rights(subscribe));
    if let Some(Responses { max, within }) = responses {
        let expires = format!("{}s", within.as_secs());
        let value = json!({ "max": max, "expires": expires });
        document.insert("allowResponses".to_owned(), value);
    }
    document.insert("lines".to_owned(), json!(why));
    Value::Object(document)
}

/// A part of nats-server's configuration.
fn configuration(needs: &[Needs]) -> String {
    let mut text = String::from("authorization {\n  users: [\n");
    for Needs {
        who,
        user,
        permissions,
        ..
    } in needs
    {
        let variable = user.to_ascii_uppercase().replace('-', "_");
        let permissions = permissions.to_string().replace('\n', "\n      ");
        let _ = write!(
            text,
            "    # {who}\n    {{\n      user: {user:?}\n      password: ${variable}\n      permissions: {permissions}\n    }}\n"
        );
    }
    text.push_str("  ]\n}\n");
    text
}
