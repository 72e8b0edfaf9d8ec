"""Answers every request with what it was asked for, as JSON."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT = 8080


def answer(path):
    """The text for a path."""
    parts = urlsplit(path)
    return json.dumps({"path": parts.path, "query": parse_qs(parts.query)}, sort_keys=True) + "\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = answer(self.path).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    with ThreadingHTTPServer(("", PORT), Handler) as server:
        server.serve_forever()
