"""Frozen heads and feature capture for the policies of other libraries (optional extras)."""
