//! What `kubectl get` shows of the example, against what the guide says that it shows.

use tidemill_testbed::binaries::workspace_root;

/// Lines of a table as it is printed by `kubectl get`.
fn cells(table: &str) -> Vec<Vec<String>> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    // Columns are at least three spaces apart; a name of one has a single space.
    let row = |line: &str| {
        let cells = line.split("   ").map(str::trim);
        cells
            .filter(|cell| !cell.is_empty())
            .map(comparable)
            .collect()
    };
    lines.map(row).collect()
}

/// A cell without what differs from run to run: how much there is of something that there is, how old it is.
fn comparable(cell: &str) -> String {
    let is_amount = !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
    let is_age = cell.ends_with(['s', 'm', 'h', 'd'])
        && cell
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"smhd".contains(&byte));
    match cell.split_once('@') {
        Some((stream, position)) => format!("{stream}@{}", comparable(position)),
        None if is_age => "<age>".to_owned(),
        None if is_amount && cell != "0" => "<amount>".to_owned(),
        None => cell.to_owned(),
    }
}

/// The demo's output ends with the table that the guide shows.
pub(crate) fn is_as_the_guide_says(demo: &str) {
    let (_, printed) = demo.split_once("$ kubectl get ").unwrap();
    let (_, printed) = printed.split_once('\n').unwrap();
    let printed = printed.split("cluster-demo: ").next().unwrap();
    let guide = std::fs::read_to_string(workspace_root().join("docs/guide/kubernetes.md")).unwrap();
    let (_, said) = guide.split_once("```text\nNAME ").unwrap();
    let said = format!("NAME {}", said.split("```").next().unwrap());
    assert_eq!(
        cells(printed),
        cells(&said),
        "printed:\n{printed}\nin the guide:\n{said}"
    );
}
