"""Action Collapse: the `analysis` room."""
