//! The fuzz targets as plain functions of bytes; each panics when what it holds is broken.

pub mod builder;
pub mod review;
pub mod selector;
