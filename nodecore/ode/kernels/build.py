"""Compiles the kernel once per machine, keeps it in the user's cache, loads it once per process."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("cpp") / "fused.cpp"  # includes its neighbours
ARM = platform.machine() in ("arm64", "aarch64")  # where clang does not know -march=native
FLAGS = ("-O3", "-mcpu=native" if ARM else "-march=native", "-std=c++17", "-fPIC", "-shared")
THREADS = ("-fopenmp",)  # left out where the compiler has none: one thread then
COMPILERS = ("c++", "g++", "clang++")


class Unavailable(Exception):
    """The kernel cannot be used here; the message says why in one line."""


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded kernel library. Raises Unavailable."""
    compiler = _compiler()
    path = _cache_folder() / f"fused-{_fingerprint(compiler)}.so"
    if not _intact(path):
        print("compiling the kernel (once, about 15 s)", file=sys.stderr, flush=True)
        _build(compiler, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"the compiled library does not load ({error})") from error


def _compiler() -> list[str]:
    """The command of the system's C++ compiler: $CXX, or the first one on the PATH."""
    wanted = shlex.split(os.environ.get("CXX", ""))
    for command in [wanted] if wanted else [[name] for name in COMPILERS]:
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    names = wanted[0] if wanted else ", ".join(COMPILERS)
    raise Unavailable(f"no C++ compiler on the PATH (looked for {names})")


def _cache_folder() -> Path:
    """The user's private cache folder for compiled kernels, created if need be."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "nodecore" / "kernels"  # images beside it may be shared
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(folder)
        folder.chmod(0o700)
    except OSError as error:
        raise Unavailable(f"the cache folder {folder} cannot be used ({error})") from error
    return folder


def _check_private(path: Path) -> None:
    """Raise Unavailable for what others may have written; OSError where there is nothing."""
    status = path.stat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise Unavailable(f"{path} belongs to another user; delete it, or set XDG_CACHE_HOME")
    if status.st_mode & 0o022:
        raise Unavailable(f"{path} can be written by others; delete it, it is made anew")


def _fingerprint(compiler: list[str]) -> str:
    """Names one build: the same source, flags, compiler and processor give the same name."""
    version = _run([*compiler, "--version"]).stdout
    sources = [path.read_text() for path in sorted(SOURCE.parent.iterdir())]
    parts = (*sources, " ".join([*compiler, *FLAGS, *THREADS]), version, _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _processor() -> str:
    """What `native` stands for: the architecture and the processor's feature flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = ("flags", "Features", "model name")
    features = [next((line for line in lines if line.startswith(name)), "") for name in named]
    return "\n".join([platform.machine(), platform.processor(), *features])


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _intact(path: Path) -> bool:
    """Whether the cached library is the one that was written, byte for byte. Raises Unavailable."""
    try:
        for file in (path, _digest_file(path)):
            _check_private(file)
        expected = _digest_file(path).read_text().strip()
        return hashlib.sha256(path.read_bytes()).hexdigest() == expected
    except OSError:
        return False


def _build(compiler: list[str], path: Path) -> None:
    """Compile to temporary names and rename, so that several processes may build at once."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        library = Path(folder, path.name)
        command = [*compiler, *FLAGS, str(SOURCE), "-o", str(library)]
        result = _run([*command, *THREADS])
        if result.returncode:
            result = _run(command)
        if result.returncode or not library.exists():
            errors = [line for line in result.stderr.splitlines() if "error" in line]
            detail = (errors or result.stderr.splitlines() or ["no message"])[0]
            raise Unavailable(f"{compiler[0]} failed: {detail.strip()}")
        digest = _digest_file(library)
        digest.write_text(hashlib.sha256(library.read_bytes()).hexdigest() + "\n")
        for file in (library, digest):
            file.chmod(0o700)  # whatever the umask is
        os.replace(library, path)
        os.replace(digest, _digest_file(path))


def _run(command: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} cannot be run ({error})") from error
