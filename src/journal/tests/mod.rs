//! The journal on a disk that misbehaves.

mod model;
mod seeded;
