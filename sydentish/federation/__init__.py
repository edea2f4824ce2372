"""To homeservers: finding them, asking them, and telling them."""
