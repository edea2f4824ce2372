"""The deeds: what a caller can do; each joins rules and rows, and states what else it needs as a Protocol."""
