"""Documents in a stream → which of them an earlier one already says, word for word or nearly.

Exact: the same text after NFKC and white space. Near: the Jaccard similarity of the sets of
shingles is at least `threshold`. Candidates come from MinHash and LSH (Broder 1997; Leskovec et
al., Mining of Massive Datasets, chapter 3) and each is then compared shingle by shingle, so none is
near by estimate alone. A document that is left out has a *kept* one that it is a duplicate of:
chains of ever less similar documents don't carry each other away. Where a number differs, it is
another version, such as the next year's price list: that is said, and both are kept.

    for document, duplicate in distinct(documents, threshold=0.9, folder=workspace):
        leave_out = duplicate is not None and duplicate.same_numbers

What is kept of a document: about 300 bytes in memory and its shingles, 4 bytes for each, in a
temporary file.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from tokka.corpus.shingles import Hashes, Shingles, shingles
from tokka.errors import IntegrityError, UsageError
from tokka.extras import require
from tokka.records import Document

PERMUTATIONS = 128
_SEED = 42
_MISSED = 5e-4  # at most, of pairs that are exactly as similar as the threshold
_BATCH_CHARACTERS = 1 << 17  # shingled in one go
_BATCH_DOCUMENTS = 512
_LONGEST = 10_000_000  # characters: a longer text is compared for equality only
_SLICE = 1 << 20
_MOST_CANDIDATES = 64  # compared shingle by shingle, the likeliest first
_MOST_SHARING = 64  # of a key: thousands of filled-in forms are compared with the first of them
_RECENT = 8192  # documents whose keys are in a dict before they are sorted into arrays
_ORDINAL_BITS = 26  # 67 million documents; the other 38 bits are of the key

T = TypeVar("T")
Kind = Literal["exact", "near"]
Item = tuple[str, str, str]  # id, text, among


@dataclass(frozen=True, slots=True)
class Duplicate:
    """`of` is the id of the earlier document, `similarity` the Jaccard similarity of shingles (1
    where exact). `same_numbers` False: a figure, date or article number differs, however alike the
    rest is."""

    of: str
    similarity: float
    kind: Kind
    same_numbers: bool


def distinct(
    documents: Iterable[Document], threshold: float | None = 0.9, folder: Path | None = None
) -> Iterator[tuple[Document, Duplicate | None]]:
    """Each document in its order, with the earlier one that it is a duplicate of.

    Documents with other access labels or another time of validity are no duplicates of each other:
    leaving one out would take it from those who may see only that one, or change what held when.
    Reads ahead by at most 512 documents. Raises as `Duplicates` does.
    """
    with closing(Duplicates(threshold, folder)) as seen:
        for batch in in_batches(documents, lambda document: len(document.text)):
            items = [(document.id, document.text, _among(document)) for document in batch]
            yield from zip(batch, seen.add_all(items), strict=True)


def _among(document: Document) -> str:
    return repr((sorted(document.access), document.valid_from, document.valid_to))


def in_batches(items: Iterable[T], length: Callable[[T], int]) -> Iterator[list[T]]:
    """As many as are well worked on at once: 512, or fewer of together 131,072 characters."""
    batch: list[T] = []
    characters = 0
    for item in items:
        characters += length(item)
        if batch and (characters > _BATCH_CHARACTERS or len(batch) == _BATCH_DOCUMENTS):
            yield batch
            batch, characters = [], length(item)
        batch.append(item)
    if batch:
        yield batch


class Duplicates:
    """The documents kept so far. Has to be closed, which removes its temporary file.

    `threshold` in (0, 1], None for exact duplicates only. The file lies in `folder`, by default
    where the system keeps temporary files. Without `keep_versions` numbers count as any other word.
    Raises UsageError for another threshold, MissingExtra
    where rensa is absent, IntegrityError where the file can't be written.
    """

    def __init__(
        self,
        threshold: float | None = 0.9,
        folder: Path | None = None,
        *,
        keep_versions: bool = True,
    ) -> None:
        if threshold is not None and not 0 < threshold <= 1:
            raise UsageError(f"near_duplicates must be > 0 and <= 1, got {threshold}")
        self._threshold = threshold
        self._keep_versions = keep_versions
        self._rows = 0 if threshold is None else _rows(threshold)
        self._minhash: Any = None if threshold is None else require("rensa", extra="read").RMinHash
        self._postings = _Postings()
        self._signatures = _Column(np.uint8, PERMUTATIONS if self._rows else 0)
        self._digests = _Column(np.uint64, 2)
        self._numbers = _Column(np.uint64)
        self._places = _Column(np.int64)  # in the file: id, then shingles
        self._kept = _Kept(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._kept.close()

    def __len__(self) -> int:
        """How many distinct documents there are."""
        return len(self._places)

    @property
    def memory_bytes(self) -> int:
        columns = (self._signatures, self._digests, self._numbers, self._places)
        return sum(column.nbytes for column in columns) + self._postings.nbytes

    @property
    def file_bytes(self) -> int:
        return self._kept.length

    def add(self, document_id: str, text: str, among: str = "") -> Duplicate | None:
        """What this text is a duplicate of. One without, or with other numbers than that, is kept
        to compare later ones with. Only texts with the same `among` are compared."""
        return self.add_all([(document_id, text, among)])[0]

    def add_all(self, items: Sequence[Item]) -> list[Duplicate | None]:
        """`add` for several at once, which is faster; each is also compared with those before it
        in `items`. `in_batches` makes a good number of them."""
        read = _read([text for _, text, _ in items])
        signatures = self._signed(read)
        keys = self._keys(read, signatures, [among for _, _, among in items])
        found = self._postings.sorted_candidates(keys)
        rows = read.rows()
        return [
            self._one(item[0], rows[at], read, at, signatures[at], keys[at], found[at])
            for at, item in enumerate(items)
        ]

    def _one(
        self,
        document_id: str,
        row: Hashes,
        read: Shingles,
        at: int,
        signature: npt.NDArray[np.uint32],
        keys: Hashes,
        found: set[int],
    ) -> Duplicate | None:
        listed = keys.tolist() if len(row) else keys[:1].tolist()
        found |= self._postings.recent_candidates(listed)
        low_bits = signature.astype(np.uint8)
        shingle_set = (row >> np.uint64(32)).astype(np.uint32)
        duplicate = None
        if found:
            duplicate = self._match(sorted(found), shingle_set, read, at, low_bits)
            if duplicate and (duplicate.same_numbers or not self._keep_versions):
                return duplicate
        ordinal = len(self._places)
        if ordinal >> _ORDINAL_BITS:
            raise UsageError(
                f"duplicates: more than {ordinal:,} documents; set near_duplicates for parts of "
                "the corpus"
            )
        self._places.append(self._kept.write(document_id, shingle_set))
        self._digests.append(read.digests[at])
        self._numbers.append(read.numbers[at])
        if self._rows:
            self._signatures.append(low_bits)
        self._postings.add(listed, ordinal)
        return duplicate

    def _match(
        self,
        candidates: list[int],
        row: npt.NDArray[np.uint32],
        read: Shingles,
        at: int,
        signature: npt.NDArray[np.uint8],
    ) -> Duplicate | None:
        ordinals = np.array(candidates)
        equal = np.flatnonzero((self._digests.rows[ordinals] == read.digests[at]).all(axis=1))
        if len(equal):
            of, _ = self._kept.read(int(self._places.rows[ordinals[equal[0]]]))
            return Duplicate(of, 1.0, "exact", True)
        if self._threshold is None or not len(row):
            return None
        alike = (self._signatures.rows[ordinals] == signature).mean(axis=1)
        # Estimates err by √(t(1-t)/128); four times that is beyond it once in 30,000.
        lowest = self._threshold - 4 * np.sqrt(
            self._threshold * (1 - self._threshold) / PERMUTATIONS
        )
        order = np.lexsort((ordinals, -alike))[:_MOST_CANDIDATES]
        own = _set(row)
        version: Duplicate | None = None
        for place in order[alike[order] >= lowest]:
            ordinal = int(ordinals[place])
            of, other = self._kept.read(int(self._places.rows[ordinal]))
            similarity = _jaccard(own, _set(other))
            if similarity >= self._threshold:
                same = bool(self._numbers.rows[ordinal] == read.numbers[at])
                duplicate = Duplicate(of, similarity, "near", same)
                if same or not self._keep_versions:
                    return duplicate
                version = version or duplicate
        return version

    def _signed(self, read: Shingles) -> npt.NDArray[np.uint32]:
        """MinHash signatures, shape (texts, 128); none where only equality counts."""
        if self._minhash is None or not len(read.hashes):
            return np.zeros((len(read.digests), 0 if not self._rows else PERMUTATIONS), np.uint32)
        matrix = self._minhash.digest_matrix_from_flat_token_hashes(
            read.hashes, read.offsets.astype(np.uint64), PERMUTATIONS, _SEED
        )
        return np.array(matrix.to_rows(), dtype=np.uint32)

    def _keys(
        self, read: Shingles, signatures: npt.NDArray[np.uint32], among: Sequence[str]
    ) -> Hashes:
        """One key for equality and one for each band, shape (texts, 1 + bands)."""
        bands = PERMUTATIONS // self._rows if self._rows else 0
        keys = np.empty((len(among), 1 + bands), dtype=np.uint64)
        keys[:, 0] = read.digests[:, 0]
        if bands:
            used = signatures[:, : bands * self._rows].reshape(len(among), bands, self._rows)
            odd = np.uint64(0x9E3779B97F4A7C15) * np.arange(1, 2 * bands, 2, dtype=np.uint64)
            sums = np.zeros((len(among), bands), dtype=np.uint64)
            for column in range(self._rows):
                sums = (sums + used[:, :, column]) * odd
                sums ^= sums >> np.uint64(29)
            keys[:, 1:] = sums
        salts = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in among]
        keys ^= np.frombuffer(b"".join(salts), dtype="<u8")[:, None]
        return keys >> np.uint64(_ORDINAL_BITS) << np.uint64(_ORDINAL_BITS)


def _rows(threshold: float) -> int:
    """The most hashes a band can have, of 128, that still misses at most `_MISSED`: 1 - (1 - t^r)^b
    of the pairs at the threshold t share one of b bands of r."""
    for rows in range(PERMUTATIONS, 1, -1):
        if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= _MISSED:
            return rows
    return 1


def _set(row: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Sorted, each once; numpy.unique takes four times as long."""
    ordered = np.sort(row)
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return np.asarray(ordered[first])


def _jaccard(one: npt.NDArray[np.uint32], other: npt.NDArray[np.uint32]) -> float:
    """Of two sorted sets."""
    both = np.concatenate([one, other])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def _read(texts: list[str]) -> Shingles:
    """Shingles of all; a text over the limit has a digest only, made slice by slice."""
    read = shingles(["" if len(text) > _LONGEST else text for text in texts])
    for at, text in enumerate(texts):
        if len(text) > _LONGEST:
            whole = hashlib.blake2b(digest_size=16)
            for start in range(0, len(text), _SLICE):
                whole.update(shingles([text[start : start + _SLICE]]).digests.tobytes())
            read.digests[at] = np.frombuffer(whole.digest(), dtype="<u8")
    return read


class _Postings:
    """Key → ordinals of documents. Recent ones in a dict, the others in sorted arrays whose
    lengths at least double, so that each entry is sorted a few times only: 8 bytes for each."""

    def __init__(self) -> None:
        self._recent: dict[int, list[int]] = {}
        self._documents = 0
        self._sorted: list[Hashes] = []

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._sorted)

    def add(self, keys: list[int], ordinal: int) -> None:
        for key in keys:
            sharing = self._recent.setdefault(key, [])
            if len(sharing) < _MOST_SHARING:
                sharing.append(ordinal)
        self._documents += 1

    def recent_candidates(self, keys: list[int]) -> set[int]:
        found: set[int] = set()
        for key in keys:
            if key in self._recent:
                found.update(self._recent[key])
        return found

    def sorted_candidates(self, keys: Hashes) -> list[set[int]]:
        """For each row of keys; what is added from now on is found by `recent_candidates`."""
        if self._documents >= _RECENT:
            self._sort()
        found: list[set[int]] = [set() for _ in keys]
        last = np.uint64((1 << _ORDINAL_BITS) - 1)
        for array in self._sorted:
            begins = np.searchsorted(array, keys)
            ends = np.searchsorted(array, keys | last, side="right")
            ends = np.minimum(ends, begins + _MOST_SHARING)
            for row, column in np.argwhere(ends > begins):
                some = array[begins[row, column] : ends[row, column]] & last
                found[row].update(some.tolist())
        return found

    def _sort(self) -> None:
        entries = (key | ordinal for key, all_of in self._recent.items() for ordinal in all_of)
        array = np.fromiter(entries, dtype=np.uint64)
        array.sort()
        while self._sorted and len(self._sorted[-1]) < 2 * len(array):
            array = np.concatenate([self._sorted.pop(), array])
            array.sort()
        self._sorted.append(array)
        self._recent = {}
        self._documents = 0


class _Column:
    """Rows of numbers that grow by half."""

    def __init__(self, dtype: npt.DTypeLike, width: int | None = None) -> None:
        shape = (1024,) if width is None else (1024, width)
        self._array = np.empty(shape, dtype=dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> npt.NDArray[Any]:
        return self._array[: self._length]

    @property
    def nbytes(self) -> int:
        return self._array.nbytes

    def append(self, row: Any) -> None:
        if self._length == len(self._array):
            wider = np.empty((self._length * 3 // 2, *self._array.shape[1:]), self._array.dtype)
            wider[: self._length] = self._array
            self._array = wider
        self._array[self._length] = row
        self._length += 1


class _Kept:
    """A file of what is needed only for candidates: ids and shingles."""

    def __init__(self, folder: Path | None) -> None:
        try:
            # Without a name where the system can: nothing stays behind after a kill.
            self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115
                prefix="tokka-", dir=folder
            )
        except OSError as error:
            raise IntegrityError(
                f"duplicates: no temporary file in {folder or tempfile.gettempdir()} ({error}); "
                "make the folder or check its permissions"
            ) from error
        self._end = 0
        self._at_end = True

    def close(self) -> None:
        self._file.close()

    @property
    def length(self) -> int:
        return self._end

    def write(self, document_id: str, row: npt.NDArray[np.uint32]) -> int:
        """Where it stands in the file."""
        name = document_id.encode("utf-8", "surrogatepass")
        sizes = np.array([len(name), len(row)], dtype="<u4").tobytes()
        place = self._end
        try:
            if not self._at_end:
                self._file.seek(place)
            self._file.write(b"".join([sizes, name, row.astype("<u4", copy=False).tobytes()]))
        except OSError as error:
            raise IntegrityError(
                f"duplicates: the shingles of {place >> 20} MiB can't be written ({error}); free "
                "space where temporary files lie"
            ) from error
        self._at_end = True
        self._end += len(sizes) + len(name) + 4 * len(row)
        return place

    def read(self, place: int) -> tuple[str, npt.NDArray[np.uint32]]:
        self._file.seek(place)
        self._at_end = False
        name, count = np.frombuffer(self._file.read(8), dtype="<u4").tolist()
        written = self._file.read(name + 4 * count)
        return written[:name].decode("utf-8", "surrogatepass"), np.frombuffer(
            written, dtype="<u4", offset=name
        )
