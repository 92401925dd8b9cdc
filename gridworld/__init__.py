"""Action Collapse: the `gridworld` room."""
