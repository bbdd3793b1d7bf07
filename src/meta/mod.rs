//! Ordered transactional key-value rows: the one place where state that is not chunk data lives.
