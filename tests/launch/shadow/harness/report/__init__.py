"""Shadows what writes the report."""
