//! The last known registry in a file, encrypted as a whole, for a start without the database.

use std::{
    fs::DirBuilder,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use fanfare_model::{Endpoint, Timestamp};
use serde::{Deserialize, Serialize, Serializer};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::{
    RegistryFault, Snapshot,
    cipher::{CannotOpen, Cipher},
    record::EndpointRecord,
};

/// What the file is bound to. The number changes with the format, so a file of another format is not misread.
const PURPOSE: &[u8] = b"fanfare registry snapshot 1";

#[derive(Deserialize)]
struct Contents {
    version: u64,
    taken_at: Timestamp,
    endpoints: Vec<EndpointRecord>,
}

/// The same, to be written.
#[derive(Serialize)]
struct Written<'s> {
    version: u64,
    taken_at: Timestamp,
    #[serde(serialize_with = "records")]
    endpoints: &'s Snapshot,
}

/// One at a time, because all records together would take as much memory again as the snapshot.
fn records<S: Serializer>(snapshot: &Snapshot, serializer: S) -> Result<S::Ok, S::Error> {
    let endpoints = snapshot.endpoints();
    serializer.collect_seq(endpoints.map(|endpoint| EndpointRecord::from(&**endpoint)))
}

/// Replaces the file. Whoever reads it, at any moment and after any crash, finds the old one or the new one whole.
pub(crate) fn write(
    path: &Path,
    cipher: &Cipher,
    snapshot: &Snapshot,
    taken_at: Timestamp,
) -> Result<(), RegistryFault> {
    let written = Written {
        version: snapshot.version(),
        taken_at,
        endpoints: snapshot,
    };
    let plain = serde_json::to_vec(&written).expect("records hold nothing that JSON cannot");
    let sealed = cipher.seal(&Zeroizing::new(plain), PURPOSE);
    replace(path, &sealed).map_err(|source| file_fault(path, source))
}

/// Reads the file: the snapshot, and when it was written.
pub(crate) fn read(path: &Path, cipher: &Cipher) -> Result<(Snapshot, Timestamp), RegistryFault> {
    let sealed = std::fs::read(path).map_err(|source| file_fault(path, source))?;
    let plain = cipher.open(&sealed, PURPOSE).map_err(|fault| match fault {
        CannotOpen::OtherKey(used) => RegistryFault::OtherKey {
            used,
            given: cipher.key_id(),
        },
        CannotOpen::Damaged => damaged(path, fault.into()),
    })?;
    let contents: Contents =
        serde_json::from_slice(&plain).map_err(|source| damaged(path, source.into()))?;
    let endpoints = contents.endpoints.into_iter().map(Endpoint::try_from);
    let endpoints = endpoints
        .collect::<Result<_, _>>()
        .map_err(|source| damaged(path, source))?;
    Ok((
        Snapshot::new(contents.version, endpoints),
        contents.taken_at,
    ))
}

fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = temporary_beside(path)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// A new file, readable by its owner alone, that can be given the name `path` once it is whole.
///
/// The folder is made if there is none.
pub(crate) fn temporary_beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // `tempfile` makes files of mode 0600 on Unix.
    NamedTempFile::new_in(folder)
}

fn file_fault(path: &Path, source: io::Error) -> RegistryFault {
    RegistryFault::SnapshotFile {
        path: path.to_owned(),
        source,
    }
}

fn damaged(path: &Path, source: Box<dyn std::error::Error + Send + Sync>) -> RegistryFault {
    RegistryFault::Damaged {
        what: format!("the snapshot file `{}`", path.display()),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, os::unix::fs::PermissionsExt};

    use fanfare_model::{EndpointId, EventTypePattern, HeaderField, SigningSecret};
    use uuid::Uuid;

    use super::*;
    use crate::{EncryptionKey, NewEndpoint};

    fn cipher(digit: &str) -> Cipher {
        Cipher::new(&EncryptionKey::parse(&digit.repeat(64)).unwrap())
    }

    fn snapshot() -> Snapshot {
        let mut new = NewEndpoint::new(
            "t".parse().unwrap(),
            "https://example.com/".parse().unwrap(),
            vec![EventTypePattern::Any],
        );
        new.headers = vec![HeaderField::new("authorization", "Bearer hush").unwrap()];
        new.secrets = vec![SigningSecret::generate(), SigningSecret::generate()];
        let id = |n| EndpointId::from_uuid(Uuid::from_u128(n));
        let endpoint = |n| new.clone().registered(id(n), Timestamp::UNIX_EPOCH);
        Snapshot::new(9, vec![endpoint(1), endpoint(2)])
    }

    #[test]
    fn a_snapshot_survives_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/snapshot");
        let (written, taken_at) = (snapshot(), "2026-11-23T15:04:05Z".parse().unwrap());
        write(
            &path,
            &cipher("a"),
            &Snapshot::default(),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        write(&path, &cipher("a"), &written, taken_at).unwrap();

        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
        let (read, read_taken_at) = read(&path, &cipher("a")).unwrap();
        assert_eq!((read.version(), read_taken_at), (9, taken_at));
        let ids: HashSet<_> = read.endpoints().map(|endpoint| endpoint.id).collect();
        assert_eq!(ids.len(), 2);
        for endpoint in written.endpoints() {
            assert_eq!(read.endpoint(endpoint.id), Some(endpoint));
        }
    }

    #[test]
    fn a_file_that_is_missing_changed_or_of_another_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let fault = read(&path, &cipher("a")).unwrap_err();
        assert!(
            matches!(fault, RegistryFault::SnapshotFile { .. }),
            "{fault:?}"
        );

        write(&path, &cipher("a"), &snapshot(), Timestamp::UNIX_EPOCH).unwrap();
        let fault = read(&path, &cipher("b")).unwrap_err();
        assert!(matches!(fault, RegistryFault::OtherKey { .. }), "{fault:?}");

        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let fault = read(&path, &cipher("a")).unwrap_err();
        assert!(matches!(fault, RegistryFault::Damaged { .. }), "{fault:?}");
    }
}
