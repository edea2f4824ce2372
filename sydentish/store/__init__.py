"""The rows: SQL stands here and nowhere else; one module per concept, functions of `(tx, ...)`."""
