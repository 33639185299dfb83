"""Everything that touches the outside: one library each, each behind one port of `reconciler.ports`."""
