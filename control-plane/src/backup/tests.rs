//! Copies of both databases while they are in use, put back and asked again; and copies that are none.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::store::Page;
use crate::testing::{Database, World, on_both_databases, path, service};

on_both_databases!(
    a_server_that_runs_is_copied_and_comes_back,
    nothing_is_overwritten,
    newer_schemas_are_refused,
);

fn lasting(url: &str, objects: Option<PathBuf>) -> Lasting {
    Lasting { database_url: Private::new(url.to_owned()), objects }
}

/// An empty database of the same kind as `like`.
async fn another(like: &str) -> Database {
    if like.starts_with("sqlite:") { Database::sqlite() } else { Database::postgres().await }
}

/// A folder with two objects.
fn objects(home: &TempDir) -> PathBuf {
    let folder = home.path().join("objects");
    fs::create_dir_all(folder.join("demo/session")).unwrap();
    fs::write(folder.join("demo/session/picture"), b"a picture").unwrap();
    fs::write(folder.join("empty"), b"").unwrap();
    folder
}

async fn a_server_that_runs_is_copied_and_comes_back(database: Database) {
    let home = tempfile::tempdir().unwrap();
    let from = lasting(&database.url, Some(objects(&home)));
    let world = World::new(database).await;
    let first = world.session().await;
    let before = world.get(&path(first, ""), &service()).await;
    assert_eq!(before.0, axum::http::StatusCode::OK);

    let file = home.path().join("backup.tar");
    // Others write meanwhile.
    let writing = async {
        for _ in 0..20 {
            world.session().await;
        }
    };
    let (saved, ()) = tokio::join!(save(&from, &file), writing);
    let saved = saved.unwrap();
    assert_eq!(saved.objects, 2);
    world.session().await;

    let target = another(from.database_url.reveal()).await;
    let to = lasting(&target.url, Some(home.path().join("again/objects")));
    assert_eq!(restore(&to, &file).await.unwrap(), saved);
    let picture = home.path().join("again/objects/demo/session/picture");
    assert_eq!(fs::read(picture).unwrap(), b"a picture");
    assert_eq!(fs::read(home.path().join("again/objects/empty")).unwrap(), b"");
    let again = World::new(target).await;
    assert_eq!(again.get(&path(first, ""), &service()).await, before);
    let page = Page { limit: 100, ..Page::default() };
    let found = again.plane.control.db.sessions("demo", &page).await.unwrap().len();
    assert!((1..=21).contains(&found), "{found}");
    // What came back is a database like any other.
    again.session().await;
}

async fn nothing_is_overwritten(database: Database) {
    let home = tempfile::tempdir().unwrap();
    let from = lasting(&database.url, None);
    let _world = World::new(database).await;
    let file = home.path().join("backup.tar");
    fs::write(&file, b"precious").unwrap();
    let error = save(&from, &file).await.unwrap_err();
    assert!(matches!(error, BackupError::Exists(_)), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    fs::remove_file(&file).unwrap();
    save(&from, &file).await.unwrap();
    // Its owner's alone, and nothing is left beside it.
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);

    let error = restore(&from, &file).await.unwrap_err();
    assert!(matches!(error, BackupError::Exists(_)), "{error}");
    let target = another(from.database_url.reveal()).await;
    let full = lasting(&target.url, Some(objects(&home)));
    let error = restore(&full, &file).await.unwrap_err();
    assert!(error.to_string().contains("objects"), "{error}");
    assert!(Whole::new(&target.url).unwrap().is_free().await.unwrap());
}

async fn newer_schemas_are_refused(database: Database) {
    let home = tempfile::tempdir().unwrap();
    let from = lasting(&database.url, None);
    let world = World::new(database).await;
    let file = home.path().join("backup.tar");
    save(&from, &file).await.unwrap();
    world.plane.control.db.pretend_newer_schema().await;
    let error = save(&from, &home.path().join("newer.tar")).await.unwrap_err();
    assert!(matches!(error, BackupError::Newer { found: 9999, .. }), "{error}");
    assert!(!home.path().join("newer.tar").exists());

    // A backup that says it is of a newer one.
    let newer = home.path().join("says-newer.tar");
    let work = home.path().join("database");
    fs::write(&work, b"of a newer program").unwrap();
    let manifest = Manifest {
        format: FORMAT,
        program: "9".to_owned(),
        database: Whole::new(from.database_url.reveal()).unwrap().kind().to_owned(),
        schema: 9999,
        database_sha256: hash_of(&work).unwrap(),
        made_at: store::now(),
    };
    write(File::create(&newer).unwrap(), &manifest, &work, None).unwrap();
    let target = another(from.database_url.reveal()).await;
    let error = restore(&lasting(&target.url, None), &newer).await.unwrap_err();
    assert!(matches!(error, BackupError::Newer { found: 9999, .. }), "{error}");
}

/// A backup of a SQLite with two objects, as bytes.
async fn a_backup(home: &TempDir) -> Vec<u8> {
    let database = Database::sqlite();
    let from = lasting(&database.url, Some(objects(home)));
    let _world = World::new(database).await;
    let file = home.path().join("whole.tar");
    save(&from, &file).await.unwrap();
    fs::read(file).unwrap()
}

/// What putting these bytes back says; nothing may be left behind when it fails.
async fn put_back(bytes: &[u8], objects: bool) -> Result<Summary, BackupError> {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("backup.tar");
    fs::write(&file, bytes).unwrap();
    let url = format!("sqlite:{}", home.path().join("bedside.db").display());
    let to = lasting(&url, objects.then(|| home.path().join("objects")));
    let result = restore(&to, &file).await;
    if result.is_err() {
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "something is left behind");
    }
    result
}

#[tokio::test]
async fn damaged_backups_are_refused_whole() {
    let home = tempfile::tempdir().unwrap();
    let whole = a_backup(&home).await;
    put_back(&whole, true).await.unwrap();
    assert!(matches!(put_back(&whole, false).await.unwrap_err(), BackupError::NoFolder));
    let content = whole.len() - 1024;
    for length in [0, 1, 511, 512, 600, 1024, 4096, content / 2, content - 2000, content - 600] {
        let error = put_back(&whole[..length], true).await.unwrap_err();
        assert!(matches!(error, BackupError::Damaged(_)), "{length}: {error}");
    }
    let database = whole.windows(15).position(|part| part == b"SQLite format 3").unwrap();
    let picture = whole.windows(9).position(|part| part == b"a picture").unwrap();
    for at in [0, 5, 600, database, database + 5000, picture] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x20;
        assert!(put_back(&flipped, true).await.is_err(), "{at}");
    }
    for junk in [vec![0; 4096], vec![0xff; 4096], b"not an archive".repeat(1000)] {
        let error = put_back(&junk, true).await.unwrap_err();
        assert!(matches!(error, BackupError::Damaged(_)), "{error}");
    }
}

#[tokio::test]
async fn names_cannot_climb_out() {
    for (name, good) in [
        ("objects/a", true),
        ("objects/a/b.png", true),
        ("objects/", false),
        ("objects", false),
        ("objects/../a", false),
        ("objects/a/../../b", false),
        ("objects//etc/passwd", false),
        ("/etc/passwd", false),
        ("../a", false),
        ("other", false),
    ] {
        assert_eq!(object_path(name).is_some(), good, "{name}");
    }
    // A link in an archive, through which a later name could be written.
    let home = tempfile::tempdir().unwrap();
    let whole = a_backup(&home).await;
    let mut tar = Builder::new(Vec::new());
    for entry in Archive::new(whole.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = name_of(&entry).ok().unwrap();
        if name == END {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, "objects/out", "/tmp").unwrap();
        }
        let mut header = header(entry.size());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    let error = put_back(&tar.into_inner().unwrap(), true).await.unwrap_err();
    assert!(error.to_string().contains("no plain file"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("backup.tar");
    let url = format!("sqlite:{}", home.path().join("bedside.db").display());
    for url in [url.as_str(), "postgres://nobody@127.0.0.1:9/x"] {
        let error = save(&lasting(url, None), &file).await.unwrap_err();
        assert!(matches!(error, BackupError::Database(_)), "{error}");
    }
    assert!(matches!(save(&lasting("mysql:x", None), &file).await.unwrap_err(), BackupError::Url));
    let error = restore(&lasting(&url, None), &file).await.unwrap_err();
    assert!(matches!(error, BackupError::Io(..)), "{error}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}
