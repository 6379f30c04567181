//! What the tests share with `cargo xtask`: how packages are made, so that what is tested is what ships.

pub mod packaging;
