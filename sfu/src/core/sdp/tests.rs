//! What is read and written, section by section.
