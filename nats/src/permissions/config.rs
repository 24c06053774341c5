//! Permissions as nats-server's configuration file has them.

use super::{Grant, Permissions, Responses};
use std::fmt::{self, Display, Formatter};
use tidemill_core::names::ResourceId;

/// Name for the NATS user of a resource's workers.
#[must_use]
pub fn user_name(resource: &ResourceId) -> String {
    format!("{}-{}-{}", resource.namespace, resource.kind, resource.name)
}

/// The value of a user's `permissions`, over several lines, each subject with its reason.
impl Display for Permissions {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Permissions {
            publish,
            subscribe,
            responses,
        } = self;
        writeln!(f, "{{")?;
        list(f, "publish", publish)?;
        list(f, "subscribe", subscribe)?;
        if let Some(Responses { max, within }) = responses {
            let expires = within.as_secs();
            writeln!(
                f,
                "  allow_responses: {{ max: {max}, expires: \"{expires}s\" }}"
            )?;
        }
        write!(f, "}}")
    }
}

fn list(f: &mut Formatter<'_>, name: &str, grants: &[Grant]) -> fmt::Result {
    if grants.is_empty() {
        // The server takes an empty list for none, that is, for everything.
        return writeln!(f, "  {name}: {{ deny: \">\" }}");
    }
    writeln!(f, "  {name}: {{ allow: [")?;
    for Grant { subject, why } in grants {
        // A reason may name what a person wrote.
        let why = why.replace(char::is_control, " ");
        writeln!(f, "    {subject:?}  # {why}")?;
    }
    writeln!(f, "  ] }}")
}
