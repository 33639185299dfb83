"""Reconciler keeps running systems equal to a Git repository by replacing immutable instances."""

__version__ = "0.1.0"
