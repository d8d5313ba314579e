"""IgakuQA by its own rules: the Japanese medical licensing examination, scored without a model.

    problems = read_problems(Source("IgakuQA", url, folder))
    marks = mark(problems, read_predictions(Path("baseline_results"), problems, "gpt4"))
    marks.years["2022"].sections["required"].points

An answer counts if its set of letters is exactly right. Blocks B and E are the required section, A,
C, D and F the general one. Points weigh. 116A71 is right whatever was answered, and without an
answer too; 112B30 accepts a or d. Four prohibited choices fail a year's examination, whatever its
points. What it takes to pass beside that changes by year and isn't part of the data: nothing here
says "passed". A question without a prediction is wrong, and named.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokka.errors import Mistakes, UsageError
from tokka.exam.rows import Row, read_rows
from tokka.exam.scorers.letters import ANYTHING, is_right, letter_set, said_digits, said_letters
from tokka.exam.suites.files import Source

YEARS = ("2018", "2019", "2020", "2021", "2022")
SECTIONS = {"required": "BE", "general": "ACDF"}
PROHIBITED_LIMIT = 4
RIGHT_WHATEVER = "116A71"
ACCEPTED = {"112B30": ("a", "d")}

_ID = re.compile(r"\d{3}([A-F])\d{1,3}")
_CASE = re.compile(r"次の文を読み[、，]\s*([\d、，,〜～~\-ー－ ]+)の問いに答えよ")
_OF_SYSTEM = re.compile(r"\d{3}-[A-F]_(.+)")
_NUMBER = re.compile(r"[\d.,]+")
_DATA = ("problem_id", "problem_text", "choices", "text_only", "answer", "points")


@dataclass(frozen=True, slots=True)
class Problem:
    """`targets`: accepted sets of letters ("b,e"), digits, or "*"; `topic` is the category."""

    id: str
    year: str
    block: str
    text: str
    choices: tuple[str, ...]
    text_only: bool
    targets: tuple[str, ...]
    points: int
    prohibited: frozenset[str]
    topic: str
    place: str

    @property
    def section(self) -> str:
        return next(name for name, blocks in SECTIONS.items() if self.block in blocks)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was answered. `letters` is empty and `digits` "" where the text is no such answer."""

    text: str
    letters: frozenset[str]
    digits: str


@dataclass(frozen=True, slots=True)
class Section:
    """`points` of `of`, and `right` of `asked` questions."""

    points: int
    of: int
    right: int
    asked: int


@dataclass(frozen=True, slots=True)
class Year:
    """`prohibited`: chosen ones, as "112B30 e"; `failed` by them, whatever the points. `missing`
    have no prediction, the prediction of `unreadable` is no answer; both are wrong."""

    sections: dict[str, Section]
    prohibited: tuple[str, ...]
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def failed(self) -> bool:
        return len(self.prohibited) >= PROHIBITED_LIMIT


@dataclass(frozen=True, slots=True)
class Marks:
    """`right` by problem id; `totals` are the sections over all years."""

    years: dict[str, Year]
    totals: dict[str, Section]
    right: dict[str, bool]


# ---- the publisher's files --------------------------------------------------------------------


def read_problems(source: Source, year: str = "all") -> list[Problem]:
    """The problems of one year or of all, in the order of the files.

    Raises UsageError where the folder isn't IgakuQA's, Mistakes with all that is wrong in its rows.
    """
    part = "[0-9][0-9][0-9][0-9]" if year == "all" else year
    block = "[0-9][0-9][0-9]-[A-F]"
    paths = source.several(f"data/{part}/{block}.jsonl", f"{part}/{block}.jsonl")
    wrong: list[str] = []
    found: dict[str, Problem] = {}
    for path in paths:
        about = _metadata(source, path, wrong)
        for row in source.rows(path, *_DATA):
            place = f"{path.name}:{row.line}"
            own: list[str] = []
            problem = _problem(row, path.parent.name, about, place, own)
            if problem is not None and problem.id in found:
                own.append(f"problem {problem.id} stands in {found[problem.id].place} too")
            wrong.extend(f"{reason} ({place})" for reason in own)
            if problem is not None and not own:
                found[problem.id] = problem
    if wrong:
        raise Mistakes(f"IgakuQA: {len(wrong)} mistakes in {source.folder}", wrong)
    return list(found.values())


def read_prompts(source: Source) -> list[Problem]:
    """The three examples that the publisher shows before each question."""
    path = source.one("scripts/prompts/prompt.jsonl", "prompt.jsonl")
    wrong: list[str] = []
    found = []
    for row in source.rows(path, "problem_id", "problem_text", "choices", "text_only", "answer"):
        place, own = f"{path.name}:{row.line}", list[str]()
        row = Row(row.line, {"points": "1", **row.fields})
        found.append(_problem(row, "prompts", {str(row.fields["problem_id"]): {}}, place, own))
        wrong.extend(f"{reason} ({place})" for reason in own)
    if wrong:
        raise Mistakes(f"IgakuQA: {len(wrong)} mistakes in {path}", wrong)
    return [problem for problem in found if problem is not None]


def cases(problems: Sequence[Problem]) -> dict[str, str]:
    """Problem id → cluster: "次の文を読み、40、41の問いに答えよ" opens a case, whose questions rest
    on one text."""
    of_case = {problem.id: problem.id for problem in problems}
    for problem in problems:
        if match := _CASE.search(problem.text):
            prefix = problem.id.rstrip("0123456789")
            for number in _numbers(match[1]):
                if f"{prefix}{number}" in of_case:
                    of_case[f"{prefix}{number}"] = problem.id
    return of_case


def _metadata(source: Source, path: Path, wrong: list[str]) -> dict[str, dict[str, Any]]:
    stem = path.name.split(".", 1)[0]
    own = path.parent.relative_to(source.folder)
    file = source.one((own / f"{stem}_metadata.jsonl").as_posix())
    rows = source.rows(file, "problem_id", "kinki")
    known = {str(row.fields["problem_id"]): row.fields for row in rows}
    asked = {str(row.fields.get("problem_id")) for row in source.rows(path)}
    wrong.extend(
        f"metadata of a problem {name!r} that isn't in {path.name} ({file.name})"
        for name in known
        if name not in asked
    )
    return known


def _problem(
    row: Row, year: str, about: Mapping[str, dict[str, Any]], place: str, wrong: list[str]
) -> Problem | None:
    fields = row.fields
    name = str(fields["problem_id"])
    match = _ID.fullmatch(name)
    if match is None:
        wrong.append(f"problem_id {name!r} isn't like 112B30")
    choices, answer = fields["choices"], fields["answer"]
    if not _texts(choices):
        wrong.append(f"choices of {name} must be a list of texts, got {str(choices)[:40]!r}")
    if not _texts(answer) or not answer:
        wrong.append(f"answer of {name} must be a list of letters, got {str(answer)[:40]!r}")
    points = re.fullmatch(r"\d{1,3}", str(fields["points"]))
    if points is None:
        wrong.append(f"points of {name} must be a whole number, got {str(fields['points'])[:20]!r}")
    if name not in about:
        wrong.append(f"problem {name} has no metadata, so its prohibited choices are unknown")
    kinki = about.get(name, {}).get("kinki", [])
    if not _texts(kinki):
        wrong.append(f"kinki of {name} must be a list of letters, got {str(kinki)[:40]!r}")
    if wrong or match is None or points is None:
        return None
    targets = _targets(name, answer, bool(choices))
    for target in targets:
        if choices and target != ANYTHING and not letter_set(target):
            wrong.append(f"answer of {name} must be a list of letters, got {answer!r}")
            return None
    return Problem(
        id=name,
        year=year,
        block=match[1],
        text=str(fields["problem_text"]).strip(),
        choices=tuple(choices),
        text_only=bool(fields["text_only"]),
        targets=targets,
        points=int(points[0]),
        prohibited=frozenset(letter.strip().lower() for letter in kinki),
        topic=str(about[name].get("category", "")),
        place=place,
    )


def _targets(name: str, answer: Sequence[str], has_choices: bool) -> tuple[str, ...]:
    if name == RIGHT_WHATEVER:
        return (ANYTHING,)
    if name in ACCEPTED:  # the file says "a or d"
        return ACCEPTED[name]
    return (",".join(letter.strip() for letter in answer),) if has_choices else (answer[0],)


def _numbers(text: str) -> list[int]:
    """ "40、41" → 40, 41; "60〜62" → 60, 61, 62."""
    found: list[int] = []
    for part in re.split("[、，,]", text):
        ends = [int(number) for number in re.findall(r"\d+", part)]
        if len(ends) == 2 and 0 < ends[1] - ends[0] < 20:
            found.extend(range(ends[0], ends[1] + 1))
        else:
            found.extend(ends)
    return found


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


# ---- predictions ------------------------------------------------------------------------------


def read_predictions(
    folder: Path, problems: Sequence[Problem], system: str = ""
) -> dict[str, Prediction]:
    """Predictions by problem id, from all JSONL files below the folder, or from one file.

    Rows are `problem_id` and `prediction` (letters separated by commas). A folder with an
    answers.jsonl of tokka's own is read as that. `system` takes only files called NNN-X_SYSTEM, as
    the publisher names them. `problems` are all that the source holds. Raises UsageError where
    there is nothing to read, Mistakes for unknown ids, ids that stand twice and rows that are no
    prediction.
    """
    paths, own = _prediction_files(folder, system)
    known = {problem.id for problem in problems}
    name, said = ("question_id", "text") if own else ("problem_id", "prediction")
    wrong: list[str] = []
    found: dict[str, tuple[Prediction, str]] = {}
    for path in paths:
        read = read_rows(path)
        wrong.extend(read.mistakes)
        for row in read.rows:
            place = f"{path.name}:{row.line}"
            problem, text = row.fields.get(name), row.fields.get(said)
            if not isinstance(problem, str) or not isinstance(text, str):
                wrong.append(f"a prediction is {{{name!r}: text, {said!r}: text}} ({place})")
            elif problem not in known:
                wrong.append(f"{name} {problem!r} is no problem of the source ({place})")
            elif problem in found:
                wrong.append(f"{problem} is predicted in {found[problem][1]} too ({place})")
            else:
                found[problem] = (_prediction(text, own), place)
    if wrong:
        raise Mistakes(f"IgakuQA: {len(wrong)} mistakes in the predictions in {folder}", wrong)
    return {problem: prediction for problem, (prediction, _) in found.items()}


def _prediction_files(folder: Path, system: str) -> tuple[list[Path], bool]:
    if folder.is_file():
        return [folder], folder.name.startswith("answers.jsonl")
    if not folder.is_dir():
        raise UsageError(f"IgakuQA: {folder} is no folder; name one that holds predictions")
    if (folder / "answers.jsonl").is_file() and not system:
        return [folder / "answers.jsonl"], True
    paths = [path for path in sorted(folder.rglob("*.jsonl")) if not path.name.startswith(".")]
    named = {path: match[1] for path in paths if (match := _OF_SYSTEM.fullmatch(path.stem))}
    systems = sorted(set(named.values()))
    if system:
        paths = [path for path in paths if named.get(path) == system]
    elif len(systems) > 1:
        raise UsageError(
            f"IgakuQA: {folder} holds predictions of {len(systems)} systems "
            f"({', '.join(systems)}); name one with --system"
        )
    if not paths:
        hint = f"; there are {', '.join(systems)}" if systems else ""
        raise UsageError(
            f"IgakuQA: {folder} holds no {f'*_{system}' if system else '*'}.jsonl{hint}; write "
            'rows of {"problem_id": "112B30", "prediction": "a,d"}'
        )
    return paths, False


def _prediction(text: str, own: bool) -> Prediction:
    """A stored prediction is letters and commas and nothing else; what a model said in tokka's exam
    is read as the exam reads it."""
    if own:
        return Prediction(text, said_letters(text), said_digits(text))
    number = said_digits(text) if _NUMBER.fullmatch(text.strip()) else ""
    return Prediction(text, letter_set(text), number)


# ---- marks ------------------------------------------------------------------------------------


def mark(problems: Sequence[Problem], predictions: Mapping[str, Prediction]) -> Marks:
    """Points by section and year, and the prohibited choices that were chosen."""
    right = {p.id: _right(p, predictions.get(p.id)) for p in problems}
    by_year: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_year[problem.year].append(problem)
    years = {
        year: Year(
            sections=_sections(own, right),
            prohibited=tuple(
                f"{p.id} {letter}"
                for p in own
                if p.id in predictions
                for letter in sorted(p.prohibited & predictions[p.id].letters)
            ),
            missing=tuple(p.id for p in own if p.id not in predictions and not right[p.id]),
            unreadable=tuple(
                p.id
                for p in own
                if p.id in predictions and not (right[p.id] or _readable(p, predictions[p.id]))
            ),
        )
        for year, own in sorted(by_year.items())
    }
    return Marks(years, _sections(problems, right), right)


def total(sections: Mapping[str, Section]) -> Section:
    """Both sections together."""
    parts = sections.values()
    return Section(
        points=sum(part.points for part in parts),
        of=sum(part.of for part in parts),
        right=sum(part.right for part in parts),
        asked=sum(part.asked for part in parts),
    )


def as_json(marks: Marks) -> dict[str, Any]:
    """One plain object: sections and totals by year and over all, and what stood out."""
    return {
        "suite": "igakuqa",
        "years": {
            year: {
                **_plain(found.sections),
                "prohibited": list(found.prohibited),
                "failed_by_prohibited": found.failed,
                "missing": list(found.missing),
                "unreadable": list(found.unreadable),
            }
            for year, found in marks.years.items()
        },
        "all": _plain(marks.totals),
    }


def _plain(sections: Mapping[str, Section]) -> dict[str, Any]:
    return {
        name: {"points": s.points, "of": s.of, "right": s.right, "asked": s.asked}
        for name, s in {**sections, "total": total(sections)}.items()
    }


def _right(problem: Problem, prediction: Prediction | None) -> bool:
    letters = prediction.letters if prediction else frozenset[str]()
    digits = prediction.digits if prediction else ""
    return any(is_right(target, letters, digits) for target in problem.targets)


def _readable(problem: Problem, prediction: Prediction) -> bool:
    return bool(prediction.letters if problem.choices else prediction.digits)


def _sections(problems: Sequence[Problem], right: Mapping[str, bool]) -> dict[str, Section]:
    sums: dict[str, Counter[str]] = {name: Counter() for name in SECTIONS}
    for problem in problems:
        part = sums[problem.section]
        part["of"] += problem.points
        part["asked"] += 1
        part["points"] += problem.points * right[problem.id]
        part["right"] += right[problem.id]
    return {
        name: Section(part["points"], part["of"], part["right"], part["asked"])
        for name, part in sums.items()
    }
