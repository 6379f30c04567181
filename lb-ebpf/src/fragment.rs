//! Fragments: the first one is noted, the others follow it.
