//! Encryption of what must not be readable in the store: XChaCha20-Poly1305 under one key.
//!
//! A sealed text is the id of its key (4 bytes), the nonce (24) and the ciphertext.

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::file::temporary_beside;

/// The key that encrypts endpoints' secrets and the snapshot file. Prints `[redacted]`.
#[derive(Clone)]
pub struct EncryptionKey(Zeroizing<[u8; 32]>);

/// Why there is no usable encryption key. Never holds the key.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionKeyFault {
    /// None was given.
    #[error("no encryption key is set: give `encryption_key` or `encryption_key_file`")]
    Missing,
    /// Two were given.
    #[error("both `encryption_key` and `encryption_key_file` are set: give one of them")]
    Twice,
    /// The text is not a key.
    #[error("an encryption key is 32 bytes, written as 64 hexadecimal digits or as base64")]
    Malformed,
    /// Its file cannot be read, or not be made.
    #[error("using the encryption key file `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl EncryptionKey {
    /// Reads a key from its text, with white space around it forgiven.
    pub fn parse(text: &str) -> Result<Self, EncryptionKeyFault> {
        let text = text.trim();
        let bytes = Zeroizing::new(
            match text.len() {
                64 => from_hex(text),
                _ => STANDARD.decode(text).ok(),
            }
            .unwrap_or_default(),
        );
        match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(Self(Zeroizing::new(key))),
            Err(_) => Err(EncryptionKeyFault::Malformed),
        }
    }

    /// Reads a key from a file.
    pub fn from_file(path: &Path) -> Result<Self, EncryptionKeyFault> {
        let text = std::fs::read_to_string(path).map_err(|source| file_fault(path, source))?;
        Self::parse(&Zeroizing::new(text))
    }

    /// Reads a key from a file, which is made with a random key, readable by its owner alone, if there is none.
    ///
    /// For development: whoever loses the file loses every secret in the registry.
    pub fn from_file_or_create(path: &Path) -> Result<Self, EncryptionKeyFault> {
        if !path.exists() {
            match create_key_file(path) {
                // Someone else made it in the meantime: theirs is the key.
                Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(|source| file_fault(path, source))?,
            }
        }
        Self::from_file(path)
    }

    /// The short public name of this key.
    pub fn id(&self) -> KeyId {
        let digest = Sha256::digest(self.0.as_slice());
        KeyId([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn file_fault(path: &Path, source: io::Error) -> EncryptionKeyFault {
    EncryptionKeyFault::File {
        path: path.to_owned(),
        source,
    }
}

fn create_key_file(path: &Path) -> io::Result<()> {
    let key = Zeroizing::new(rand::random::<[u8; 32]>());
    let mut file = temporary_beside(path)?;
    writeln!(file, "{}", STANDARD.encode(key.as_slice()))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(*pair.get(1)?)?).ok())
        .collect()
}

/// Names an encryption key without telling it: the first 4 bytes of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 4]);

impl KeyId {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Seals and opens under one key.
#[derive(Clone)]
pub(crate) struct Cipher {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

/// Why a sealed text cannot be opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CannotOpen {
    #[error("it was encrypted with another key (id {0})")]
    OtherKey(KeyId),
    #[error("it was cut, changed, or belongs elsewhere")]
    Damaged,
}

const NONCE_BYTES: usize = 24;

impl Cipher {
    pub(crate) fn new(key: &EncryptionKey) -> Self {
        Self {
            id: key.id(),
            cipher: XChaCha20Poly1305::new((&*key.0).into()),
        }
    }

    pub(crate) fn key_id(&self) -> KeyId {
        self.id
    }

    /// Encrypts `plain` so that it opens only together with the same `belongs_to`.
    pub(crate) fn seal(&self, plain: &[u8], belongs_to: &[u8]) -> Vec<u8> {
        // 192 random bits never repeat in practice, so no counter has to survive restarts.
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload {
            msg: plain,
            aad: belongs_to,
        };
        let ciphertext = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a text that fits memory is shorter than the cipher's limit of 256 GiB");
        [self.id.as_bytes(), &nonce, &ciphertext].concat()
    }

    pub(crate) fn open(
        &self,
        sealed: &[u8],
        belongs_to: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let (id, rest) = sealed.split_first_chunk().ok_or(CannotOpen::Damaged)?;
        let (nonce, ciphertext) = rest
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(CannotOpen::Damaged)?;
        if KeyId(*id) != self.id {
            return Err(CannotOpen::OtherKey(KeyId(*id)));
        }
        let payload = Payload {
            msg: ciphertext,
            aad: belongs_to,
        };
        self.cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| CannotOpen::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cipher(byte: u8) -> Cipher {
        Cipher::new(&EncryptionKey(Zeroizing::new([byte; 32])))
    }

    #[test]
    fn a_key_is_read_from_hex_or_base64() {
        let hex = "0b".repeat(32);
        let expected = cipher(11).key_id();
        for good in [
            hex.clone(),
            format!(" {}\n", hex.to_uppercase()),
            STANDARD.encode([11; 32]),
        ] {
            assert_eq!(EncryptionKey::parse(&good).unwrap().id(), expected);
        }
        for bad in [
            "",
            "x",
            &"0b".repeat(31),
            &"zz".repeat(32),
            &STANDARD.encode([11; 33]),
        ] {
            let fault = EncryptionKey::parse(bad).unwrap_err();
            assert!(matches!(fault, EncryptionKeyFault::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/key");
        let made = EncryptionKey::from_file_or_create(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            EncryptionKey::from_file_or_create(&path).unwrap().id(),
            made.id()
        );
        assert_eq!(format!("{made:?}"), "[redacted]");
    }

    #[test]
    fn only_the_same_key_and_purpose_open_an_unchanged_text() {
        let sealed = cipher(1).seal(b"hello", b"a");
        assert_eq!(**cipher(1).open(&sealed, b"a").unwrap(), *b"hello");
        assert_eq!(cipher(1).open(&sealed, b"b"), Err(CannotOpen::Damaged));
        let other = cipher(2).open(&sealed, b"a");
        assert_eq!(other, Err(CannotOpen::OtherKey(cipher(1).key_id())));
        for n in 4..sealed.len() {
            let mut changed = sealed.clone();
            changed[n] ^= 1;
            assert_eq!(cipher(1).open(&changed, b"a"), Err(CannotOpen::Damaged));
        }
        for length in 0..sealed.len() {
            assert_eq!(
                cipher(1).open(&sealed[..length], b"a"),
                Err(CannotOpen::Damaged)
            );
        }
    }
}
