//! Container images without a container engine: a list of files becomes a docker-archive, a tar of a configuration, one layer and a
//! manifest. Same files, same bytes: no time, no user and no order of a folder gets in.

mod archive;
mod libraries;
mod python;

use archive::{append, append_bytes, header, hex, sum};
use libraries::libraries;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType};

/// Neither root nor anybody of the machine: what images without a user of their own run as.
const NOBODY: &str = "65532:65532";

/// What can go wrong while an image is written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file that is to go into it can't be read.
    #[error("image {image}: {path:?} can't be read")]
    Read {
        /// The image's name.
        image: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The archive can't be written.
    #[error("image {image} can't be written")]
    Write {
        /// The image's name.
        image: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What is to be in an image and how it is run. Paths inside are absolute; folders above them are made.
///
/// ```no_run
/// # use tidemill_testbed_cluster::Image;
/// let image = Image::new("localhost/worker:1")
///     .file("/worker", "target/release/tidemill-worker")
///     .entrypoint(["/worker"]);
/// image.write("worker.tar".as_ref()).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    entries: BTreeMap<String, Entry>,
    user: String,
    entrypoint: Vec<String>,
    env: Vec<String>,
    labels: BTreeMap<String, String>,
    workdir: String,
}

#[derive(Clone, Debug)]
enum Entry {
    Folder { mode: u32 },
    File { source: PathBuf },
    Text { text: String },
    Link { target: PathBuf },
    Tree { source: PathBuf },
    Libraries { of: PathBuf },
}

impl Image {
    /// An empty image of this name, with its tag: `localhost/worker:1`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Image {
        Image {
            name: name.into(),
            entries: BTreeMap::new(),
            user: NOBODY.to_owned(),
            entrypoint: Vec::new(),
            env: Vec::new(),
            labels: BTreeMap::new(),
            workdir: "/".to_owned(),
        }
    }

    /// Its name with its tag.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts in a file of this machine; what may be executed here may be there.
    #[must_use]
    pub fn file(self, path: impl Into<String>, source: impl Into<PathBuf>) -> Image {
        let source = source.into();
        self.with(path.into(), Entry::File { source })
    }

    /// Puts in a program of this machine with the shared libraries it is linked to, if any, at their places on this machine. So what was
    /// built for this machine runs in an image without being built again.
    #[must_use]
    pub fn program(self, path: impl Into<String>, source: impl Into<PathBuf>) -> Image {
        let source = source.into();
        self.libraries_of(source.clone()).file(path, source)
    }

    /// Puts in the shared libraries that a program or library of this machine is linked to.
    #[must_use]
    pub fn libraries_of(self, file: impl Into<PathBuf>) -> Image {
        let of = file.into();
        // No path of a file: nothing else has it.
        let name = format!("/ libraries of {}", of.display());
        self.with(name, Entry::Libraries { of })
    }

    /// Puts in a file with this text.
    #[must_use]
    pub fn text(self, path: impl Into<String>, text: impl Into<String>) -> Image {
        let text = text.into();
        self.with(path.into(), Entry::Text { text })
    }

    /// Puts in a symbolic link.
    #[must_use]
    pub fn link(self, path: impl Into<String>, target: impl Into<PathBuf>) -> Image {
        let target = target.into();
        self.with(path.into(), Entry::Link { target })
    }

    /// Puts in a folder of this machine with everything below it: files, folders and symbolic links. Only Python's caches stay out: they
    /// hold times.
    #[must_use]
    pub fn tree(self, path: impl Into<String>, source: impl Into<PathBuf>) -> Image {
        let source = source.into();
        self.with(path.into(), Entry::Tree { source })
    }

    /// Puts in an empty folder with this mode, such as a `/tmp` of mode 0o1777.
    #[must_use]
    pub fn folder(self, path: impl Into<String>, mode: u32) -> Image {
        self.with(path.into(), Entry::Folder { mode })
    }

    fn with(mut self, path: String, entry: Entry) -> Image {
        self.entries
            .insert(path.trim_start_matches('/').to_owned(), entry);
        self
    }

    /// The program to run and its first arguments.
    #[must_use]
    pub fn entrypoint(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Image {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Image {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Image {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Who runs it, as `user` or `user:group`, in numbers so that `runAsNonRoot` can be checked. Default is 65532:65532.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Image {
        self.user = user.into();
        self
    }

    /// The folder it runs in; default is `/`.
    #[must_use]
    pub fn workdir(mut self, path: impl Into<String>) -> Image {
        self.workdir = path.into();
        self
    }

    /// Writes it as an archive that `ctr images import` and `docker load` take.
    ///
    /// # Errors
    /// [`ImageError`]
    pub fn write(&self, archive: &Path) -> Result<(), ImageError> {
        let failed = |source| ImageError::Write {
            image: self.name.clone(),
            source,
        };
        // In a file: a layer with a whole Python in it is large.
        let mut layer = tempfile::tempfile().map_err(failed)?;
        self.write_layer(&layer)?;
        let sum = sum(&mut layer).map_err(failed)?;
        let config = self.config(&sum).to_string();
        let config_name = format!("{}.json", hex(&Sha256::digest(config.as_bytes())));
        let layer_name = format!("{sum}/layer.tar");
        let manifest = json!([{
            "Config": config_name,
            "RepoTags": [self.name],
            "Layers": [layer_name],
        }]);
        let mut write = || -> std::io::Result<()> {
            let mut tar = Builder::new(BufWriter::new(File::create(archive)?));
            append_bytes(&mut tar, &config_name, config.as_bytes())?;
            layer.rewind()?;
            let size = layer.metadata()?.len();
            let mut header = header(EntryType::Regular, 0o644, size);
            tar.append_data(&mut header, &layer_name, &layer)?;
            append_bytes(&mut tar, "manifest.json", manifest.to_string().as_bytes())?;
            tar.into_inner()?.flush()
        };
        write().map_err(failed)
    }

    fn config(&self, layer: &str) -> serde_json::Value {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "User": self.user,
                "Entrypoint": self.entrypoint,
                "Env": self.env,
                "Labels": self.labels,
                "WorkingDir": self.workdir,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        })
    }

    /// By path, so that a folder comes before what is in it.
    fn single_entries(&self) -> Result<BTreeMap<String, Entry>, ImageError> {
        let mut entries = BTreeMap::new();
        for (path, entry) in &self.entries {
            self.expand(path, entry, &mut entries)?;
        }
        let above: Vec<String> = entries
            .keys()
            .flat_map(|path| folders_above(path))
            .collect();
        for folder in above {
            let entry = Entry::Folder { mode: 0o755 };
            entries.entry(folder).or_insert(entry);
        }
        Ok(entries)
    }

    fn write_layer(&self, layer: &File) -> Result<(), ImageError> {
        let entries = self.single_entries()?;
        let mut tar = Builder::new(BufWriter::new(layer));
        for (path, entry) in &entries {
            append(&mut tar, path, entry).map_err(|source| match entry {
                Entry::File { source: path } => self.unread(path, source),
                _ => self.unwritten(source),
            })?;
        }
        let ended = tar.into_inner().and_then(|mut file| file.flush());
        ended.map_err(|source| self.unwritten(source))
    }

    /// Makes single entries of trees and libraries.
    fn expand(
        &self,
        path: &str,
        entry: &Entry,
        into: &mut BTreeMap<String, Entry>,
    ) -> Result<(), ImageError> {
        let source = match entry {
            Entry::Tree { source } => source,
            Entry::Libraries { of } => {
                for source in libraries(of).map_err(|error| self.unread(of, error))? {
                    let path = source.to_string_lossy();
                    let path = path.trim_start_matches('/').to_owned();
                    into.insert(path, Entry::File { source });
                }
                return Ok(());
            }
            Entry::Folder { .. } | Entry::File { .. } | Entry::Text { .. } | Entry::Link { .. } => {
                into.insert(path.to_owned(), entry.clone());
                return Ok(());
            }
        };
        let unread = |error| self.unread(source, error);
        let kind = std::fs::symlink_metadata(source).map_err(unread)?;
        if kind.is_symlink() {
            let target = std::fs::read_link(source).map_err(unread)?;
            into.insert(path.to_owned(), Entry::Link { target });
        } else if kind.is_file() {
            let source = source.clone();
            into.insert(path.to_owned(), Entry::File { source });
        } else if kind.is_dir() {
            into.insert(path.to_owned(), Entry::Folder { mode: 0o755 });
            for child in std::fs::read_dir(source).map_err(unread)? {
                let child = child.map_err(unread)?;
                let name = child.file_name().into_string().map_err(|name| {
                    unread(std::io::Error::other(format!("{name:?} isn't UTF-8")))
                })?;
                if name == "__pycache__" {
                    continue;
                }
                let source = child.path();
                self.expand(&format!("{path}/{name}"), &Entry::Tree { source }, into)?;
            }
        }
        // Sockets and the like are of a running machine.
        Ok(())
    }

    fn unread(&self, path: &Path, source: std::io::Error) -> ImageError {
        ImageError::Read {
            image: self.name.clone(),
            path: path.to_owned(),
            source,
        }
    }

    fn unwritten(&self, source: std::io::Error) -> ImageError {
        ImageError::Write {
            image: self.name.clone(),
            source,
        }
    }
}

fn folders_above(path: &str) -> Vec<String> {
    let ends = path.match_indices('/').map(|(end, _)| end);
    ends.filter_map(|end| path.get(..end))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    /// A folder with a program, a text and a link, made in this order.
    fn folder(order: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("lib")).unwrap();
        for name in order {
            std::fs::write(path(name), *name).unwrap();
        }
        std::fs::set_permissions(path("run"), PermissionsExt::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("run", path("again")).unwrap();
        folder
    }

    fn image(folder: &Path) -> Image {
        Image::new("localhost/test:1")
            .tree("/opt/app", folder)
            .file("/bin/run", folder.join("run"))
            .text("/etc/name", "test")
            .folder("/tmp", 0o1777)
            .link("/run", "/bin/run")
            .entrypoint(["/bin/run"])
            .label("kind", "test")
    }

    fn paths(image: &Image) -> Vec<String> {
        image.single_entries().unwrap().into_keys().collect()
    }

    fn bytes(image: &Image) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        image.write(file.path()).unwrap();
        std::fs::read(file.path()).unwrap()
    }

    fn parts(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive);
        let entries = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn the_same_files_make_the_same_bytes() {
        let (one, other) = (
            folder(&["run", "lib/a", "lib/b"]),
            folder(&["lib/b", "lib/a", "run"]),
        );
        assert_eq!(bytes(&image(one.path())), bytes(&image(other.path())));
        std::fs::write(other.path().join("lib/a"), "else").unwrap();
        assert_ne!(bytes(&image(one.path())), bytes(&image(other.path())));
    }

    #[test]
    fn each_file_is_there_after_its_folder_with_its_mode() {
        let source = folder(&["run", "lib/a"]);
        let archive = parts(&bytes(&image(source.path())));
        let layer = archive.iter().find(|(name, _)| name.ends_with("layer.tar"));
        let mut tar = tar::Archive::new(layer.unwrap().1.as_slice());
        let seen: Vec<String> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let (path, mode) = (entry.path().unwrap(), entry.header().mode().unwrap());
                let link = entry.link_name().unwrap();
                let link = link.map(|target| format!(" -> {}", target.display()));
                format!("{mode:o} {}{}", path.display(), link.unwrap_or_default())
            })
            .collect();
        let expected = [
            "755 bin/",
            "755 bin/run",
            "755 etc/",
            "644 etc/name",
            "755 opt/",
            "755 opt/app/",
            "777 opt/app/again -> run",
            "755 opt/app/lib/",
            "644 opt/app/lib/a",
            "755 opt/app/run",
            "777 run -> /bin/run",
            "1777 tmp/",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_manifest_names_the_configuration_and_that_the_layer_by_its_sum() {
        let source = folder(&["run"]);
        let archive = parts(&bytes(&image(source.path())));
        let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
        let manifest = json(&archive["manifest.json"]);
        assert_eq!(manifest[0]["RepoTags"][0], "localhost/test:1");
        let config = &archive[manifest[0]["Config"].as_str().unwrap()];
        let name = format!("{}.json", hex(&Sha256::digest(config)));
        assert_eq!(manifest[0]["Config"], name);
        let layer = &archive[manifest[0]["Layers"][0].as_str().unwrap()];
        let config = json(config);
        let sum = format!("sha256:{}", hex(&Sha256::digest(layer)));
        assert_eq!(config["rootfs"]["diff_ids"][0], sum);
        assert_eq!(config["config"]["User"], NOBODY);
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/run"]));
        assert_eq!(config["config"]["Labels"], json!({"kind": "test"}));
    }

    #[test]
    fn a_program_brings_its_libraries() {
        let own = std::env::current_exe().unwrap();
        let image = Image::new("localhost/test:1").program("/run", &own);
        let all = paths(&image);
        let has = |part: &str| all.iter().any(|path| path.contains(part));
        assert!(
            has("libc.so") && has("lib64/ld-") || has("lib/ld-"),
            "{all:?}"
        );
        assert!(has("run") && !has("libraries"), "{all:?}");
        // Without any it is itself alone.
        let source = folder(&["run"]);
        let image = Image::new("localhost/test:1").program("/run", source.path().join("run"));
        assert_eq!(paths(&image), ["run"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let empty = || Image::new("localhost/test:1");
        for image in [
            empty().file("/run", "/no/such/file"),
            empty().program("/run", "/no/such/file"),
            empty().tree("/all", "/no/such/file"),
        ] {
            let error = image.write("/dev/null".as_ref()).unwrap_err().to_string();
            assert!(error.contains("/no/such/file"), "{error}");
        }
    }
}
