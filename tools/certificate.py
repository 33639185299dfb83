"""A certificate, signed by itself, for a server that is started to test or to show something."""

from __future__ import annotations

import subprocess
from pathlib import Path


def self_signed(name: str, key: Path, certificate: Path) -> None:
    """Make both files, for 30 days. `name`: `DNS:shop.example.org` or `IP:127.0.0.1`."""
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"),
        *("-subj", f"/CN={name.partition(':')[2]}", "-addext", f"subjectAltName={name}"),
        *("-keyout", str(key), "-out", str(certificate)),
    ]
    subprocess.run(command, check=True, capture_output=True)
