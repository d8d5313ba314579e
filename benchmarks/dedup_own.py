"""tokka finds duplicates in a stream of documents, as `tokka run` would: a contestant.

Job: `documents` (a JSONL file of id and text), `threshold`. Reading the file is not counted.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from measuring import Facts, contestant, timed

from tokka.corpus.duplicates import Duplicate, Duplicates, in_batches
from tokka.corpus.shingles import shingles


def work(job: Facts) -> Facts:
    with Path(job["documents"]).open(encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    items = [(one["id"], one["text"], "") for one in documents]
    with Duplicates(job["threshold"], keep_versions=False) as seen:

        def find() -> list[Duplicate | None]:
            return [one for batch in in_batches(items, _length) for one in seen.add_all(batch)]

        shingles(["読み始める前に表を作る"])  # as every peer has imported its libraries
        used = time.process_time()
        measured = timed(find)
        used = time.process_time() - used
        memory, kept, disk = seen.memory_bytes, len(seen), seen.file_bytes
    found = [item[0] for item, one in zip(items, measured.value, strict=True) if one]
    way = {"seconds": measured.seconds, "cpu_seconds": used, "duplicates": found}
    return {
        "runs": {"tokka": way},
        "peak_bytes": measured.peak_bytes,
        "memory_bytes": memory,
        "file_bytes": disk,
        "kept": kept,
    }


def _length(item: tuple[str, str, str]) -> int:
    return len(item[1])


if __name__ == "__main__":
    contestant(work)
