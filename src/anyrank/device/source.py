"""The CUDA C of a `gpu.cu` as one text, with its included files inlined."""

from __future__ import annotations

import re
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*$', re.MULTILINE)


def inline_includes(source: Path, inlined: set[Path] | None = None) -> str:
    """Return the text of a source with each file that it includes in quotes, once, and `#line` directives.

    The cache of CUDA's compiler uses the text as its key, so that a changed header must change the text. File names
    are relative to the including file. Raises OSError if there is no such file.
    """
    inlined = {source.resolve()} if inlined is None else inlined
    text = f'#line 1 "{source}"\n{source.read_text(encoding="utf-8")}'

    def content(match: re.Match[str]) -> str:
        path = (source.parent / match[1]).resolve()
        if path in inlined:
            return ""
        inlined.add(path)
        return f'{inline_includes(path, inlined)}\n#line {text.count(chr(10), 0, match.end()) + 1} "{source}"'

    return _INCLUDE.sub(content, text)
