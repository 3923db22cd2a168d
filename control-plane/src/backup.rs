//! Everything lasting in one file, and back.
//!
//! The file is a tar archive: `bedside.json` (what it is), `database`, `objects/…` where files of
//! consultations lie on this disk, and `end.json`, whose absence shows a copy that was cut off. The
//! database is copied first: an object that comes later than its row's copy is merely not referred to,
//! while a row without its object would be a loss. Nothing is ever overwritten, neither by a backup nor by
//! putting one back. The file holds everything that patients wrote: only its owner may read it.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, Entry, EntryType, Header};

use crate::Private;
use crate::store::{self, Whole};

const FORMAT: u32 = 1;
const MANIFEST: &str = "bedside.json";
const DATABASE: &str = "database";
const OBJECTS: &str = "objects";
const END: &str = "end.json";
/// The longest of our own two small files.
const NOTE_BYTES: u64 = 64 * 1024;

/// What lasts, and where it is.
#[derive(Clone, Debug)]
pub struct Lasting {
    /// `sqlite:PATH` or `postgres://…`.
    pub database_url: Private<String>,
    /// The folder of the files of consultations, if they are on this disk.
    pub objects: Option<PathBuf>,
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Version of the database's schema.
    pub schema: i64,
    /// How many files of consultations.
    pub objects: u64,
    /// When it was made.
    pub made_at: DateTime<Utc>,
}

/// Why there is no backup, or it cannot be put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database's address is not understood.
    #[error("the database URL must be sqlite:PATH or postgres://…")]
    Url,
    /// Something is there already.
    #[error("{0} is there already: nothing is overwritten")]
    Exists(String),
    /// A newer program has written it.
    #[error("the schema (version {found}) is newer than this program's ({known}): update it first")]
    Newer {
        /// Its schema.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// A backup of the other kind of database.
    #[error("the backup is of a {backup} database, and the settings name a {configured} one")]
    Kind {
        /// What it was made of.
        backup: String,
        /// What is configured.
        configured: &'static str,
    },
    /// Files of consultations, and no folder for them.
    #[error("the backup holds files of consultations, and the settings name no folder for them")]
    NoFolder,
    /// It is no backup, or not all of one.
    #[error("the backup cannot be used: {0}")]
    Damaged(&'static str),
    /// A program of PostgreSQL's is missing.
    #[error("{0} is not installed; it comes with Debian's package postgresql-client")]
    NoTool(&'static str),
    /// A program of PostgreSQL's failed.
    #[error("{0} failed: {1}")]
    Tool(&'static str, String),
    /// The database does not answer.
    #[error("the database could not be read: {0}")]
    Database(#[from] sqlx::Error),
    /// A file cannot be read or written.
    #[error("{path}: {1}", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// What the archive is, in front.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    program: String,
    database: String,
    schema: i64,
    database_sha256: String,
    made_at: DateTime<Utc>,
}

/// What the archive held, at its end.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    objects: u64,
    objects_sha256: String,
}

/// Copies everything to `file`. The server may be running.
pub async fn save(lasting: &Lasting, file: &Path) -> Result<Summary, BackupError> {
    if file.exists() {
        return Err(BackupError::Exists(file.display().to_string()));
    }
    let whole = Whole::new(lasting.database_url.reveal())?;
    let made_at = store::now();
    let folder = folder_of(file);
    // Beside the result, which may be the only disk with room for it.
    let work =
        in_folder(&folder, tempfile::Builder::new().prefix(".bedside-").tempdir_in(&folder))?;
    let copy = work.path().join(DATABASE);
    let schema = check_schema(whole.schema().await?, &whole)?;
    whole.copy(&copy).await?;
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        database: whole.kind().to_owned(),
        schema,
        database_sha256: hash_of(&copy)?,
        made_at,
    };
    let (file, objects) = (file.to_owned(), lasting.objects.clone());
    let objects = blocking(move || {
        let mut out = in_folder(&folder, tempfile::NamedTempFile::new_in(&folder))?;
        let end = write(BufWriter::new(out.as_file_mut()), &manifest, &copy, objects.as_deref())
            .map_err(|error| BackupError::Io(file.clone(), error))?;
        out.as_file().sync_all().map_err(|error| BackupError::Io(file.clone(), error))?;
        match out.persist_noclobber(&file) {
            Ok(_) => Ok(end.objects),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(BackupError::Exists(file.display().to_string()))
            }
            Err(error) => Err(BackupError::Io(file, error.error)),
        }
    })
    .await?;
    drop(work);
    Ok(Summary { schema, objects, made_at })
}

/// Puts everything of `file` back, where nothing is yet.
pub async fn restore(lasting: &Lasting, file: &Path) -> Result<Summary, BackupError> {
    let whole = Whole::new(lasting.database_url.reveal())?;
    if !whole.is_free().await? {
        let place = whole
            .path()
            .map_or_else(|| "the database".to_owned(), |path| path.display().to_string());
        return Err(BackupError::Exists(place));
    }
    let objects = lasting.objects.clone();
    if let Some(folder) = objects.as_deref().filter(|folder| !is_empty(folder)) {
        return Err(BackupError::Exists(folder.display().to_string()));
    }
    let (archive, beside) = (file.to_owned(), whole.path());
    let unpacked =
        blocking(move || unpack(&archive, beside.as_deref(), objects.as_deref())).await?;
    let Unpacked { manifest, database, objects, end } = unpacked;
    if manifest.database != whole.kind() {
        return Err(BackupError::Kind { backup: manifest.database, configured: whole.kind() });
    }
    check_schema(manifest.schema, &whole)?;
    if let Whole::Sqlite(_) = whole {
        let found = store::check_sqlite(&database).await?;
        if found != manifest.schema {
            return Err(BackupError::Damaged("its database has another schema than it says"));
        }
    }
    whole.put_back(database).await?;
    if let (Some(from), Some(to)) = (objects, &lasting.objects) {
        // An empty folder gives way to another; a full one was refused above.
        let from = from.keep();
        fs::rename(&from, to).map_err(|error| BackupError::Io(to.clone(), error))?;
    }
    Ok(Summary { schema: manifest.schema, objects: end.objects, made_at: manifest.made_at })
}

fn check_schema(found: i64, whole: &Whole) -> Result<i64, BackupError> {
    let known = whole.known_schema();
    if found > known { Err(BackupError::Newer { found, known }) } else { Ok(found) }
}

// ---- Writing ----

fn write(
    out: impl Write,
    manifest: &Manifest,
    database: &Path,
    objects: Option<&Path>,
) -> io::Result<End> {
    let mut tar = Builder::new(out);
    tar.follow_symlinks(false);
    append_note(&mut tar, MANIFEST, manifest)?;
    append_file(&mut tar, DATABASE, database, &mut digest::Context::new(&digest::SHA256))?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut count = 0;
    if let Some(folder) = objects.filter(|folder| folder.is_dir()) {
        for (name, path) in files_of(folder)? {
            match append_file(&mut tar, &format!("{OBJECTS}/{name}"), &path, &mut hash) {
                Ok(()) => count += 1,
                // Retention has taken it away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    let end = End { objects: count, objects_sha256: hex(hash.finish().as_ref()) };
    append_note(&mut tar, END, &end)?;
    tar.into_inner()?.flush()?;
    Ok(end)
}

fn append_note(tar: &mut Builder<impl Write>, name: &str, note: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(note)?;
    tar.append_data(&mut header(text.len() as u64), name, text.as_slice())
}

fn append_file(
    tar: &mut Builder<impl Write>,
    name: &str,
    path: &Path,
    hash: &mut digest::Context,
) -> io::Result<()> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    hash.update(format!("{name}\n{length}\n").as_bytes());
    // A file that grows is cut at the length that was announced.
    let from = Hashed { from: BufReader::new(file).take(length), hash };
    tar.append_data(&mut header(length), name, from)
}

fn header(length: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o600);
    header.set_entry_type(EntryType::Regular);
    header
}

/// Every file of a folder with its name in it, in order. Links are nobody's.
fn files_of(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push((format!("{prefix}{name}/"), entry.path()));
            } else if kind.is_file() {
                found.push((format!("{prefix}{name}"), entry.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

// ---- Reading ----

struct Unpacked {
    manifest: Manifest,
    database: tempfile::TempPath,
    objects: Option<tempfile::TempDir>,
    end: End,
}

/// Unpacks beside where things go, so that putting them there is a renaming.
fn unpack(
    file: &Path,
    beside: Option<&Path>,
    objects: Option<&Path>,
) -> Result<Unpacked, BackupError> {
    let bad = |error| match error {
        Trouble::Damaged(what) => BackupError::Damaged(what),
        Trouble::NoFolder => BackupError::NoFolder,
        Trouble::Io(error) => BackupError::Io(file.to_owned(), error),
    };
    let open = File::open(file).map_err(|error| BackupError::Io(file.to_owned(), error))?;
    let home = beside.map_or_else(std::env::temp_dir, folder_of);
    let mut database = in_folder(&home, tempfile::NamedTempFile::new_in(&home))?;
    let mut folder = None;
    if let Some(objects) = objects {
        let home = folder_of(objects);
        in_folder(&home, fs::create_dir_all(&home))?;
        folder = Some(in_folder(&home, tempfile::tempdir_in(&home))?);
    }
    let path = folder.as_ref().map(tempfile::TempDir::path);
    let (manifest, end) = read(BufReader::new(open), database.as_file_mut(), path).map_err(bad)?;
    in_folder(&home, database.as_file().sync_all())?;
    Ok(Unpacked { manifest, database: database.into_temp_path(), objects: folder, end })
}

enum Trouble {
    Damaged(&'static str),
    NoFolder,
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // What the archive's reader says of bytes that are none.
            io::ErrorKind::Other | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                Self::Damaged("it is cut off or no archive of ours")
            }
            _ => Self::Io(error),
        }
    }
}

fn read(
    from: impl Read,
    database: &mut File,
    objects: Option<&Path>,
) -> Result<(Manifest, End), Trouble> {
    let mut tar = Archive::new(from);
    let mut entries = tar.entries()?;
    let mut next = |what| entries.next().ok_or(Trouble::Damaged(what))?.map_err(Trouble::from);
    let manifest: Manifest = read_note(next("it is empty")?, MANIFEST)?;
    if manifest.format != FORMAT {
        return Err(Trouble::Damaged("its format is another program's"));
    }
    let mut entry = next("it has no database")?;
    if name_of(&entry)? != DATABASE {
        return Err(Trouble::Damaged("it has no database"));
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    io::copy(&mut Hashed { from: &mut entry, hash: &mut hash }, database)?;
    if hex(hash.finish().as_ref()) != manifest.database_sha256 {
        return Err(Trouble::Damaged("its database is not what was saved"));
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut count = 0;
    loop {
        let mut entry = next("it is cut off")?;
        let name = name_of(&entry)?;
        if name == END {
            let end: End = read_note(entry, END)?;
            let found = End { objects: count, objects_sha256: hex(hash.finish().as_ref()) };
            if end != found {
                return Err(Trouble::Damaged("its files are not what was saved"));
            }
            return Ok((manifest, end));
        }
        let path = object_path(&name).ok_or(Trouble::Damaged("it holds a file of nobody's"))?;
        let path = objects.ok_or(Trouble::NoFolder)?.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        hash.update(format!("{name}\n{}\n", entry.size()).as_bytes());
        let mut out = File::create_new(path)?;
        io::copy(&mut Hashed { from: &mut entry, hash: &mut hash }, &mut out)?;
        out.sync_all()?;
        count += 1;
    }
}

fn read_note<T: for<'de> Deserialize<'de>>(
    entry: Entry<'_, impl Read>,
    name: &str,
) -> Result<T, Trouble> {
    if name_of(&entry)? != name {
        return Err(Trouble::Damaged("it is no backup of ours"));
    }
    let mut text = Vec::new();
    entry.take(NOTE_BYTES).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|_| Trouble::Damaged("it is no backup of ours"))
}

/// The name of a plain file; links and devices have no business here.
fn name_of(entry: &Entry<'_, impl Read>) -> Result<String, Trouble> {
    let name = entry.path().ok().and_then(|path| path.to_str().map(str::to_owned));
    match name {
        Some(name) if entry.header().entry_type() == EntryType::Regular => Ok(name),
        _ => Err(Trouble::Damaged("it holds something that is no plain file")),
    }
}

/// Where an object goes inside its folder, and never outside.
fn object_path(name: &str) -> Option<PathBuf> {
    let path = Path::new(name.strip_prefix(OBJECTS)?.strip_prefix('/')?);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !path.as_os_str().is_empty()).then(|| path.to_owned())
}

// ---- Small things ----

/// Reads and hashes at once.
struct Hashed<'a, R> {
    from: R,
    hash: &'a mut digest::Context,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.hash.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

fn hash_of(path: &Path) -> Result<String, BackupError> {
    let failed = |error| BackupError::Io(path.to_owned(), error);
    let mut hash = digest::Context::new(&digest::SHA256);
    let from = File::open(path).map_err(failed)?;
    io::copy(&mut Hashed { from, hash: &mut hash }, &mut io::sink()).map_err(failed)?;
    Ok(hex(hash.finish().as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder that a path is in.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

fn in_folder<T>(folder: &Path, result: io::Result<T>) -> Result<T, BackupError> {
    result.map_err(|error| BackupError::Io(folder.to_owned(), error))
}

/// Files are read and written where waiting harms nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(BackupError::Io(PathBuf::new(), io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests;
