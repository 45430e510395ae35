"""The checks: a file each group, a function each rule. Each makes what it needs and removes it."""
