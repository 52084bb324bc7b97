//! The reference of the settings, generated.
