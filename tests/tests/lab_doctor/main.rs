//! `ballast doctor`: what is broken is found, with a fix that mends it, and what is well is left in peace.

mod backends;
mod examined;
mod healthy;
mod host;
