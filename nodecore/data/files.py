"""Files that are written whole or not at all."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]  # the folder that holds nodecore


class WriteError(OSError):
    """Failure to write to a place; the message names it and what to do, or what else to do."""

    def __init__(self, path: Path, why: str | None, instead: str = ""):
        super().__init__(
            f"{path} cannot be written: {why}. Make room or make it writable{instead}, and begin "
            "again; what is finished stays"
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a crash leaves the old file or the new one, never a part.

    Raises:
        WriteError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(path, error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)
