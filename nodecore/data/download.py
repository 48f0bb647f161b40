"""Files from the network: tried again, resumed where they were cut, checked before use."""

import hashlib
import time
import urllib.request
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

ATTEMPTS = 3  # at each source
WAIT = 1.0  # seconds before the second attempt, twice as many before the third
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 2**18
# Refusals (4xx) that pass with time; any other one would come again.
TEMPORARY = HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS


def download(sources: Sequence[str], path: Path, md5: str) -> None:
    """Download the file with this MD5 from the first source that delivers it, unless it exists.

    Partial data is kept in a .part file beside it and resumed by the next attempt, even on another
    day.

    Raises:
        OSError: No source gives the file; the message says for each of them why.
    """
    if path.exists() and md5_of(path) == md5:
        return
    part, whys = path.with_name(f"{path.name}.part"), {}
    for source in sources:
        for attempt in range(ATTEMPTS):
            time.sleep(attempt * WAIT)
            try:
                _append(source, part)
            except HTTPError as error:
                whys[source] = error
                if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in TEMPORARY:
                    break
                continue
            except (OSError, HTTPException) as error:
                whys[source] = error
                continue
            if md5_of(part) == md5:
                part.replace(path)
                return
            whys[source] = "another file than the one that was released (its checksum differs)"
            part.unlink()
    raise OSError("; ".join(f"{source}: {why}" for source, why in whys.items()))


def _append(source, part):
    """Write what `part` lacks behind it, or all of it where the server does not resume."""
    from tqdm import tqdm

    there = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    request = urllib.request.Request(source, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if there and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is lacking
        raise
    with answer:
        there = there if answer.status == HTTPStatus.PARTIAL_CONTENT else 0
        total = there + int(answer.headers.get("Content-Length") or 0)
        with (
            open(part, "ab" if there else "wb") as file,
            tqdm(total=total, initial=there, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while block := answer.read(BLOCK):
                bar.update(file.write(block))
    if part.stat().st_size < total:
        raise OSError(f"the connection ended after {part.stat().st_size} of {total} bytes")


def md5_of(path: Path) -> str:
    """The MD5 of a file, hexadecimal. OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
