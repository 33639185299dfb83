"""What says "look at this environment": hints only, never data."""
