"""A small schema registry for tests: the REST calls that clients make, over real HTTP, and ways to fail.

Real registries answer with a Protobuf schema's text unless they are asked for `format=serialized`; so does this one.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class SchemaRegistry:
    """Serves while it is open, on a port that it keeps.

    Attributes:
        failing: an HTTP status to answer everything with, `html` (a login page with status 200) or `slow` (no answer for 30 s);
            None = it works.
        login: `user:password` that it asks for.
        asked: paths with queries, in order.
    """

    def __init__(self, login: str | None = None) -> None:
        self.failing: int | str | None = None
        self.login = login
        self.asked: list[str] = []
        self.schemas: list[dict[str, Any]] = []  # the id is the place, from 1
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry._answer(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> SchemaRegistry:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, schema: str, kind: str = "AVRO", references: list[dict[str, Any]] | None = None) -> int:
        """The schema's id. `schema` of Protobuf is the base64 of its descriptor."""
        wanted = {"schema": schema, "schemaType": kind, "references": references or []}
        for known in self.schemas:
            if wanted.items() <= known.items():
                return int(known["id"])
        self.schemas.append(
            wanted
            | {"id": len(self.schemas) + 1, "guid": str(uuid.uuid4()), "subject": "s", "version": len(self.schemas) + 1}
        )
        return len(self.schemas)

    def frame(self, schema_id: int) -> bytes:
        return b"\x00" + schema_id.to_bytes(4, "big")

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.failing == "slow":
            time.sleep(30)
        status, content = self._content(request, body)
        raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(raw)))
        request.end_headers()
        request.wfile.write(raw)

    def _content(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, Any]:
        if self.failing == "html":
            return 200, "<html>Please log in</html>"
        if isinstance(self.failing, int):
            return self.failing, {"error_code": self.failing * 100 + 1, "message": "as the test wants it"}
        if (
            self.login
            and request.headers.get("Authorization") != "Basic " + base64.b64encode(self.login.encode()).decode()
        ):
            return 401, {"error_code": 401, "message": "Unauthorized"}
        url = urlsplit(request.path)
        serialized = parse_qs(url.query).get("format") == ["serialized"]
        match [unquote(part) for part in url.path.strip("/").split("/")]:
            case ["schemas", "types"]:
                return 200, ["AVRO", "PROTOBUF", "JSON"]
            case ["schemas", "ids", number] if number.isdigit():
                found = [one for one in self.schemas if one["id"] == int(number)]
            case ["schemas", "guids", guid]:
                found = [one for one in self.schemas if one["guid"] == guid]
            case ["subjects", _, "versions", version]:
                found = [one for one in self.schemas if one["version"] == int(version)]
            case ["subjects", _, "versions"]:
                posted = json.loads(body)
                schema_id = self.add(posted["schema"], posted.get("schemaType", "AVRO"), posted.get("references"))
                return 200, self.schemas[schema_id - 1]
            case _:
                return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}
        if not found:
            return 404, {"error_code": 40403, "message": "Schema not found"}
        text = (
            {"schema": 'syntax = "proto3"; // the text'}
            if found[0]["schemaType"] == "PROTOBUF" and not serialized
            else {}
        )
        answer = found[0] | text
        return 200, {name: content for name, content in answer.items() if (name, content) != ("schemaType", "AVRO")}
