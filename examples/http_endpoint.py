"""POST an image, get JSON: a small endpoint for a network that you trust.

python http_endpoint.py [PORT [MODEL]]      then: curl --data-binary @cat.jpg localhost:8000
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from catdog_edge import CatdogError, Classifier, PictureError
from catdog_edge.images.read import decode_picture


class Endpoint(BaseHTTPRequestHandler):
    """Classifies one image per request."""

    def do_POST(self) -> None:
        """Read the image, respond with one line of JSON."""
        said = self.headers.get("Content-Length", "")
        length = int(said) if said.isdecimal() and len(said) < 9 else 0  # below 100 MB
        try:
            status, text = 200, pets(decode_picture(self.rfile.read(length))).to_json()
        except PictureError as error:
            status, text = 400, f"the image cannot be read: {error}"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode() + b"\n")


port = sys.argv[1] if len(sys.argv) > 1 else "8000"
try:
    pets = Classifier(*sys.argv[2:3])
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Endpoint)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()
except (CatdogError, OSError, OverflowError, ValueError, KeyboardInterrupt) as error:
    sys.exit(f"http_endpoint.py, on port {port}: {str(error) or 'stopped'}")
