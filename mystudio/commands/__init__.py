"""What the terminal offers: one module per family of commands; no logic of the studio."""
