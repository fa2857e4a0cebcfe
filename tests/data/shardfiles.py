"""Shards made in a test, and a server that hands them out."""

import functools
import http.server
import io
import tarfile
import threading
from contextlib import contextmanager

from tests.conftest import drawings


def write_tar(path, *members):
    """A tar at `path` of (name, bytes) members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pair(key, caption="a bird"):
    """Members of a sample whose picture is none, for what decodes nothing."""
    return (f"{key}.jpg", f"picture {key}".encode()), (f"{key}.txt", caption.encode())


def shape_shards(folder, counts, split="train"):
    """A tar of that many real drawings for each of `counts`: `folder/split/000.tar` and so on."""
    made = iter(drawings(sum(counts)).items())
    for number, count in enumerate(counts):
        members = []
        for name, (png, colour, shape) in (next(made) for _ in range(count)):
            members += [(name, png), (name.replace("png", "txt"), f"a {colour} {shape}".encode())]
        write_tar(folder / split / f"{number:03d}.tar", *members)
    return folder


@contextmanager
def served(folder):
    """The URL of a server of `folder`, and the list of paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
