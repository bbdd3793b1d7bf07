//! The deduplicating engine: bytes in, one commit, the same bytes out, verified.
