"""The rules: pure functions and values, without Twisted, SQL, clock, randomness or files."""
