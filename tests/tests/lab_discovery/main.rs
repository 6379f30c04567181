//! Backends from a watched file and from a real DNS server: they come, go and stay as they should, whatever happens to where
//! they are found.

mod bind;
mod dns;
mod file;
mod partial;
mod scene;
