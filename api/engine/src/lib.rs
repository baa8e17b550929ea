//! Placeholder; its owner writes the essay.
