"""The way of a read and of a write, free of HTTP: who asks, what they may, plan, commit, answer."""
