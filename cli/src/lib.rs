//! The `tidemill` command as a library.
