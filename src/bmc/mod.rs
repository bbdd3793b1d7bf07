//! One Redfish controller: the gateway that owns the wire, and the verbs that rack steps need.
