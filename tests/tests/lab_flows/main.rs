//! Flows through every change: an established connection keeps its backend, and a new one gets one that wants it.
//!
//! Connections are real ones, held by the thousand by processes of their own; what a backend must not get is watched
//! where it would be delivered.

mod algorithms;
mod changes;
mod commands;
mod hostile;
mod restarts;
mod scene;
