"""Pages that are pictures → text, by the program tesseract.

It is called as a program, not through a binding: a picture that breaks it costs one page.

>>> read_page(page, file)
'融資規程\\n第1条 …'
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from typing import Any

from tokka.corpus.limits import File
from tokka.errors import ItemError, MissingExtra

HOW = "apt install tesseract-ocr tesseract-ocr-jpn, or brew install tesseract tesseract-lang"
_DOTS_PER_INCH = 300
_MOST_PIXELS = 40_000_000
_LANGUAGES = {"ja": ("jpn", "eng"), "en": ("eng",)}
_CJK = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
_SPACE = re.compile(f"(?<=[{_CJK}]) +(?=[{_CJK}])")


def read_page(page: Any, file: File) -> str:
    """The text of a rendered page, "" where none is recognised; lines end where printed ones do.

    Raises MissingExtra where tesseract or the language's data is absent, ItemError where it fails
    or takes longer than `seconds_per_file`.
    """
    wanted = _LANGUAGES.get(file.language, ("jpn", "eng"))
    program, there = _tesseract()
    missing = [language for language in wanted if language not in there]
    if missing and (file.language or missing == list(wanted)):
        raise MissingExtra(f"ocr: tesseract has no data for {' and '.join(missing)}; {HOW}")
    languages = "+".join(language for language in wanted if language in there)
    file.watch.alive()
    try:
        done = subprocess.run(
            [program, "stdin", "stdout", "-l", languages, "--dpi", str(_DOTS_PER_INCH)],
            input=_grey_picture(page),
            capture_output=True,
            timeout=file.settings.seconds_per_file,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},  # files already share the processors
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ItemError(
            f"ocr: a page of {file.id} takes longer than {file.settings.seconds_per_file:g} "
            "seconds; scan it again at 300 dpi or list it under skip"
        ) from error
    if done.returncode:
        raise ItemError(
            f"ocr: tesseract ends with status {done.returncode} on a page of {file.id}; "
            "scan it again or list it under skip"
        )
    text = done.stdout.decode("utf-8", "replace").replace("\f", "")
    lines = (_SPACE.sub("", line).strip() for line in text.splitlines())
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


@functools.cache
def _tesseract() -> tuple[str, frozenset[str]]:
    """The program and the languages it has."""
    program = shutil.which("tesseract")
    if program is None:
        raise MissingExtra(f"ocr: the program tesseract is not installed; {HOW}")
    listed = subprocess.run([program, "--list-langs"], capture_output=True, text=True, check=False)
    return program, frozenset((listed.stdout + listed.stderr).split()[1:])


def _grey_picture(page: Any) -> bytes:
    """The page as a portable grey map, a format that needs no library to be written."""
    scale = _DOTS_PER_INCH / 72
    width, height = page.get_size()
    scale = min(scale, (_MOST_PIXELS / max(width * height, 1.0)) ** 0.5)
    bitmap = page.render(scale=scale, grayscale=True)
    rows = bitmap.to_numpy().reshape(bitmap.height, bitmap.width, -1)[:, :, 0]
    pixels: bytes = rows.tobytes()
    return b"P5 %d %d 255\n" % (bitmap.width, bitmap.height) + pixels
