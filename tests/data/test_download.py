"""Downloads: cut connections are resumed, other files refused, sources tried one after another."""

import gzip
import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread

import pytest

from nodecore.data import images
from nodecore.data.download import download

CONTENT = bytes(range(256)) * 40


class Server(BaseHTTPRequestHandler):
    """Serves `files`; of the first answers it sends only as many bytes as `cuts` says.

    Before them it answers with each of `refusals`, which are status codes.
    """

    files, cuts, asked, refusals = {}, [], [], []
    resumes = True

    def do_GET(self):
        asked = self.headers.get("Range")
        self.asked.append((self.path, asked))
        if self.refusals or self.path not in self.files:
            self.send_error(self.refusals.pop(0) if self.refusals else 404)
            return
        content = self.files[self.path]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.resumes else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.cuts.pop(0) if self.cuts else None
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """The class of a server that answers, with nothing served yet; its address in `.address`."""
    monkeypatch.setattr("nodecore.data.download.WAIT", 0.0)
    handler = type("Handler", (Server,), {"files": {}, "cuts": [], "asked": [], "refusals": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        handler.address = f"http://127.0.0.1:{running.server_port}"
        yield handler
        running.shutdown()


def fetch(server, path, *names):
    digest = md5(CONTENT).hexdigest()
    download([f"{server.address}/{name}" for name in names or ("file",)], path, digest)


@pytest.mark.parametrize("resumes", [True, False])
def test_a_cut_connection_is_resumed_where_it_ended(server, tmp_path, resumes):
    server.files, server.cuts, server.resumes = {"/file": CONTENT}, [1000, 2000], resumes
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    ends = ["bytes=1000-", "bytes=3000-" if resumes else "bytes=2000-"]
    assert server.asked == [("/file", None), *(("/file", end) for end in ends)]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_another_day_left_is_continued_also_where_nothing_lacks(server, tmp_path):
    server.files = {"/file": CONTENT}
    part = tmp_path / "file.part"
    for left in (CONTENT[:5000], CONTENT, b"of another file" + CONTENT):
        part.write_bytes(left)
        fetch(server, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == CONTENT
        assert not part.exists()
        (tmp_path / "file").unlink()


def test_what_somebody_put_there_is_not_fetched_and_another_file_is_replaced(server, tmp_path):
    server.files = {"/file": CONTENT}
    (tmp_path / "file").write_bytes(CONTENT)
    fetch(server, tmp_path / "file")
    assert server.asked == []
    (tmp_path / "file").write_bytes(b"another")
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_the_next_source_serves_where_one_has_no_file_or_another_one(server, tmp_path):
    server.files = {"/other": b"another", "/file": CONTENT}
    fetch(server, tmp_path / "file", "none", "other", "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path for path, _ in server.asked].count("/none") == 1  # 404 is asked once


@pytest.mark.parametrize("code", [408, 429, 503])
def test_a_server_that_refuses_for_a_while_is_asked_again(server, tmp_path, code):
    server.files, server.refusals = {"/file": CONTENT}, [code, code]
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_where_no_source_serves_the_message_names_each(server, tmp_path):
    server.files, server.cuts = {"/cut": CONTENT, "/other": b"another"}, [7, 0, 0]
    with pytest.raises(OSError, match=r"/cut: the connection ended after 7 of 10240 bytes; ") as no:
        fetch(server, tmp_path / "file", "cut", "other", "none")
    assert "/other: another file than the one that was released" in str(no.value)
    assert "/none: HTTP Error 404" in str(no.value)
    assert not (tmp_path / "file").exists()


@pytest.fixture
def release(server, few_images, monkeypatch):
    """The server with the few images as they are released."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(few_images / images.CIFAR10, images.CIFAR10)
    server.files = {f"/{images.CIFAR10_ARCHIVE}": archive.getvalue()}
    digests = {}
    for name in images.MNIST_MD5:
        packed = gzip.compress((few_images / images.MNIST / name).read_bytes())
        server.files[f"/{name}.gz"] = packed
        digests[f"{name}.gz"] = md5(packed).hexdigest()
    monkeypatch.setattr(images, "MNIST_ARCHIVES_MD5", digests)
    monkeypatch.setattr(images, "CIFAR10_ARCHIVE_MD5", md5(archive.getvalue()).hexdigest())
    sources = {name: (f"{server.address}/gone", server.address) for name in images.SOURCES}
    monkeypatch.setattr(images, "SOURCES", sources)
    return server


def test_both_sets_are_fetched_from_the_sources_and_unpacked(release, few_images, tmp_path):
    for read in (images.read_mnist, images.read_cifar10):
        release.asked.clear()
        with ThreadPoolExecutor(4) as pool:  # whoever comes while it is fetched waits for it
            read_at_once = list(pool.map(read, [tmp_path] * 4))
        (expected, _), (tested, _) = read(few_images)
        for (training, _), (test, _) in read_at_once:
            assert training.equal(expected) and test.equal(tested)
        served = [path for path, _ in release.asked if path in release.files]
        assert len(served) == len(set(served)) > 0
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == {*images.MNIST_MD5, *images.CIFAR10_MD5, ".lock"}


class Killed(BaseException):
    """What ends a process in this test as kill -9 does: nothing catches it."""


def test_a_release_whose_unpacking_was_killed_anywhere_is_unpacked_again(
    release, few_images, tmp_path
):
    (expected, _), _ = images.read_cifar10(few_images)
    read = gzip.GzipFile.read
    for after in count():
        reads = count()

        def read_or_die(file, size=-1, reads=reads, after=after):
            if next(reads) == after:
                raise Killed
            return read(file, size)

        root = tmp_path / str(after)
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            patch.setattr(gzip.GzipFile, "read", read_or_die)
            images.read_cifar10(root)
        (training, _), _ = images.read_cifar10(root)
        assert training.equal(expected)
        if next(reads) <= after:
            break  # this one was not killed
    assert after > len(images.CIFAR10_MD5)
