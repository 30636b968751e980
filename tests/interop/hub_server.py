"""A hub of one's own: the few requests that uploading and downloading small files of a model make, by HTTP."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Keeps the files of every repository and revision in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        """By repository and revision."""
        self.asked: list[tuple[str, str]] = []
        """Method and path of every request."""
        self.tokens: set[str] = set()
        self.repositories: dict[str, dict[str, Any]] = {}
        """What each was made with."""
        self.commits: list[dict[str, Any]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Requests(BaseHTTPRequestHandler):
    """As the hub answers: https://huggingface.co/docs/hub/api, for files that are not kept in Xet or LFS."""

    server: Hub  # pyrefly: ignore[bad-override]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Quiet."""

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def note(self) -> bytes:
        """The body; what is asked for is noted."""
        self.server.asked.append((self.command, self.path.split("?")[0]))
        self.server.tokens.add(self.headers.get("Authorization", ""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        body, place = self.note(), self.path.split("?")[0].removeprefix("/api/")
        if place == "repos/create":
            asked = json.loads(body)
            owner = asked.get("organization") or "me"
            if owner == "others":
                return self.answer({"error": "You are not theirs"}, 403)
            self.server.repositories[f"{owner}/{asked['name']}"] = asked
            return self.answer({"url": f"{self.server.address}/{owner}/{asked['name']}"})
        if place == "validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        _, owner, name, action, revision = place.split("/", 4)
        if f"{owner}/{name}" not in self.server.repositories:
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        if action == "branch":
            self.server.files.setdefault((f"{owner}/{name}", revision), {})
            return self.answer({})
        if action == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            return self.answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]})
        return self.commit(f"{owner}/{name}", revision, [json.loads(line) for line in body.splitlines()])

    def commit(self, repository: str, revision: str, lines: list[dict[str, Any]]) -> None:
        """Keep the files of a commit: its first line is a header."""
        kept = self.server.files.setdefault((repository, revision), {})
        files = [line["value"] for line in lines if line["key"] == "file"]
        kept |= {file["path"]: base64.b64decode(file["content"]) for file in files}
        query, address = self.path.partition("?")[2], f"{self.server.address}/{repository}"
        self.server.commits.append({"query": query, **lines[0]["value"]})
        pull = {"pullRequestUrl": f"{address}/discussions/1"} if "create_pr=1" in query else {}
        self.answer({"commitUrl": f"{address}/commit/{'0' * 40}", "commitOid": "0" * 40, **pull})

    def do_HEAD(self) -> None:
        self.note()
        parts = self.path.split("?")[0][1:].split("/", 4)
        if parts[:2] == ["api", "models"]:  # Older clients ask how files are stored.
            name = "/".join(parts[2:4])
            if name not in self.server.repositories:
                return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return self.answer({"id": name, "xetEnabled": False})
        if len(parts) < 5 or parts[2] != "resolve":
            return self.answer(b"", 404)
        owner, name, _, revision, file = parts
        kept = self.server.files.get((f"{owner}/{name}", revision))
        if kept is None or file not in kept:
            code = "RepoNotFound" if kept is None else "EntryNotFound"
            return self.answer(b"", 404, X_Error_Code=code, X_Repo_Commit="0" * 40)
        return self.answer(kept[file], ETag=f'"{hashlib.sha1(kept[file]).hexdigest()}"', X_Repo_Commit="0" * 40)

    do_GET = do_HEAD  # noqa: N815 - the base class's name


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that is there until the block ends."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
