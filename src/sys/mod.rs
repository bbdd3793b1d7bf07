//! Every effect the program has: clock, entropy, disk, wire, workers, processes. The only home of unsafe code.
