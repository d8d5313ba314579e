"""What a release says of who answers is read from its own file (more in test_exporting.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokka.candidates.released import open_released, served_of
from tokka.errors import IntegrityError
from tokka.records import Arm, Candidate
from tokka.store import write_json


def test_who_answers_is_the_served_candidate(tmp_path: Path) -> None:
    served = Candidate(id="s", arm=Arm(name="rag"), base_model="m", base_digest="d")
    write_json(tmp_path / "release.json", {"served": served.model_dump(mode="json")})
    assert served_of(tmp_path) == served


@pytest.mark.parametrize("told", [{}, [], {"served": None}, {"served": {"id": "s", "x": 1}}])
def test_a_file_that_names_nobody_is_refused(told: object, tmp_path: Path) -> None:
    write_json(tmp_path / "release.json", told)
    with pytest.raises(IntegrityError, match="names no candidate that answers"):
        served_of(tmp_path)


def test_a_part_that_the_folder_lacks_is_never_taken_from_elsewhere(tmp_path: Path) -> None:
    served = Candidate(
        id="s", arm=Arm(name="rag"), base_model="m", base_digest="d",
        artifacts={"weights": "export-1@00"},
    )  # fmt: skip
    write_json(tmp_path / "release.json", {"served": served.model_dump(mode="json")})

    def unasked(*_: object) -> None:
        raise AssertionError("nothing is opened")

    with pytest.raises(IntegrityError, match=f"weights in {tmp_path}/workspace/steps/export-1 is"):
        open_released(tmp_path, open_model=unasked, open_embedder=unasked)  # type: ignore[arg-type]
