"""A hub on this machine: one open model, a gated one, one with a revision, and silence about the rest."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "1234567890abcdef1234567890abcdef12345678"


class Hub(ThreadingHTTPServer):
    """Serves `files` as the model `org/open`; `asked` collects (method, path)."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.asked = files, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


def _tag(body):
    return hashlib.sha256(body).hexdigest()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append((self.command, self.path))
        path = self.path.partition("?")[0].lstrip("/")
        if path.startswith("api/"):
            kind, org, name, *rest = [*path.removeprefix("api/").split("/"), "", ""]
            self.api(f"{org}/{name}", kind, [part for part in rest if part])
        else:
            org, name, _, revision, *rest = path.split("/")
            self.file(f"{org}/{name}", revision, "/".join(rest))

    def api(self, name, kind, rest):
        if name == "org/broken":
            return self.reply(500)
        if name not in ("org/open", "org/gated") or kind not in ("models", "datasets"):
            return self.reply(404, {"X-Error-Code": "RepoNotFound"})
        if rest == ["auth-check"]:
            return self.reply(403, {"X-Error-Code": "GatedRepo"}) if name == "org/gated" else self.reply(200)
        if rest[:1] == ["revision"] and rest[1] not in ("main", "v1", COMMIT):
            return self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        if rest[:1] == ["tree"]:
            held = self.server.files.items()
            tree = [{"type": "file", "path": f, "size": len(b), "oid": _tag(b)[:40]} for f, b in held]
            return self.reply(200, body=json.dumps(tree))
        files = [{"rfilename": file, "size": len(body)} for file, body in self.server.files.items()]
        told = {"id": name, "sha": COMMIT, "gated": "manual" if name == "org/gated" else False}
        return self.reply(200, body=json.dumps({**told, "siblings": files, "private": False, "tags": []}))

    def file(self, name, revision, file):
        if name == "org/gated":
            return self.reply(403, {"X-Error-Code": "GatedRepo"})
        if name != "org/open" or file not in self.server.files:
            return self.reply(404, {"X-Error-Code": "EntryNotFound"})
        body = self.server.files[file]
        return self.reply(200, {"ETag": f'"{_tag(body)[:40]}"', "X-Repo-Commit": COMMIT}, body)

    def reply(self, status, headers=(), body=b"{}"):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
