//! Amounts of CPU and memory, as Kubernetes writes them.

use std::fmt;

use schemars::{Schema, json_schema};
use serde::{Deserialize, Serialize};

/// What Kubernetes calls a quantity, of the forms that containers are given: `2`, `0.5`, `100m`, `64Mi`, `1.5Gi`.
const FORM: &str = "^[0-9]{1,12}([.][0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$";

/// An amount of something a container is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    /// A bare number.
    Count(u64),
    /// As text.
    Text(String),
}

impl Quantity {
    /// The amount as the API server gives it back, whatever it was written as: the same amount has one canonical form, so that
    /// texts can be compared. `None`: it has not the form of an amount.
    ///
    /// The form: the whole number with the largest unit that keeps it whole; powers of 1024 stay such, unless there are fewer
    /// than 1024 units (apimachinery, `Quantity.CanonicalizeBytes`).
    #[must_use]
    pub fn canonical(&self) -> Option<String> {
        let text = self.to_string();
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || whole.len() > 12 || part.len() > 3 {
            return None;
        }
        // In thousandths of the unit, so that three digits behind the point are whole.
        let thousandths: u128 = format!("{whole}{part:0<3}").parse().ok()?;
        let scale: u128 = match unit {
            // Thousandths of a thousandth are rounded up, as there.
            "m" => return Some(decimal(thousandths.div_ceil(1_000))),
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            _ => return None,
        };
        let thousandths = thousandths.checked_mul(scale)?;
        match unit.ends_with('i') && thousandths >= 1_024_000 {
            true => Some(binary(thousandths.div_ceil(1_000))),
            false => Some(decimal(thousandths)),
        }
    }

    /// What is said of one that has not the form.
    pub(crate) fn wrong(&self) -> String {
        format!("`{self}` is no amount: write one such as 100m, 2, \"0.5\", 64Mi or 1.5Gi")
    }

    /// Schema of it.
    pub(crate) fn schema() -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maximum": 999_999_999_999_i64,
            "maxLength": 18,
            "pattern": FORM,
        })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantity::Count(count) => write!(f, "{count}"),
            Quantity::Text(text) => f.write_str(text),
        }
    }
}

fn decimal(thousandths: u128) -> String {
    with_unit(thousandths, 1_000, &["m", "", "k", "M", "G", "T", "P", "E"])
}

fn binary(whole: u128) -> String {
    with_unit(whole, 1_024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

fn with_unit(mut amount: u128, step: u128, units: &[&str]) -> String {
    if amount == 0 {
        return "0".to_owned();
    }
    let mut units = units.iter();
    let mut unit = units.next();
    while amount.is_multiple_of(step) && units.len() > 0 {
        amount /= step;
        unit = units.next();
    }
    format!("{amount}{}", unit.unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API server canonicalises them; `operator/tests/real` asks one.
    #[test]
    fn an_amount_has_one_form() {
        for (written, canonical) in [
            ("0", "0"),
            ("2", "2"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("64Mi", "64Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("100M", "100M"),
            ("1.5", "1500m"),
            ("0.001Ki", "1024m"),
        ] {
            let quantity = Quantity::Text(written.to_owned());
            assert_eq!(
                quantity.canonical().as_deref(),
                Some(canonical),
                "{written}"
            );
        }
        assert_eq!(Quantity::Count(3000).canonical().as_deref(), Some("3k"));
        for wrong in [
            "",
            "m",
            "1.2345",
            "-1",
            "1e3",
            "1Xi",
            "1.2.3",
            "1234567890123",
        ] {
            let quantity = Quantity::Text(wrong.to_owned());
            assert_eq!(quantity.canonical(), None, "{wrong}");
        }
    }
}
