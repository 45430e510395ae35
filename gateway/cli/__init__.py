"""Groups of commands, a file each: what they take and how their results are told."""
