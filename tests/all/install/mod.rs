//! How Tacho comes onto a machine: the verbs that packages need, the container image, the Debian package.

pub mod verbs;
