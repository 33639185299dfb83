"""What the tests on a cluster share: the daemon's image."""

from tests.support.daemon_image import daemon_image, daemon_image_files

__all__ = ["daemon_image", "daemon_image_files"]
