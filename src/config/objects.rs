//! Section `objects`: where files and pictures are kept.

use std::path::{Path, PathBuf};

use bedside_control_plane::{Objects as Place, S3};
use bedside_sfu::core::api::Private;
use serde::{Deserialize, Serialize};

/// A folder, or a bucket of a service that speaks S3 where one is named.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Objects {
    /// The folder; empty = `bedside-objects`, beside the database where that is a file.
    pub(crate) folder: String,
    /// The bucket; empty = the folder is used.
    pub(crate) s3_bucket: String,
    /// The bucket's region.
    pub(crate) s3_region: String,
    /// The service's address, for others than Amazon's; empty = Amazon's.
    pub(crate) s3_endpoint: String,
    /// Key id; empty = the machine's role.
    pub(crate) s3_access_key_id: String,
    /// The key.
    #[serde(with = "super::forms::secret")]
    pub(crate) s3_secret_access_key: Private<String>,
    /// What every object's key begins with.
    pub(crate) s3_prefix: String,
    /// The key that the service encrypts with (SSE-KMS); empty = as the bucket says.
    pub(crate) s3_kms_key_id: String,
}

impl Objects {
    /// As the control plane takes it.
    pub(crate) fn place(&self, database_url: &str) -> Place {
        if self.s3_bucket.is_empty() {
            return Place::Folder(self.folder(database_url));
        }
        Place::S3(Box::new(S3 {
            bucket: self.s3_bucket.clone(),
            region: self.s3_region.clone(),
            endpoint: self.s3_endpoint.clone(),
            access_key_id: self.s3_access_key_id.clone(),
            secret_access_key: self.s3_secret_access_key.clone(),
            prefix: self.s3_prefix.clone(),
            kms_key_id: self.s3_kms_key_id.clone(),
        }))
    }

    fn folder(&self, database_url: &str) -> PathBuf {
        beside_database(&self.folder, "bedside-objects", database_url)
    }
}

/// The folder `named`; where none is, `name` beside the database where that is a file.
pub(super) fn beside_database(named: &str, name: &str, database_url: &str) -> PathBuf {
    if !named.is_empty() {
        return PathBuf::from(named);
    }
    let file = database_url.strip_prefix("sqlite:").and_then(|path| path.split('?').next());
    let beside = file.and_then(|path| Path::new(path.strip_prefix("//").unwrap_or(path)).parent());
    beside.map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_beside_the_database_unless_told_otherwise() {
        let place = |folder: &str, url: &str| {
            let objects = Objects { folder: folder.to_owned(), ..Objects::default() };
            match objects.place(url) {
                Place::Folder(folder) => folder.display().to_string(),
                Place::S3(_) => panic!("no bucket is named"),
            }
        };
        assert_eq!(place("", "sqlite:bedside.db"), "bedside-objects");
        assert_eq!(place("", "sqlite:/var/lib/b/b.db?mode=rwc"), "/var/lib/b/bedside-objects");
        assert_eq!(place("", "sqlite:///var/lib/b.db"), "/var/lib/bedside-objects");
        assert_eq!(place("", "postgres://x@y/z"), "bedside-objects");
        assert_eq!(place("/srv/files", "sqlite:b.db"), "/srv/files");
    }

    #[test]
    fn a_named_bucket_is_used() {
        let objects = Objects { s3_bucket: "b".to_owned(), ..Objects::default() };
        assert!(matches!(objects.place(""), Place::S3(s3) if s3.bucket == "b"));
    }
}
