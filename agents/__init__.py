"""Action Collapse: the `agents` room."""
