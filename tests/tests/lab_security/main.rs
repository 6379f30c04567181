//! What the daemon may do, and what those can do to it who may reach it: by its rights, its socket and its files.

mod api;
mod capabilities;
mod flood;
mod messages;
mod state_directory;
mod values;
