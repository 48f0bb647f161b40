"""Many ES modules -> one: the sources one after the other, without what ties them together.

A browser imports nothing from a page opened from the disk, and JupyterLab takes a widget as one
module. All modules share one scope then; a name declared twice is a syntax error in the browser.
"""

import json
import re
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "js"
# import { a, b } from "./c.js";  or  import TEXT from "./d.css" with { type: "text" };
IMPORT = re.compile(
    r"^import (?:\{[^}]*\} from \"\./(?P<module>[\w.]+)\""
    r"|(?P<name>\w+) from \"\./(?P<text>[\w.]+)\" with \{ type: \"text\" \});\n",
    re.MULTILINE,
)
EXPORT = re.compile(r"^export (?=const|let|function|async|class)", re.MULTILINE)


@cache
def bundle(name: str) -> str:
    """The module `js/<name>` with all that it imports, as the source of one self-contained module.

    What is imported as text becomes a string; a script (such as a worker's) is bundled first.
    """
    parts: dict[str, str] = {}
    _collect(name, parts)
    return "\n".join(parts.values())


def _collect(name, parts):
    """Add the module and, before it, what it imports, each once."""
    if name in parts:
        return
    source = (SOURCES / name).read_text()
    for found in IMPORT.finditer(source):
        if found["module"]:
            _collect(found["module"], parts)
        else:
            text = found["text"]
            content = bundle(text) if text.endswith(".js") else (SOURCES / text).read_text()
            parts[text] = f"const {found['name']} = {json.dumps(content)};\n"
    parts[name] = EXPORT.sub("", IMPORT.sub("", source))
