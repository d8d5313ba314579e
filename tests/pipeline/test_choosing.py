"""A state of the weights is chosen by the development questions, under a floor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from tokka import choosing
from tokka.choosing import DevExam, choose, point_of, read_choice
from tokka.documents_steps import read_and_chunk
from tokka.errors import Mistakes, TokkaError
from tokka.pipeline import Build, build_arm, prepare, run
from tokka.project import load_project
from tokka.records import Choice, ChoicePoint, Exam, Question
from tokka.stages import Weights, weights_of

TUNE = {
    "data": "examples.jsonl", "rank": 8, "alpha": 64, "learning_rate": 5e-3, "epochs": 6,
    "batch_examples": 4, "checkpoints": 2, "leave_out_mistakes": True,
}  # fmt: skip
SHORT = {"max_tokens": 6}
DEV = [
    {"id": f"rdev{n}", "split": "dev", "question": asked, "choices": options, "answer": right}
    for n, (asked, options, right) in enumerate(
        [
            ("Which animal has a trunk?", ["an elephant", "a crab"], "an elephant"),
            ("Which of them is a fruit?", ["a stone", "a pear"], "a pear"),
            ("What shines at night?", ["the moon", "a spoon"], "the moon"),
        ]
    )
]


def arm(choice: dict[str, Any], **changed: Any) -> dict[str, Any]:
    tune, slots = {**TUNE}, {"prompt": SHORT}
    for key, value in changed.items():
        (slots if key in ("prompt", "retrieval") else tune)[key] = value
    return {"weights": [{"finetune": tune}], "choose": choice, **slots}


def add_development(folder: Path) -> None:
    with (folder / "exam" / "retention.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in DEV)


@pytest.fixture(scope="module")
def shared(harbour: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose finished steps all tests of this file share, for they only add to them."""
    folder = tmp_path_factory.mktemp("choosing") / "project"
    shutil.copytree(harbour, folder)
    add_development(folder)
    return folder


@pytest.fixture
def builds(shared: Path, here: None, listener: Any) -> Callable[..., Build]:
    """`builds(a=arm({…}), …)`: these arms beside the base."""

    def make(folder: Path = shared, exams: Any = None, **arms: dict[str, Any]) -> Build:
        both = {role: {"path": f"exam/{role}.jsonl", "role": role} for role in ROLES}
        project = {
            "name": "blue-harbour",
            "language": "en",
            "base_model": "model/",
            "corpus": ["documents/"],
            "chunks": {"max_tokens": 48},
            "exams": exams or both,
            "arms": {"base": {"prompt": SHORT}, **arms},
            "policy": {"draws": 200, "max_forgetting": 0.4, "alpha": 0.3},
        }
        (folder / "tokka.yaml").write_text(json.dumps(project))
        build = prepare(load_project(folder), listener)
        read_and_chunk(build)
        return build

    return make


ROLES = ("domain", "retention")


def weights(build: Build, name: str = "a") -> Weights:
    found = weights_of(build, build.project.arms[name])
    assert found is not None
    return found


def chosen(build: Build, name: str = "a") -> tuple[Weights, Choice]:
    found = weights(build, name)
    choice = read_choice(found)
    assert choice is not None
    return found, choice


def scored(monkeypatch: pytest.MonkeyPatch, *points: tuple[float, float]) -> list[Weights]:
    """In place of sitting: (domain, retention) of the control and then of each point. Returns what
    was tried, the control first."""
    tried: list[Weights] = []

    def scores(build: Any, arm: Any, weights: Weights, *_: Any) -> dict[str, float]:
        tried.append(weights)
        return dict(zip(ROLES, points[len(tried) - 1], strict=True))

    monkeypatch.setattr("tokka.choosing._scores", scores)
    return tried


# ---- the rule -----------------------------------------------------------------------------------


def point(domain: float, loss: float | None, alpha: float = 1.0) -> ChoicePoint:
    return ChoicePoint(state=1, alpha=alpha, digest="", scores={}, domain=domain, loss=loss)


@pytest.mark.parametrize(
    ("points", "taken"),
    [
        ([(0.0, 0.0), (0.5, 0.0), (0.7, 0.1), (0.9, 0.3)], 2),  # the best is over the floor
        ([(0.0, 0.0), (0.7, 0.2), (0.7, 0.1), (0.7, 0.1)], 2),  # smaller loss, then earlier
        ([(0.9, 0.0), (0.1, 0.1)], 1),  # the start is never chosen
        ([(0.9, 0.0), (0.8, 0.4), (0.2, 0.3), (0.3, 0.3)], 3),  # none meets it: the least lost
    ],
)
def test_the_best_in_the_domain_wins_among_those_above_the_floor(
    points: list[tuple[float, float]], taken: int
) -> None:
    first, *others = points
    made = [point(*first, alpha=0.0), *(point(*other) for other in others)]
    choice = choose(made, 3, 0.2, {}, [])
    assert choice.taken == taken
    assert choice.met == (points[taken][1] <= 0.2)
    assert ("no state meets that" in choice.reason) != choice.met


def test_without_a_retention_exam_the_domain_alone_decides() -> None:
    assert choose([point(0.4, None), point(0.5, None)], 2, 0.0, {}, []).taken == 1


def test_each_guarding_exam_counts_by_itself() -> None:
    """A gain in one exam doesn't pay for a loss in another; 0.4 − 0.3 is no more than 0.1."""
    exams = [dev(name, role) for name, role in ROLES_OF.items()]
    control = {"a": 0.5, "b": 0.0, "c": 0.4, "d": 0.2}
    scores = {"a": 0.7, "b": 0.5, "c": 0.3, "d": 1.0}
    trial: Any = choosing.Trial(2, 0.5, None)  # type: ignore[arg-type]
    found = point_of(trial, "digest", scores, control, exams)
    assert (found.domain, found.loss) == (0.6, 0.1)


ROLES_OF: dict[str, Any] = {"a": "domain", "b": "domain", "c": "retention", "d": "safety"}


def dev(name: str, role: Any) -> DevExam:
    exam = Exam(
        name=name, role=role, digest="", scorer="exact", normalisation="tokens", questions=1
    )
    return DevExam(exam, (), (), show_options=False, rotate=False)


# ---- states of a training -----------------------------------------------------------------------


def test_every_state_is_tried_at_every_alpha_and_the_chosen_one_is_served(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorded(*arguments: Any) -> Any:
        specialist = open_with(*arguments)
        sat.append(specialist.model.digest)
        return specialist

    sat: list[str] = []
    open_with = choosing.open_with
    monkeypatch.setattr("tokka.choosing.open_with", recorded)
    build = builds(a=arm({"alphas": [1.0, 0.5]}))
    found, choice = chosen(build)
    assert sat == [build.base_digest, *(one.digest for one in choice.points)]
    tried = [(one.state, one.alpha) for one in choice.points]
    assert tried == [(0, 0), (1, 0.5), (1, 1), (2, 0.5), (2, 1), (3, 0.5), (3, 1)]
    assert choice.end == 3 and choice.max_loss == 0.4
    assert choice.questions == {"domain": 2, "retention": 3}
    assert len({one.digest for one in choice.points}) == 7
    assert choice.points[0].digest == build.base_digest
    assert choice.points[0].scores == choice.control  # the same weights, the same prompt
    assert choice.points[-1].domain == 1.0 > choice.points[0].domain  # it did learn to say blue
    assert found.digest == choice.points[choice.taken].digest
    kinds = [folder.name.partition("-")[0] for folder in found.steps]
    assert kinds == ["finetune", "choose"] and found.adapters == found.steps[1:]
    assert not (found.steps[1] / "points").exists()
    candidate = build_arm(build, build.project.arms["a"])
    assert candidate.artifacts["adapter"].startswith("choose-")
    with choosing.Models(build).open(found.whole, found.adapters) as model:
        assert model.digest == found.digest


def test_states_stand_in_the_order_of_training(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, *[(0, 1)] * 13)
    _, choice = chosen(builds(a=arm({}, checkpoints=10)))
    assert [one.state for one in choice.points] == list(range(12)) and choice.end == 11
    assert choice.taken == 1  # of twelve alike, the first that learnt


def test_a_finished_choice_is_not_made_again(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = {"alphas": [1.0, 0.5]}
    first = weights(builds(a=arm(choice)))
    monkeypatch.setattr("tokka.choosing._scores", lambda *_: pytest.fail("sat again"))
    assert weights(builds(a=arm({"alphas": [0.5, 1.0, 0.0]}))) == first


def test_a_killed_choice_goes_on_to_the_same(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any) -> Any:
        if len(sat) == 3:
            raise KeyboardInterrupt
        sat.append(arguments[2].digest)
        return scores(*arguments)

    sat: list[str] = []
    tuned = {"alphas": [0.25, 1.0]}
    build, scores = builds(a=arm(tuned)), choosing._scores
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("tokka.choosing._scores", killed)
        weights(build)
    (partial,) = build.workspace.steps.glob("choose-*.partial")
    (partial / "points" / "9").mkdir(parents=True)  # as a kill would leave it
    before = remembered(build)
    found, _ = chosen(build := builds(a=arm(tuned)))
    assert remembered(build) > before
    again = remembered(build)
    choice = (found.steps[-1] / "choice.json").read_bytes()
    shutil.rmtree(found.steps[-1])
    found, _ = chosen(build := builds(a=arm(tuned)))
    assert (found.steps[-1] / "choice.json").read_bytes() == choice
    assert remembered(build) == again  # every batch was found
    assert not (found.steps[-1] / "points").exists()


def remembered(build: Build) -> set[str]:
    return {path.name for path in (build.workspace.root / "batches").rglob("*.json")}


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_whole_weights_are_chosen_too(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch, alpha: float
) -> None:
    full = {"method": "full", "learning_rate": 1e-4, "epochs": 1, "checkpoints": 1}
    tried = scored(monkeypatch, (0, 1), (0, 1), (0.5, 1), (0.25, 1))
    build = builds(a=arm({"alphas": [alpha]}, **full))
    found, choice = chosen(build)
    assert choice.points[choice.taken].state == 1
    assert found.adapters == () and found.whole == found.steps[-1]
    assert found.digest == tried[2].digest != tried[3].digest
    with choosing.Models(build).open(found.whole) as model:
        assert model.digest == found.digest


def test_alpha_scales_what_the_last_stage_learnt_and_nothing_before(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {"finetune": {**TUNE, "epochs": 1, "checkpoints": 0, "rank": 4}}
    made = arm({"alphas": [0.5]}, epochs=1, checkpoints=0)
    made["weights"] = [first, *made["weights"]]
    tried = scored(monkeypatch, (0, 1), (0, 1), (0.5, 1))
    found, choice = chosen(build := builds(a=made))
    stages = found.steps[:2]
    assert tried[0].digest == build.base_digest  # the control knows nothing of the arm
    assert tried[1].adapters == stages[:1] and choice.points[0].digest == tried[1].digest
    assert found.adapters == (stages[0], found.steps[-1])
    assert json.loads((found.steps[-1] / "merge.json").read_bytes())["alpha"] == 0.5


def test_where_no_state_meets_the_floor_the_least_loss_is_taken_aloud(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch, listener: Any
) -> None:
    scored(monkeypatch, (0, 1), (0, 1), (0.5, 0.5), (0.4, 0.6), (0.9, 0))
    made = arm({"max_loss": 0.25})
    _, choice = chosen(builds(a=made))
    assert (choice.taken, choice.met, choice.max_loss) == (2, False, 0.25)
    assert "no state meets that" in choice.reason
    assert any("no state that keeps the loss within 0.25" in said for said in listener.notices)
    listener.notices.clear()
    weights(builds(a=made))  # found done, and told again
    assert any("no state that keeps the loss within 0.25" in said for said in listener.notices)


def test_the_development_questions_go_through_the_whole_arm(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tokka.exam.sitting

    def recorded(specialist: Any, exam: Any, questions: Any, *rest: Any) -> Any:
        answers = sit(specialist, exam, questions, *rest)
        told.append((specialist.candidate.arm.name, exam, questions, answers))
        digests.append(specialist.model.digest)
        return answers

    told: list[Any] = []
    digests: list[str] = []
    sit = tokka.exam.sitting.sit
    monkeypatch.setattr("tokka.exam.sitting.sit", recorded)
    served = {
        "prompt": {**SHORT, "shots": 1, "shots_from": "examples.jsonl"},
        "retrieval": {"top_k": 2, "dense": False},
    }
    weights(builds(a=arm({"alphas": [0.5, 0.75]}, epochs=1, checkpoints=0, **served)))
    arms = [name for name, *_ in told]
    assert arms == ["base"] * 2 + ["a"] * 6  # two exams, the control and three points
    assert len(set(digests)) == 3  # the control and α = 0 are the same weights
    for name, exam, questions, answers in told:
        assert {q.split for q in questions} == {"dev"} and exam.questions == len(questions)
        assert all(bool(a.shots) == bool(a.passages) == (name == "a") for a in answers)


def test_a_question_without_a_score_stops_the_choice(
    builds: Callable[..., Build], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(answer: Any, key: Any, question: Question, exam: Any) -> Any:
        from tokka.records import Score

        return Score(
            question_id=question.id, scorer="x", value=None, status="error", explanation="broke"
        )

    monkeypatch.setattr("tokka.exam.sitting.score", silent)
    build = builds(a=arm({"max_loss": 0.125}))
    with pytest.raises(TokkaError, match=r"no score for 2 development questions of domain.*broke"):
        weights(build)


def test_exams_that_can_not_help_are_named_before_anything_is_trained(
    builds: Callable[..., Build], fresh: Path
) -> None:
    domain = {"path": "exam/domain.jsonl", "role": "domain"}
    judged = {**domain, "role": "retention", "scorer": "judge"}
    bare = {"path": "exam/retention.jsonl", "role": "retention"}
    with pytest.raises(Mistakes) as caught:
        builds(fresh, exams={"domain": domain, "judged": judged, "bare": bare}, a=arm({}))
    waits, none = caught.value.items
    assert "judged: its scorer judge gives no score" in waits
    assert "bare: none of its questions is for development" in none and '"split": "dev"' in none
    assert not list((fresh / ".tokka" / "steps").glob("finetune-*"))


def test_the_choice_reaches_the_results_and_the_report(
    builds: Callable[..., Build], shared: Path, listener: Any
) -> None:
    pytest.importorskip("altair")
    builds(a=arm({"alphas": [1.0, 0.5]}))
    outcome = run(load_project(shared), listener)
    base, tuned = json.loads(outcome.results.read_bytes())["arms"]
    assert base["choice"] is None
    _, choice = chosen(builds(a=arm({"alphas": [1.0, 0.5]})))
    assert Choice.model_validate(tuned["choice"]) == choice
    assert {sitting["split"] for sitting in tuned["sittings"]} == {"test"}
    timings = json.loads((outcome.results.parent / "timings.json").read_bytes())
    assert timings["a"]["build_seconds"] > 0


def test_a_policy_on_the_development_questions_is_told(
    builds: Callable[..., Build], listener: Any
) -> None:
    build = builds(a=arm({"alphas": [1.0, 0.5]}))
    policy = build.project.policy.model_copy(update={"split": "dev"})
    build.project = build.project.model_copy(update={"policy": policy})
    weights(build)
    assert any("the questions that chose its weights also judge" in n for n in listener.notices)


def test_nothing_is_chosen_where_nothing_says_so(builds: Callable[..., Build]) -> None:
    plain = arm({})
    plain.pop("choose")
    plain["weights"][0]["finetune"] = {**TUNE, "checkpoints": 0, "epochs": 1}
    assert read_choice(weights(builds(a=plain))) is None
