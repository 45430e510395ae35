"""What `gateway demo` starts: an embedded MongoDB and sample people. The same code paths as in production serve them."""
