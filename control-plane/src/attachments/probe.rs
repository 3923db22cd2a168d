//! Tries the store of files: writes something, reads it, removes it. For `bedside doctor`.

use std::path::Path;

use axum::body::Bytes;
use uuid::Uuid;

use super::files::{Files, Objects};

const CONTENT: &[u8] = b"bedside doctor was here";

/// How the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectsFacts {
    /// Something was written, read and removed.
    Works,
    /// The folder is not there yet; the server makes it when the first file comes.
    NotMade,
}

/// Tries the store; or why it does not work.
pub async fn objects(objects: &Objects) -> Result<ObjectsFacts, String> {
    match objects {
        // Not by the store itself: it would leave folders behind that belong to whoever looks.
        Objects::Folder(folder) => try_folder(folder),
        Objects::S3(_) => {
            let files = Files::new(objects).map_err(|error| error.to_string())?;
            let id = Uuid::now_v7();
            let said = |error: super::files::FileError| error.to_string();
            files.put(id, Bytes::from_static(CONTENT)).await.map_err(said)?;
            let (body, _) = files.get(id).await.map_err(said)?;
            let read = axum::body::to_bytes(body, CONTENT.len()).await;
            files.remove(id).await.map_err(said)?;
            match read {
                Ok(read) if read == CONTENT => Ok(ObjectsFacts::Works),
                Ok(_) | Err(_) => Err("it gives back something else than was written".to_owned()),
            }
        }
    }
}

fn try_folder(folder: &Path) -> Result<ObjectsFacts, String> {
    if !folder.exists() {
        return Ok(ObjectsFacts::NotMade);
    }
    let file = folder.join(format!(".doctor-{}", Uuid::now_v7().simple()));
    let said = |error: std::io::Error| error.to_string();
    std::fs::write(&file, CONTENT).map_err(said)?;
    let read = std::fs::read(&file);
    std::fs::remove_file(&file).map_err(said)?;
    match read {
        Ok(read) if read == CONTENT => Ok(ObjectsFacts::Works),
        Ok(_) => Err("it gives back something else than was written".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_tried_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let tried = async |path: &Path| objects(&Objects::Folder(path.to_owned())).await;
        assert_eq!(tried(dir.path()).await, Ok(ObjectsFacts::Works));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let later = dir.path().join("later");
        assert_eq!(tried(&later).await, Ok(ObjectsFacts::NotMade));
        assert!(!later.exists());
        std::fs::write(&later, "a file").unwrap();
        assert!(tried(&later).await.is_err());
    }
}
