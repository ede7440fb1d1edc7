//! Steps → system calls: the only stage that changes anything.
