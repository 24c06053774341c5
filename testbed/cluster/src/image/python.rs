//! The machine's Python, with the packages it finds, in an image.

use super::{Image, ImageError};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What a Python says of itself. An extension (`lib-dynload`) has libraries of its own.
const ASK: &str = "
import json, os, sys, sysconfig
library = sysconfig.get_path('stdlib')
own = (library, os.path.join(library, 'lib-dynload'))
print(json.dumps({
    'program': os.path.realpath(sys.executable),
    'library': library,
    'packages': [path for path in sys.path if os.path.isdir(path) and path not in own],
}))";
/// Of the standard library: not what only people at a screen and Python's own makers need.
const LEFT_OUT: [&str; 10] = [
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tkinter",
    "turtledemo",
];

#[derive(Deserialize)]
struct Python {
    program: PathBuf,
    library: PathBuf,
    packages: Vec<PathBuf>,
}

impl Image {
    /// Puts in a Python of this machine as `/usr/bin/python3`, with its standard library and the packages it finds. `python` may be a
    /// virtual environment's.
    ///
    /// # Errors
    /// If it doesn't run, or its folders can't be read.
    pub fn python(self, python: &Path) -> Result<Image, ImageError> {
        let name = self.name.clone();
        self.with_python(python).map_err(|source| ImageError::Read {
            image: name,
            path: python.to_owned(),
            source,
        })
    }

    fn with_python(self, python: &Path) -> std::io::Result<Image> {
        let output = std::process::Command::new(python)
            .args(["-c", ASK])
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(std::io::Error::other(said));
        }
        let found: Python = serde_json::from_slice(&output.stdout)?;
        // At their own places, where the program looks for them.
        let place = |path: &Path| path.to_string_lossy().into_owned();
        let mut image = self
            .program(place(&found.program), &found.program)
            .link("/usr/bin/python3", &found.program)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1");
        for part in std::fs::read_dir(&found.library)? {
            let part = part?.path();
            let name = part.file_name().unwrap_or_default().to_string_lossy();
            if !LEFT_OUT.contains(&&*name) && !name.starts_with("config-") {
                image = image.tree(place(&part), &part);
            }
        }
        for extension in std::fs::read_dir(found.library.join("lib-dynload"))? {
            let extension = extension?.path();
            // Without a screen its libraries are often missing.
            let name = extension.file_name().unwrap_or_default();
            if !name.to_string_lossy().starts_with("_tkinter") {
                image = image.libraries_of(extension);
            }
        }
        let mut places = Vec::new();
        for (number, packages) in found.packages.iter().enumerate() {
            let place = format!("/packages/{number}");
            image = image.tree(&place, packages);
            for extension in extensions(packages)? {
                image = image.libraries_of(extension);
            }
            places.push(place);
        }
        Ok(image.env("PYTHONPATH", &places.join(":")))
    }
}

/// Shared libraries in a folder and below.
fn extensions(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "so") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
