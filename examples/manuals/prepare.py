"""Turn the Debian manuals into a tokka project: files of an office, and an exam on them.

    python examples/manuals/prepare.py --data FOLDER --out manuals
    tokka check manuals

FOLDER holds the publishers' texts (README.md says where to get them). Written under --out:
documents/ (Markdown, HTML, text in UTF-8 and EUC-JP, a zip of old copies), exam/, licences/ and
tokka.yaml. Only the standard library is needed, and two runs give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import SOURCES, Page, read_pages
from questions import exam_rows

HERE = Path(__file__).resolve().parent
RETENTION = HERE.parent / "aoba" / "exam" / "retention.jsonl"
COPIES = "old-copies/manuals.zip"
NOTE = "\n\n（旧サーバーから移した写し。最新の版は共有フォルダーを見ること。）\n"
EUC_JP = "manpages/man8/"  # pages of this folder keep the encoding that they once had
NOTED = 3  # one copy in three has the note

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare the manuals project.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the publishers' texts")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--documents", type=int, help="keep this many pages, of every manual some")
    options = parser.parse_args()
    if options.documents is not None and options.documents < 1:
        raise SystemExit(f"prepare: --documents must be at least 1, got {options.documents}")
    for line in prepare(options.data, options.out, options.documents):
        print(line)


def prepare(data: Path, out: Path, documents: int | None = None) -> list[str]:
    """Write the project under `out`; returns what was counted, in sentences."""
    pages = read_pages({name: _rows(data / f"{name}.jsonl.gz") for name in SOURCES})
    if documents is not None:
        pages = spread(pages, documents)
    if (out / "documents").exists() and not (out / "licences" / f"{SOURCES[0]}.copyright").exists():
        raise SystemExit(f"prepare: {out / 'documents'} isn't mine; give another folder as --out")
    licences = {name: _text(data / f"{name}.copyright") for name in SOURCES}
    for name, text in licences.items():
        _write(out / "licences" / f"{name}.copyright", text.encode())
    shutil.rmtree(out / "documents", ignore_errors=True)
    for page in pages:
        _write(out / "documents" / page.id, encoded(page))
    copied = list(copies(pages))
    if copied:
        _zip(out / "documents" / COPIES, copied)
    for path, text in sidecars(licences, {page.id.split("/")[0] for page in pages}):
        _write(out / "documents" / path, text.encode())

    domain = exam_rows(pages)
    _write(out / "exam/domain.jsonl", _lines(domain))
    _write(out / "exam/retention.jsonl", _text(RETENTION).encode())
    if out.resolve() != HERE:
        _write(out / "tokka.yaml", (HERE / "tokka.yaml").read_bytes())
    characters = sum(len(page.text) for page in pages)
    more = sum(len(text) for _, text in copied)
    unanswerable = sum(1 for row in domain if row.get("unanswerable"))
    return [
        f"documents: {len(pages):,} pages, {characters:,} characters; "
        f"{len(copied):,} copies in {COPIES}, {more:,} characters",
        f"exam/domain.jsonl: {len(domain)} questions in "
        f"{len({row.get('cluster_id', row['id']) for row in domain})} clusters, "
        f"{unanswerable} of them unanswerable",
    ]


def spread(pages: Sequence[Page], documents: int) -> list[Page]:
    """So many pages at even distances."""
    step = max(1.0, len(pages) / documents)
    places = sorted({int(number * step) for number in range(documents)})
    return [pages[place] for place in places if place < len(pages)]


def encoded(page: Page) -> bytes:
    if page.id.startswith(EUC_JP):
        try:
            return page.written.encode("euc_jp")
        except UnicodeEncodeError:
            pass  # a sign that EUC-JP lacks
    return page.written.encode()


def copies(pages: Iterable[Page]) -> Iterator[tuple[str, str]]:
    """(name, text) of what stands in the archive of a former server: every manual page once more,
    one in three with a note below it, and the Japanese Debian Reference as plain text."""
    for number, page in enumerate(p for p in pages if p.manual == "manpages-ja"):
        yield page.id, page.text + (NOTE if number % NOTED == 0 else "")
    for page in pages:
        if page.manual == "debian-reference-ja":
            yield page.id.removesuffix(".md") + ".txt", page.text


def sidecars(licences: Mapping[str, str], folders: set[str]) -> Iterator[tuple[str, str]]:
    """Licences of whole folders. Those of the other two folders are rules in tokka.yaml."""
    for name, folder in (("manpages-ja", "manpages"), ("debian-reference-ja", "debian-reference")):
        if folder in folders:
            said = re.search(r"(?m)^License: (\S+)", licences[name])
            licence = said[1] if said else f"each page its own; see licences/{name}.copyright"
            text = f"licence: {json.dumps(licence)}\nmetadata: {{manual: {folder}}}\n"
            yield f"{folder}/_folder.tokka.yaml", text


def _rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in _text(path).split("\n") if line.strip()]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SystemExit(
            f"prepare: can't read {path} ({error.strerror}); README.md says where to get it"
        ) from error
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _zip(path: Path, members: Iterable[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members:
            member = zipfile.ZipInfo(name, date_time=(2026, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, text)


if __name__ == "__main__":
    main()
