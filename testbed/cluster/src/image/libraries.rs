//! The shared libraries of a program.

use std::path::{Path, PathBuf};

/// What the machine's loader would load along with a file, and the loader itself.
pub(super) fn libraries(of: &Path) -> std::io::Result<Vec<PathBuf>> {
    // It says so of a static program by failing; of no file, by words alone.
    std::fs::metadata(of)?;
    let output = std::process::Command::new("ldd").arg(of).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found = Vec::new();
    for line in text.lines() {
        if line.contains("not found") {
            return Err(std::io::Error::other(line.trim().to_owned()));
        }
        // "libm.so.6 => /lib/libm.so.6 (0x…)" or "/lib64/ld-linux-x86-64.so.2 (0x…)"
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        if line.contains("(0x") {
            found.extend(path.map(PathBuf::from));
        }
    }
    Ok(found)
}
