"""The HTTP API: shows, and triggers a look; it never changes desired state."""
