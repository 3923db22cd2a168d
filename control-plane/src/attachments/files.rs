//! Where files lie: a folder, or a bucket of an S3 service. Under ids, never under names.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use uuid::Uuid;

use crate::Private;

/// How long one request to the store may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it is tried altogether.
const RETRY_TIMEOUT: Duration = Duration::from_secs(25);

/// Where files and pictures are kept.
#[derive(Clone, Debug)]
pub enum Objects {
    /// A folder; made if it is not there.
    Folder(PathBuf),
    /// A bucket.
    S3(Box<S3>),
}

/// A bucket of a service that speaks S3.
#[derive(Clone, Debug, Default)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// The service's address, for others than Amazon's; empty = Amazon's.
    pub endpoint: String,
    /// Key id; empty = as the machine's role says.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: Private<String>,
    /// What every object's key begins with.
    pub prefix: String,
    /// The key that the service encrypts with (SSE-KMS); empty = as the bucket says.
    pub kms_key_id: String,
}

impl Default for Objects {
    fn default() -> Self {
        Self::Folder(PathBuf::from("bedside-objects"))
    }
}

/// What a store answers when it does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    #[error("there is no such file")]
    NotThere,
    #[error("the store of files does not answer")]
    Away,
}

/// The store of files could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the store of files cannot be opened: {0}")]
pub struct OpenFilesError(String);

/// The store, open from its first use on.
#[derive(Debug)]
pub(crate) struct Files {
    objects: Objects,
    open: Mutex<Option<Arc<dyn ObjectStore>>>,
}

impl Files {
    pub(crate) fn new(objects: &Objects) -> Result<Self, OpenFilesError> {
        // A folder is made when the first file comes; a wrong bucket should be known at once.
        let open = match objects {
            Objects::Folder(_) => None,
            Objects::S3(s3) => Some(s3.open()?),
        };
        Ok(Self { objects: objects.clone(), open: Mutex::new(open) })
    }

    fn store(&self) -> Result<Arc<dyn ObjectStore>, FileError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*open {
            return Ok(Arc::clone(store));
        }
        let opened = match &self.objects {
            Objects::Folder(folder) => open_folder(folder),
            Objects::S3(s3) => s3.open(),
        };
        let store = opened.map_err(|error| {
            tracing::error!(%error, "files cannot be stored");
            FileError::Away
        })?;
        *open = Some(Arc::clone(&store));
        Ok(store)
    }

    fn path(&self, id: Uuid) -> Path {
        let id = id.simple().to_string();
        // Folders of a thousand files each, not one of a million.
        let shelf = id.get(id.len() - 3..).unwrap_or_default();
        let prefix = match &self.objects {
            Objects::Folder(_) => "",
            Objects::S3(s3) => s3.prefix.trim_matches('/'),
        };
        Path::from(format!("{prefix}/chat/{shelf}/{id}").trim_start_matches('/'))
    }

    pub(crate) async fn put(&self, id: Uuid, bytes: Bytes) -> Result<(), FileError> {
        let path = self.path(id);
        let store = self.store()?;
        let put = store.put(&path, bytes.into());
        bounded(put).await.map(|_| ())
    }

    /// The content as it comes, and its length.
    pub(crate) async fn get(&self, id: Uuid) -> Result<(Body, u64), FileError> {
        let path = self.path(id);
        let store = self.store()?;
        let found = bounded(store.get(&path)).await?;
        let length = found.meta.size;
        Ok((Body::from_stream(found.into_stream().map_err(std::io::Error::other)), length))
    }

    /// Removes it; what is not there is removed.
    pub(crate) async fn remove(&self, id: Uuid) -> Result<(), FileError> {
        let path = self.path(id);
        let store = self.store()?;
        match bounded(store.delete(&path)).await {
            Ok(()) | Err(FileError::NotThere) => Ok(()),
            Err(FileError::Away) => {
                tracing::warn!(file = %id, "a file could not be removed");
                Err(FileError::Away)
            }
        }
    }
}

/// Whatever a store does, it ends.
async fn bounded<T>(
    call: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, FileError> {
    match tokio::time::timeout(RETRY_TIMEOUT, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(object_store::Error::NotFound { .. })) => Err(FileError::NotThere),
        Ok(Err(_)) | Err(_) => Err(FileError::Away),
    }
}

impl S3 {
    fn open(&self) -> Result<Arc<dyn ObjectStore>, OpenFilesError> {
        let retry =
            RetryConfig { max_retries: 4, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            // Services beside Amazon's do not all have it, and we remove one at a time.
            .with_disable_bulk_delete(true)
            .with_client_options(ClientOptions::new().with_timeout(REQUEST_TIMEOUT))
            .with_retry(retry);
        if !self.endpoint.is_empty() {
            let plain = self.endpoint.starts_with("http://");
            let options = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_allow_http(plain);
            builder = builder.with_endpoint(&self.endpoint).with_client_options(options);
        }
        if !self.access_key_id.is_empty() {
            builder = builder
                .with_access_key_id(&self.access_key_id)
                .with_secret_access_key(self.secret_access_key.reveal());
        }
        if !self.kms_key_id.is_empty() {
            builder = builder.with_sse_kms_encryption(&self.kms_key_id);
        }
        let store = builder.build().map_err(|error| OpenFilesError(error.to_string()))?;
        Ok(Arc::new(store))
    }
}

fn open_folder(folder: &std::path::Path) -> Result<Arc<dyn ObjectStore>, OpenFilesError> {
    let failed =
        |error: &dyn std::fmt::Display| OpenFilesError(format!("{}: {error}", folder.display()));
    make_folder(folder).map_err(|error| failed(&error))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| failed(&error))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// A folder that only we can look into.
fn make_folder(folder: &std::path::Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }
    #[cfg(not(unix))]
    std::fs::create_dir_all(folder)
}
