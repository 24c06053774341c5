//! Which namespaces may use which subjects and stream names. The operator has rights to the whole NATS account; it must not lend them.

use serde::{Deserialize, Serialize};

/// Who may use what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenancy {
    /// Whether every namespace may use everything: for clusters of one team.
    #[serde(default)]
    pub open: bool,
    /// What namespaces may use besides `<namespace>.>` and `<namespace>_*`.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// What some namespaces may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Names of namespaces; `*` at the end stands for any rest.
    pub namespaces: Vec<String>,
    /// Subjects, with NATS' wildcards.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Names of streams; `*` at the end stands for any rest.
    #[serde(default)]
    pub streams: Vec<String>,
    /// Whether they may take over streams that are there already, of the names they may use.
    #[serde(default)]
    pub adopt: bool,
}

/// What a namespace lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "namespace {namespace} may not use {what} `{name}`: grant it in the operator's configuration \
     (tenancy.grants: [{{namespaces: [{namespace}], {what}s: [\"{name}\"]}}]), or use {own}"
)]
pub struct NotAllowed {
    namespace: String,
    /// `subject` or `stream`.
    what: &'static str,
    name: String,
    /// What it may use.
    own: String,
}

/// A namespace may not take over streams.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "namespace {0} may not take over streams that are there already: grant it in the operator's configuration \
     (tenancy.grants: [{{namespaces: [{0}], adopt: true}}])"
)]
pub struct MayNotAdopt(String);

impl Tenancy {
    /// Whether a namespace may take over streams.
    ///
    /// # Errors
    /// [`MayNotAdopt`]
    pub fn check_adoption(&self, namespace: &str) -> Result<(), MayNotAdopt> {
        let granted = self.grants.iter().any(|grant| {
            let mut names = grant.namespaces.iter();
            grant.adopt && names.any(|name| covers_name(name, namespace))
        });
        match self.open || granted {
            true => Ok(()),
            false => Err(MayNotAdopt(namespace.to_owned())),
        }
    }

    /// Whether a namespace may have a stream of this name that takes these subjects.
    ///
    /// # Errors
    /// [`NotAllowed`]: the first thing that it may not use.
    pub fn check<'a>(
        &self,
        namespace: &str,
        stream: &str,
        subjects: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), NotAllowed> {
        if self.open {
            return Ok(());
        }
        let granted = || {
            self.grants.iter().filter(|grant| {
                let names = &mut grant.namespaces.iter();
                names.any(|name| covers_name(name, namespace))
            })
        };
        let own = format!("{namespace}_*");
        if !covers_name(&own, stream)
            && !granted()
                .flat_map(|grant| &grant.streams)
                .any(|name| covers_name(name, stream))
        {
            return Err(NotAllowed {
                namespace: namespace.to_owned(),
                what: "stream",
                name: stream.to_owned(),
                own: format!("`{own}`"),
            });
        }
        let own = format!("{namespace}.>");
        for subject in subjects {
            if !covers(&own, subject)
                && !granted()
                    .flat_map(|grant| &grant.subjects)
                    .any(|pattern| covers(pattern, subject))
            {
                return Err(NotAllowed {
                    namespace: namespace.to_owned(),
                    what: "subject",
                    name: subject.to_owned(),
                    own: format!("`{own}`"),
                });
            }
        }
        Ok(())
    }
}

fn covers_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

/// Whether every subject that `narrow` matches is matched by `wide` too.
fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wide), Some(narrow)) if wide == narrow => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidemill_crds::compile::together::overlap;

    fn grant(namespaces: &str, subjects: &str, streams: &str) -> Tenancy {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Tenancy {
            open: false,
            grants: vec![Grant {
                namespaces: list(namespaces),
                subjects: list(subjects),
                streams: list(streams),
                adopt: false,
            }],
        }
    }

    #[test]
    fn a_namespace_has_its_own_and_what_is_granted() {
        let tenancy = grant("shop team-*", "legacy.*.orders", "LEGACY LEG_*");
        for (namespace, stream, subject, expected) in [
            ("shop", "shop_orders", "shop.orders.>", Ok(())),
            ("shop", "LEGACY", "legacy.eu.orders", Ok(())),
            ("team-a", "LEG_1", "legacy.*.orders", Ok(())),
            ("shop", "shop_orders", "legacy.>", Err("subject `legacy.>`")),
            ("shop", "shop_orders", "shops.>", Err("subject `shops.>`")),
            ("shop", "shop_orders", ">", Err("subject `>`")),
            ("shop", "shopping", "shop.a", Err("stream `shopping`")),
            ("other", "LEGACY", "other.a", Err("stream `LEGACY`")),
            ("other", "other_a", "shop.a", Err("subject `shop.a`")),
        ] {
            let found = tenancy.check(namespace, stream, [subject]);
            match expected {
                Ok(()) => assert_eq!(found, Ok(()), "{namespace} {stream} {subject}"),
                Err(part) => {
                    let said = found.map_err(|error| error.to_string()).unwrap_err();
                    assert!(said.contains(part), "{said}");
                }
            }
        }
        let open = Tenancy {
            open: true,
            ..Tenancy::default()
        };
        assert_eq!(open.check("a", "anything", [">"]), Ok(()));
    }

    proptest! {
        /// What is covered overlaps, and a subject without wildcards that overlaps is covered.
        #[test]
        fn covering_is_stronger_than_overlapping(
            wide in "([ab*]\\.){0,3}[ab*>]",
            narrow in "([ab*]\\.){0,3}[ab*>]",
        ) {
            if covers(&wide, &narrow) {
                prop_assert!(overlap(&wide, &narrow));
            }
            if !narrow.contains(['*', '>']) {
                prop_assert_eq!(covers(&wide, &narrow), overlap(&wide, &narrow));
            }
            prop_assert!(covers(">", &narrow) && covers(&narrow, &narrow));
        }
    }
}
