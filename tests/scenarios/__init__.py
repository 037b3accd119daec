"""Whole clusters under test: the same scenarios over memory links and over real processes."""
