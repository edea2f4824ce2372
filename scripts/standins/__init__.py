"""Stand-ins for what surrounds Sydentish: for its tests and its demonstration, on loopback only."""
