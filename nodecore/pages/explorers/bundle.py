"""Join many ES modules into one: their sources in turn, without the imports and exports.

A page opened from the disk cannot import modules, and JupyterLab takes a widget as one module. All
sources then share one scope; a name declared twice is a syntax error in the browser.
"""

import json
import posixpath
import re
from functools import cache
from pathlib import Path

from nodecore.pages.explorers.constants import constants_module

SOURCES = Path(__file__).parent / "js"
# import { a, b } from "./c.js";  or  import TEXT from "../d.css" with { type: "text" };
IMPORT = re.compile(
    r"^import (?:\{[^}]*\} from \"(?P<module>\.[\w./]+)\""
    r"|(?P<name>\w+) from \"(?P<text>\.[\w./]+)\" with \{ type: \"text\" \});\n",
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


def read_source(name: str) -> str:
    """A file of `js/`, or the constants that come from Python."""
    return constants_module() if name == "constants.js" else (SOURCES / name).read_text()


def _collect(name, parts):
    """Add the module and, before it, what it imports, each once."""
    if name in parts:
        return
    source = read_source(name)
    for found in IMPORT.finditer(source):
        target = posixpath.join(posixpath.dirname(name), found["module"] or found["text"])
        target = posixpath.normpath(target)
        if found["module"]:
            _collect(target, parts)
        else:
            content = bundle(target) if target.endswith(".js") else read_source(target)
            parts[target] = f"const {found['name']} = {json.dumps(content)};\n"
    parts[name] = EXPORT.sub("", IMPORT.sub("", source))
