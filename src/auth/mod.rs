//! Access keys, tenants, and who may call.
