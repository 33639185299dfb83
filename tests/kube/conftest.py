"""What the tests on a cluster share: the daemon's image, and the Gateway."""

from tests.support.daemon_image import daemon_image, daemon_image_files
from tests.support.gateway import front, pytest_collection_finish, pytest_runtest_setup

__all__ = ["daemon_image", "daemon_image_files", "front", "pytest_collection_finish", "pytest_runtest_setup"]
