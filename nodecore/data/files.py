"""Files that are written whole or not at all."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]  # the folder that holds nodecore


class StoreError(OSError):
    """Failure to write to a place; the message names it and what to do."""

    def __init__(self, path: Path, why: str | None):
        super().__init__(
            f"{path} cannot be written: {why}. Make room or make it writable, or have results "
            "written elsewhere (NODECORE_RESULTS), and run the study again; what is finished stays"
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a crash leaves the old file or the new one, never a part.

    Raises:
        StoreError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(path, error.strerror) from error
    finally:
        temporary.unlink(missing_ok=True)
