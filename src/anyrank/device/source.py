"""CUDA C as one text: what a `gpu.cu` includes is put in its place."""

from __future__ import annotations

import re
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"[^\n]*$', re.MULTILINE)


def flattened(source: Path, taken: set[Path] | None = None) -> str:
    """The text of a source with every file that it includes in quotes, each once, and the lines' true numbers.

    CUDA's compiler keeps what it has compiled by its text: a header that changes must change the text.
    Names are relative to the file that has them. Raises OSError where there is no such file.
    """
    taken = {source.resolve()} if taken is None else taken
    text = f'#line 1 "{source}"\n{source.read_text(encoding="utf-8")}'

    def content(match: re.Match[str]) -> str:
        path = (source.parent / match[1]).resolve()
        if path in taken:
            return ""
        taken.add(path)
        return f'{flattened(path, taken)}\n#line {text.count(chr(10), 0, match.end()) + 1} "{source}"'

    return _INCLUDE.sub(content, text)
