"""Action Collapse: the `lpm` room."""
