"""Families shipped with the harness."""
