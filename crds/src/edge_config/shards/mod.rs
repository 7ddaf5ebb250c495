//! The document on its way: gzip, cut into numbered shards, joined and checked again.
//!
//! A shard is a ConfigMap's content: one line of JSON that says what it is (format, generation,
//! number, count, hash of the whole), then its slice of the gzip stream. The hash is over all
//! slices together, so that a document joined from two writes is never taken for a whole one.
//! Nothing here reads or writes files, and nothing judges what the document says.

use std::io::{Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{EdgeConfig, VERSION, Version};

/// Most shards of one document: as many optional ConfigMaps as a pod mounts.
pub const MAX_SHARDS: usize = 8;
/// Largest shard in bytes, header included: a ConfigMap ends at 1 MiB with all its metadata.
pub const MAX_SHARD_BYTES: usize = 900 * 1024;
/// Largest document in bytes, unpacked: a small stream may not become all of a proxy's memory.
pub const MAX_DOCUMENT_BYTES: u64 = 512 * 1024 * 1024;
/// Key of a shard in its ConfigMap, in `binaryData`.
pub const SHARD_KEY: &str = "shard";
/// A header with its newline stays below this many bytes.
const MAX_HEADER_BYTES: usize = 512;

/// Name of the ConfigMap that holds shard `number` of a pool's document.
#[must_use]
pub fn shard_name(pool: &str, number: usize) -> String {
    format!("{pool}-config-{number}")
}

/// Names of the ConfigMaps that hold a pool's document, as far as it has that many shards.
pub fn shard_names(pool: &str) -> impl Iterator<Item = String> {
    (0..MAX_SHARDS).map(move |number| shard_name(pool, number))
}

/// What a shard says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardHeader {
    /// Of the document.
    pub version: Version,
    /// Of the document.
    pub generation: u64,
    /// From 0.
    pub number: usize,
    /// 1 to [`MAX_SHARDS`].
    pub count: usize,
    /// SHA-256 of the gzip stream, all shards together, in lower-case hex.
    pub sha256: String,
}

/// A document as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedDocument {
    /// As in every [`ShardHeader`].
    pub sha256: String,
    pub shards: Vec<Vec<u8>>,
}

/// A document as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeDocument {
    pub config: EdgeConfig,
    /// As its shards say, and have it: what tells it from another of the same generation.
    pub sha256: String,
}

/// Why a document cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Condition reason `ConfigTooLarge`.
    #[error(
        "the configuration takes {shards} shards of {MAX_SHARD_BYTES} bytes, and {MAX_SHARDS} is the most: split the users of large policies over namespaces, or grant whole domains"
    )]
    TooLarge { shards: usize },
    #[error("the configuration cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the configuration cannot be compressed: {0}")]
    Gzip(#[from] std::io::Error),
}

/// Why shards do not make a document.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Nothing is there yet: wait.
    #[error("no shard is there yet")]
    NoShard,
    /// A write is under way: wait.
    #[error("shard {number} of {count} of generation {generation} is missing")]
    MissingShard {
        number: usize,
        count: usize,
        generation: u64,
    },
    /// A write is under way: wait.
    #[error("shards of several generations are there ({0}), and none is complete")]
    MixedGenerations(String),
    #[error("shard {number} of generation {generation} is there twice and differs")]
    Twice { number: usize, generation: u64 },
    #[error("a shard is damaged: {0}")]
    Header(String),
    #[error("the shards of generation {generation} do not have the hash that they name")]
    Hash { generation: u64 },
    #[error(
        "the document has version {}.{}, this build reads {}.x: run an operator and a proxy of neighbouring versions",
        found.major, found.minor, VERSION.major
    )]
    Version { found: Version },
    #[error("the document cannot be unpacked: {0}")]
    Gzip(std::io::Error),
    #[error("the document is longer than {MAX_DOCUMENT_BYTES} bytes")]
    TooLong,
    #[error("the document is not an EdgeConfig: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the shards name generation {shards}, the document says {document}")]
    GenerationDiffers { shards: u64, document: u64 },
}

impl DecodeError {
    /// Whether the rest may simply not have arrived yet, so that there is nothing to complain of.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        matches!(
            self,
            Self::NoShard | Self::MissingShard { .. } | Self::MixedGenerations(_)
        )
    }
}

/// The document as JSON with keys sorted and nothing superfluous: equal documents, equal bytes.
///
/// # Errors
/// [`serde_json::Error`] where a value has no JSON form.
pub fn canonical_json(config: &EdgeConfig) -> Result<Vec<u8>, serde_json::Error> {
    let mut value = serde_json::to_value(config)?;
    value.sort_all_objects();
    serde_json::to_vec(&value)
}

/// SHA-256 in lower-case hex over the canonical JSON, `generation` left out: it tells whether the
/// content changed, and so whether there is to be a new generation.
///
/// # Errors
/// As [`canonical_json`].
pub fn content_hash(config: &EdgeConfig) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(config)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("generation");
    }
    value.sort_all_objects();
    Ok(sha256(&serde_json::to_vec(&value)?))
}

/// Packs a document into 1 to [`MAX_SHARDS`] shards of at most [`MAX_SHARD_BYTES`] bytes each.
/// Equal documents make equal shards.
///
/// # Errors
/// [`EncodeError::TooLarge`] past the last shard.
pub fn encode(config: &EdgeConfig) -> Result<PackedDocument, EncodeError> {
    encode_with(config, MAX_SHARD_BYTES)
}

fn encode_with(config: &EdgeConfig, shard_bytes: usize) -> Result<PackedDocument, EncodeError> {
    // The encoder writes no time and no name into its header: the stream depends on nothing else.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&canonical_json(config)?)?;
    let packed = gzip.finish()?;
    let slices: Vec<&[u8]> = packed.chunks(shard_bytes - MAX_HEADER_BYTES).collect();
    if slices.len() > MAX_SHARDS {
        return Err(EncodeError::TooLarge {
            shards: slices.len(),
        });
    }
    let sha256 = sha256(&packed);
    let shards: Result<Vec<Vec<u8>>, EncodeError> = slices
        .iter()
        .enumerate()
        .map(|(number, slice)| {
            let mut shard = serde_json::to_vec(&ShardHeader {
                version: config.version,
                generation: config.generation,
                number,
                count: slices.len(),
                sha256: sha256.clone(),
            })?;
            shard.push(b'\n');
            shard.extend_from_slice(slice);
            Ok(shard)
        })
        .collect();
    Ok(PackedDocument {
        shards: shards?,
        sha256,
    })
}

/// Joins the shards that are there, in any order, and reads the newest complete document. A shard
/// of an older, incomplete generation does no harm: a write replaces ConfigMap after ConfigMap.
///
/// # Errors
/// [`DecodeError`]; [`DecodeError::is_incomplete`] tells whether to wait.
pub fn decode<S: AsRef<[u8]>>(shards: &[S]) -> Result<WholeDocument, DecodeError> {
    let mut sets: Vec<ShardSet<'_>> = Vec::new();
    for shard in shards {
        let (header, slice) = split(shard.as_ref())?;
        let set = sets.iter_mut().find(|set| {
            set.generation == header.generation
                && set.sha256 == header.sha256
                && set.slices.len() == header.count
        });
        let set = match set {
            Some(set) => set,
            None => {
                sets.push(ShardSet::new(&header));
                sets.last_mut().expect("one was pushed")
            }
        };
        match &mut set.slices[header.number] {
            Some(other) if *other != slice => {
                return Err(DecodeError::Twice {
                    number: header.number,
                    generation: header.generation,
                });
            }
            place => *place = Some(slice),
        }
    }
    sets.sort_by_key(|set| std::cmp::Reverse(set.generation));
    match sets.as_slice() {
        [] => Err(DecodeError::NoShard),
        [only] if !only.is_complete() => Err(only.missing()),
        sets => match sets.iter().find(|set| set.is_complete()) {
            Some(whole) => whole.read(),
            None => {
                let generations: Vec<_> =
                    sets.iter().map(|set| set.generation.to_string()).collect();
                Err(DecodeError::MixedGenerations(generations.join(", ")))
            }
        },
    }
}

/// Shards that name the same whole.
struct ShardSet<'a> {
    version: Version,
    generation: u64,
    sha256: String,
    slices: Vec<Option<&'a [u8]>>,
}

impl ShardSet<'_> {
    fn new(header: &ShardHeader) -> Self {
        Self {
            version: header.version,
            generation: header.generation,
            sha256: header.sha256.clone(),
            slices: vec![None; header.count],
        }
    }

    fn is_complete(&self) -> bool {
        self.slices.iter().all(Option::is_some)
    }

    fn missing(&self) -> DecodeError {
        DecodeError::MissingShard {
            number: self
                .slices
                .iter()
                .position(Option::is_none)
                .unwrap_or_default(),
            count: self.slices.len(),
            generation: self.generation,
        }
    }

    fn read(&self) -> Result<WholeDocument, DecodeError> {
        let generation = self.generation;
        let packed: Vec<u8> = self
            .slices
            .iter()
            .flatten()
            .copied()
            .flatten()
            .copied()
            .collect();
        if sha256(&packed) != self.sha256 {
            return Err(DecodeError::Hash { generation });
        }
        // Before unpacking: another major version may mean another everything.
        if self.version.major != VERSION.major {
            return Err(DecodeError::Version {
                found: self.version,
            });
        }
        let mut json = Vec::new();
        GzDecoder::new(packed.as_slice())
            .take(MAX_DOCUMENT_BYTES + 1)
            .read_to_end(&mut json)
            .map_err(DecodeError::Gzip)?;
        if json.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(DecodeError::TooLong);
        }
        let config: EdgeConfig = serde_json::from_slice(&json)?;
        if config.version.major != VERSION.major {
            return Err(DecodeError::Version {
                found: config.version,
            });
        }
        if config.generation != generation {
            return Err(DecodeError::GenerationDiffers {
                shards: generation,
                document: config.generation,
            });
        }
        Ok(WholeDocument {
            config,
            sha256: self.sha256.clone(),
        })
    }
}

fn split(shard: &[u8]) -> Result<(ShardHeader, &[u8]), DecodeError> {
    let damaged = |text: &str| DecodeError::Header(text.to_owned());
    let end = shard
        .iter()
        .take(MAX_HEADER_BYTES)
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| damaged("it has no header line"))?;
    let header: ShardHeader = serde_json::from_slice(&shard[..end])
        .map_err(|error| damaged(&format!("its header is not readable: {error}")))?;
    if header.count == 0 || header.count > MAX_SHARDS {
        return Err(damaged(&format!(
            "it is one of {}, and 1 to {MAX_SHARDS} can be",
            header.count
        )));
    }
    if header.number >= header.count {
        return Err(damaged(&format!(
            "it is number {} of {}",
            header.number, header.count
        )));
    }
    Ok((header, &shard[end + 1..]))
}

/// SHA-256 in lower-case hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests;
