"""Certificates for tests, made on the spot by the openssl program for names of this machine."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str = "tls") -> tuple[Path, Path]:
    """A self-signed certificate of localhost and 127.0.0.1 and its key, mode 0600; `name` is its subject."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return cert, key
