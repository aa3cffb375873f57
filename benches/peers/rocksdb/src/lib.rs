//! Stands in for RocksDB, which is long to build and which the bench does not use: Limitador's storage in Redis compiles only along
//! with its storage on disk. All that is called panics.

use std::marker::PhantomData;
use std::path::Path;

pub struct MultiThreaded;
pub struct DBWithThreadMode<T>(PhantomData<T>);
pub type DB = DBWithThreadMode<MultiThreaded>;
type Pair = (Box<[u8]>, Box<[u8]>);

#[derive(Debug)]
pub struct Error;

#[derive(PartialEq, Eq)]
pub enum ErrorKind {
    TimedOut,
    TryAgain,
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        unimplemented!()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no database")
    }
}

impl std::error::Error for Error {}

pub enum IteratorMode {
    Start,
}

pub enum CompactionDecision {
    Keep,
    Remove,
}

pub enum DBCompressionType {
    None,
    Bz2,
}

pub struct MergeOperands;

impl<'a> IntoIterator for &'a MergeOperands {
    type Item = &'a [u8];
    type IntoIter = std::iter::Empty<&'a [u8]>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::empty()
    }
}

#[derive(Default)]
pub struct Options;

impl Options {
    pub fn set_compression_type(&mut self, _: DBCompressionType) {}
    pub fn set_compaction_filter(&mut self, _: &str, _: impl Fn(u32, &[u8], &[u8]) -> CompactionDecision) {}
    pub fn set_merge_operator_associative(
        &mut self,
        _: &str,
        _: impl Fn(&[u8], Option<&[u8]>, &MergeOperands) -> Option<Vec<u8>>,
    ) {
    }
    pub fn create_if_missing(&mut self, _: bool) {}
}

impl<T> DBWithThreadMode<T> {
    pub fn open(_: &Options, _: impl AsRef<Path>) -> Result<Self, Error> {
        unimplemented!()
    }
    pub fn get(&self, _: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        unimplemented!()
    }
    pub fn delete(&self, _: impl AsRef<[u8]>) -> Result<(), Error> {
        unimplemented!()
    }
    pub fn merge(&self, _: impl AsRef<[u8]>, _: impl AsRef<[u8]>) -> Result<(), Error> {
        unimplemented!()
    }
    pub fn iterator(&self, _: IteratorMode) -> std::iter::Empty<Result<Pair, Error>> {
        unimplemented!()
    }
    pub fn prefix_iterator(&self, _: impl AsRef<[u8]>) -> std::iter::Empty<Result<Pair, Error>> {
        unimplemented!()
    }
}
