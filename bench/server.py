"""A simple index on loopback: ``python -m bench.server FOLDER [SECONDS]`` prints its port and serves until it is ended.

Files go out by ``sendfile``, and the metadata of every wheel beside it (PEP 658), so that a client waits
for its own work and not for the server's.
"""

from __future__ import annotations

import email.message
import hashlib
import http.server
import json
import sys
import time
import zipfile
from pathlib import Path

from packaging.utils import parse_wheel_filename


def publish(wheels: Path, folder: Path) -> None:
    """Lay wheels out as a simple index in ``folder``: ``simple/PROJECT/``, in the JSON of PEP 691, and ``files/``."""
    (folder / "files").mkdir(parents=True)
    projects: dict[str, list[dict[str, object]]] = {}
    for wheel in sorted(wheels.iterdir()):
        name = str(parse_wheel_filename(wheel.name)[0])
        (folder / "files" / wheel.name).hardlink_to(wheel)
        with zipfile.ZipFile(wheel) as archive:
            inner = next(
                n for n in archive.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1
            )
            metadata = archive.read(inner)
        (folder / "files" / f"{wheel.name}.metadata").write_bytes(metadata)
        with wheel.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        projects.setdefault(name, []).append(
            {
                "filename": wheel.name,
                "url": f"../../files/{wheel.name}",
                "size": wheel.stat().st_size,
                "hashes": {"sha256": digest},
                "requires-python": email.message_from_bytes(metadata)["Requires-Python"],
                "core-metadata": {"sha256": hashlib.sha256(metadata).hexdigest()},
            }
        )
    for name, files in projects.items():
        page = folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True)
        versions = sorted({str(file["filename"]).split("-")[1] for file in files})
        value = {"meta": {"api-version": "1.1"}, "name": name, "versions": versions, "files": files}
        page.write_text(json.dumps(value))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Static files over connections that are kept, without a log."""

    protocol_version = "HTTP/1.1"
    # A small answer must not wait for the acknowledgement of the one before.
    disable_nagle_algorithm = True
    # The base class looks for this name where a folder is asked for; what is in it is PEP 691's JSON.
    extensions_map = {".html": "application/vnd.pypi.simple.v1+json", "": "application/octet-stream"}  # noqa: RUF012

    wait = 0.0

    def do_GET(self) -> None:
        """Answer as one that is farther away would."""
        time.sleep(self.wait)
        super().do_GET()

    def copyfile(self, source: object, outputfile: object) -> None:
        """Hand the file to the kernel."""
        self.wfile.flush()
        self.connection.sendfile(source)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing."""


def main() -> None:
    """Serve the folder that the command line names, each answer after the seconds that it names."""
    Handler.wait = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

    def handler(*arguments: object) -> Handler:
        return Handler(*arguments, directory=sys.argv[1])  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
