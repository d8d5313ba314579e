"""From a finished run to a draft in the registry: whole, once, and only what the gate lets through.

The flow runs on the Blue Harbour with a policy that its ten questions can satisfy.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("sqlalchemy")
pytest.importorskip("cryptography")

from tokka import drafting
from tokka.drafting import model_name
from tokka.errors import IntegrityError, Mistakes, UsageError
from tokka.licences import licence_of
from tokka.models.embedded import EMBEDDED
from tokka.pipeline import Build
from tokka.project import Project, load_project
from tokka.project_settings import ReleaseSpec
from tokka.release import approval
from tokka.release.keys import fresh_key, load_key, write_key
from tokka.release.ledger import Ledger, open_ledger
from tokka.release.reading import read_release
from tokka.release.records import Entry, Head, Reexam
from tokka.release.registry import standing_of
from tokka.releasing import Refused, Released, export_arm, plan, release, update_model
from tokka.store import Workspace, read_record

RELEASE = {
    "owner": "港湾課",
    "use": "the colours of the harbour",
    "tier": "medium",
    "tier_reason": "a trial",
    "licence": "Apache-2.0",
}
PEOPLE = {"aoi": ("owner", "developer"), "ben": ("validator",), "chie": ("approver",)}
Making = Callable[..., Released]


def write_project(folder: Path, **changed: Any) -> None:
    from tokka.project_yaml import parse_yaml

    path = folder / "tokka.yaml"
    project = parse_yaml(path.read_text(encoding="utf-8")).value
    for name, value in changed.items():
        if value is None:
            project.pop(name, None)
        else:
            project[name] = value
    path.write_text(json.dumps(project, indent=1, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    before = os.environ.get("TOKKA_KEYS")
    os.environ["TOKKA_KEYS"] = str(folder)
    for name in PEOPLE:
        write_key(fresh_key(name))
    os.environ.pop("TOKKA_KEYS")
    if before is not None:
        os.environ["TOKKA_KEYS"] = before
    return folder


@pytest.fixture(scope="module")
def examined(finished: Any, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Blue Harbour, with people in its ledger and `release:` in its project file."""
    folder = tmp_path_factory.mktemp("releasing") / "project"
    shutil.copytree(finished.folder, folder)
    write_project(folder, release=RELEASE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TOKKA_KEYS", str(keys))
        with open_ledger(".tokka/ledger.sqlite", folder) as ledger:
            for name, duties in PEOPLE.items():
                approval.enrol(ledger, load_key("aoi"), name, duties, load_key(name).public_key)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def folder(
    examined: Path, keys: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy that a test may change."""
    copy = tmp_path / "project"
    shutil.copytree(examined, copy)
    monkeypatch.setenv("TOKKA_KEYS", str(keys))
    monkeypatch.delenv("TOKKA_LEDGER", raising=False)
    return copy


@pytest.fixture
def make(folder: Path, listener: Any) -> Making:
    def made(arm: str = "lora", actor: str | None = "aoi", **options: Any) -> Released:
        return release(load_project(folder), arm, observer=listener, actor=actor, **options)

    return made


def ledger_of(folder: Path) -> Ledger:
    return open_ledger(".tokka/ledger.sqlite", folder, create=False)


def kinds(folder: Path) -> list[str]:
    with ledger_of(folder) as ledger:
        return [entry.signed.act.kind for entry in ledger.entries()]


def releases(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / ".tokka" / "releases").glob("*"))


ENROLLED = ["enrol"] * len(PEOPLE)


# ---- the way through ----------------------------------------------------------------------------


def test_a_run_becomes_a_draft_that_others_validate_and_approve(folder: Path, make: Making) -> None:
    made = make()
    assert made.is_new and made.release.name == "blue-harbour-1" and made.stage == "draft"
    assert "ben" in made.waiting[0].en and "chie" in made.waiting[1].en
    found = read_release(made.folder, made.release.digest)
    assert found == made.release
    assert (found.serves, found.built_by, found.base_licence) == (
        "safetensors", "aoi", "Apache-2.0",
    )  # fmt: skip
    assert {"exam/results.json", "exam/evidence.json", "exam/timings.json"} <= set(found.files)
    assert found.verdict.outcome == "pass" and set(found.exams) == {"domain", "retention"}
    with ledger_of(folder) as ledger:
        (row,) = ledger.models()
        assert (row.model.owner, row.model.tier, row.model.licence) == (
            "港湾課", "medium", "Apache-2.0",
        )  # fmt: skip
        (version,) = ledger.versions("blue-harbour")
        assert (version.digest, version.stage) == (found.digest, "draft")
        with pytest.raises(UsageError, match="aoi"):
            approval.decide(ledger, load_key("aoi"), "approve", "blue-harbour-1")
        approval.decide(ledger, load_key("ben"), "validate", "blue-harbour-1")
        approval.decide(ledger, load_key("chie"), "approve", "blue-harbour-1")
        assert standing_of(ledger, "blue-harbour-1").stage == "approved"
        assert ledger.check([read_record(made.folder / "head.json", Head)]) == ()
    assert kinds(folder) == [*ENROLLED, "register", "release", "validate", "approve"]


def test_act_and_head_lie_beside_the_release_and_outside_the_database(make: Making) -> None:
    made = make()
    entry = read_record(made.folder / "act.json", Entry)
    head = read_record(made.folder / "head.json", Head)
    act = entry.signed.act
    assert (act.kind, act.actor, act.digest) == ("release", "aoi", made.release.digest)
    assert (head.number, head.hash) == (entry.number, entry.hash)
    assert not {"act.json", "head.json", "release.json"} & set(made.release.files)


def test_the_second_release_of_the_same_candidate_is_the_first(
    folder: Path, make: Making, listener: Any
) -> None:
    first = make()
    listener.tasks.clear()
    again = make(actor=None)  # nothing is signed, so nobody must say who he is
    assert not again.is_new and again.release == first.release and again.entry == first.entry
    assert listener.tasks == ["lora: gate"]
    assert releases(folder) == ["blue-harbour-1"]
    assert kinds(folder) == [*ENROLLED, "register", "release"]


def test_other_arms_and_formats_become_further_versions(
    folder: Path, make: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passes(build: Any, candidate: Any, exported: Any, models: Any) -> Reexam:
        return Reexam(candidate_id=exported.served.id)

    make()
    assert make("lora-search").release.version == 2
    monkeypatch.setattr("tokka.reexamining.reexamine", passes)  # ten questions prove too little
    both = make("lora", format="q8_0", also=("safetensors",))
    assert both.release.version == 3 and both.release.serves == "q8_0"
    assert [one.format for one in both.release.artefacts] == ["q8_0", "safetensors"]
    assert kinds(folder) == [*ENROLLED, "register", *["release"] * 3]


def test_the_project_says_what_is_served_and_shipped(folder: Path, listener: Any) -> None:
    write_project(folder, release={**RELEASE, "format": "f16", "also": ["f16", "q8_0"]})
    found = plan(load_project(folder), "lora", observer=listener, actor="aoi")
    assert (found.serves, found.also) == ("f16", ("q8_0",))
    found = plan(load_project(folder), "lora", observer=listener, actor="aoi", also=())
    assert found.also == ()


# ---- refused ------------------------------------------------------------------------------------


def test_an_arm_that_the_gate_refuses_leaves_nothing_behind(folder: Path, make: Making) -> None:
    told: list[Any] = []
    with pytest.raises(Refused) as refused:
        make("rag", told=told.append)
    assert refused.value.exit_code == 3
    assert told == [refused.value.decision]
    for text in refused.value.decision.texts("en"):
        assert text in str(refused.value)
    assert releases(folder) == [] and kinds(folder) == ENROLLED


def test_an_export_that_fails_its_exam_is_refused_with_all_faults(
    folder: Path, make: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(build: Any, candidate: Any, exported: Any, models: Any) -> Reexam:
        faults = (f"{exported.format}: never stops",)
        return Reexam(candidate_id=exported.served.id, faults=faults)

    monkeypatch.setattr("tokka.reexamining.reexamine", faulty)
    with pytest.raises(Refused) as refused:
        make(also=("q8_0",))
    assert refused.value.decision.passed
    assert set(refused.value.faults) == {"safetensors", "q8_0"}
    assert "safetensors: never stops" in str(refused.value)
    assert releases(folder) == [] and kinds(folder) == ENROLLED


def test_what_the_inventory_needs_is_listed_before_anything_is_exported(
    folder: Path, make: Making, listener: Any
) -> None:
    write_project(folder, release={"licence": "Apache-2.0", "owner": "  "})
    with pytest.raises(Mistakes) as mistakes:
        make()
    assert [item.partition(":")[0] for item in mistakes.value.items] == [
        "owner", "use", "tier_reason",
    ]  # fmt: skip
    assert "blue-harbour is new" in mistakes.value.title
    assert listener.tasks == ["lora: gate"]


def test_a_known_model_needs_no_more_of_the_project(folder: Path, make: Making) -> None:
    make()
    write_project(folder, release={"licence": "Apache-2.0"})
    assert make("lora-search").release.version == 2


def test_what_the_inventory_says_changes_by_an_owner_alone(
    folder: Path, make: Making, listener: Any
) -> None:
    """A tier that was raised after the first release would otherwise be passed over."""
    write_project(folder, release={**RELEASE, "tier": "low"})
    make()
    write_project(folder, release={**RELEASE, "tier": "high"})
    write_key(eva := fresh_key("eva"))
    with ledger_of(folder) as ledger:
        approval.enrol(ledger, load_key("aoi"), "eva", ("developer",), eva.public_key)
    with pytest.raises(UsageError, match=r"tier 'low', the project 'high'; .*registry update"):
        make("lora-search", actor="eva")
    assert kinds(folder).count("release") == 1
    entry = update_model(load_project(folder), observer=listener, actor="aoi")
    assert entry.tier == "high"
    assert make("lora-search", actor="eva").release.version == 2
    assert update_model(load_project(folder), observer=listener, actor="aoi") == entry
    assert kinds(folder).count("register") == 2


@pytest.mark.parametrize(("actor", "why"), [("ben", "ben is validator"), ("dan", "isn't enrolled")])
def test_only_an_enrolled_developer_releases(
    make: Making, listener: Any, keys: Path, actor: str, why: str
) -> None:
    if actor == "dan" and not (keys / "dan.pem").exists():
        write_key(fresh_key("dan"))
    with pytest.raises(UsageError, match=why):
        make(actor=actor)
    assert listener.tasks == ["lora: gate"]


def test_without_a_ledger_it_says_how_to_begin(folder: Path, make: Making) -> None:
    (folder / ".tokka" / "ledger.sqlite").unlink()
    with pytest.raises(UsageError, match="tokka actor new"):
        make()


def test_a_changed_file_of_a_release_is_never_shown_as_released(make: Making) -> None:
    made = make()
    (made.folder / "exam" / "results.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"exam/results\.json was changed"):
        make()


# ---- dry run ------------------------------------------------------------------------------------


def test_a_plan_says_what_would_be_done_and_writes_nothing(folder: Path, listener: Any) -> None:
    def files() -> dict[Path, int]:
        found = (p for p in folder.rglob("*") if p.is_file() and "ledger" not in p.name)
        return {p: p.stat().st_mtime_ns for p in found}

    before = files()
    found = plan(load_project(folder), "lora", observer=listener, actor="aoi")
    assert (found.model, found.version, found.serves) == ("blue-harbour", 1, "safetensors")
    assert found.is_new_model and found.actor == "aoi" and found.released is None
    assert files() == before and kinds(folder) == ENROLLED


def test_a_plan_of_what_is_released_says_so(folder: Path, make: Making, listener: Any) -> None:
    made = make()
    found = plan(load_project(folder), "lora", observer=listener)
    assert found.released == made.release and found.as_json()["released"] is True


# ---- killed and at once -------------------------------------------------------------------------

KILLER = """
import os, signal, sys
import {module}
def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
{module}.{name} = kill
sys.argv = ["tokka", "release", "lora", "--project", sys.argv[1], "--as", "aoi"]
from tokka.cli import main
main()
"""
AFTER_THE_EXPORT = ("tokka.reexamining", "reexamine")
IN_THE_FOLDER = ("tokka.assembling", "_write_exam")
BEFORE_THE_ACT = ("tokka.release.approval", "release")
AFTER_THE_ACT = ("tokka.drafting", "write_beside")


def test_a_release_killed_by_the_system_goes_on_to_the_same(
    folder: Path, make: Making, processes: Any, keys: Path
) -> None:
    """The others stop by an exception, which is quicker and finds the same files."""
    module, name = AFTER_THE_EXPORT
    killed = subprocess.run(
        [sys.executable, "-c", KILLER.format(module=module, name=name), str(folder)],
        env={**processes.environment, "TOKKA_KEYS": str(keys)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((folder / ".tokka" / "steps").glob("export-*/model.safetensors"))
    goes_on(folder, make)


@pytest.mark.parametrize(("module", "name"), [IN_THE_FOLDER, BEFORE_THE_ACT, AFTER_THE_ACT])
def test_a_release_that_stops_within_goes_on_to_the_same(
    folder: Path, make: Making, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(f"{module}.{name}", interrupted)
        make()
    assert (kinds(folder)[-1] == "release") == ((module, name) == AFTER_THE_ACT)
    goes_on(folder, make)


def goes_on(folder: Path, make: Making) -> None:
    made = make()
    assert made.release.version == 1
    assert read_release(made.folder, made.release.digest) == made.release
    assert releases(folder) == ["blue-harbour-1"]
    assert kinds(folder) == [*ENROLLED, "register", "release"]
    assert read_record(made.folder / "act.json", Entry) == made.entry
    with ledger_of(folder) as ledger:
        assert ledger.check([read_record(made.folder / "head.json", Head)]) == ()


def test_two_workspaces_never_get_the_same_version(
    folder: Path, make: Making, listener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another workspace with the same ledger takes the version while this one writes its folder."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    write_project(other, ledger=str(folder / ".tokka" / "ledger.sqlite"))
    assembled, raced = drafting._assembled, []

    def slow(draft: Any, name: str, version: int) -> Path:
        made = assembled(draft, name, version)
        if not raced:
            raced.append(version)
            theirs = release(load_project(other), "lora-search", observer=listener, actor="aoi")
            assert theirs.release.version == 1
        return made

    monkeypatch.setattr(drafting, "_assembled", slow)
    made = make()
    assert raced == [1] and made.release.version == 2
    assert releases(folder) == ["blue-harbour-2"] and releases(other) == ["blue-harbour-1"]
    with ledger_of(folder) as ledger:
        assert [row.version for row in ledger.versions()] == [1, 2]


def test_two_at_once_in_one_workspace_are_told_so(folder: Path, make: Making) -> None:
    with (
        Workspace(folder / ".tokka").lock(),
        pytest.raises(Exception, match="another run is at work"),
    ):
        make()


def test_the_folder_of_a_killed_release_of_another_arm_is_replaced(
    folder: Path, make: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("tokka.release.approval.release", interrupted)
        make("lora-search")
    assert releases(folder) == ["blue-harbour-1"]
    made = make("lora")
    assert made.release.version == 1 and made.release.candidate.arm.name == "lora"


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_a_release_of_another_ledger_is_never_overwritten(folder: Path, make: Making) -> None:
    made = make()
    shutil.move(folder / ".tokka" / "ledger.sqlite", folder / ".tokka" / "old.sqlite")
    for name in ("ledger.key", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (folder / ".tokka" / name).unlink(missing_ok=True)
    for seen in (folder / ".tokka").glob("ledger-*.head.json"):
        seen.unlink()
    with open_ledger(".tokka/ledger.sqlite", folder) as ledger:
        approval.enrol(
            ledger, load_key("aoi"), "aoi", ("owner", "developer"), load_key("aoi").public_key
        )
    with pytest.raises(UsageError, match="another ledger"):
        make("lora-search")
    assert read_release(made.folder) == made.release


# ---- names, licences, export --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aoba-shinkin", "aoba-shinkin"),
        ("青葉 信用金庫", "青葉-信用金庫"),
        ("ＡＯＢＡ（試行）", "AOBA-試行"),
        ("gemma-3", "gemma.3"),
        ("../../etc/passwd", "etc-passwd"),
        (".hidden", "hidden"),
    ],
)
def test_a_project_name_becomes_a_name_that_a_folder_and_the_inventory_take(
    folder: Path, name: str, expected: str
) -> None:
    project = load_project(folder).model_copy(update={"name": name})
    assert model_name(project) == expected


def test_a_project_name_of_signs_alone_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="letters or digits"):
        model_name(load_project(folder).model_copy(update={"name": "§§§"}))


def build_with(project: Project, base: Path | None, **changed: Any) -> Build:
    made = project.model_copy(update={"release": ReleaseSpec(**changed)})
    return Build(made, Workspace(project.root), observer=None, base=base)  # type: ignore[arg-type]


def test_the_terms_of_an_embedded_model_travel_with_every_release(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "LICENCE.html").write_text("terms")
    project = load_project(folder).model_copy(update={"base_model": "embedded:gemma-3-270m"})
    found = licence_of(build_with(project, tmp_path, licence="internal only"))
    gemma = EMBEDDED["gemma-3-270m"].licence
    assert found.name == gemma  # what the project says adds to it and replaces nothing
    assert found.terms == (gemma, "internal only", "LICENCE.html")


def test_a_licence_comes_from_the_project_or_the_model_card_or_is_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    project = load_project(folder)
    with pytest.raises(UsageError, match="nothing says what model/ may be used under"):
        licence_of(build_with(project, tmp_path))
    (tmp_path / "README.md").write_text("---\nlanguage: ja\nlicense: 'cc-by-sa-4.0'\n---\n# M\n")
    assert licence_of(build_with(project, tmp_path)).name == "cc-by-sa-4.0"
    assert licence_of(build_with(project, tmp_path, licence="MIT")).name == "MIT"
    (tmp_path / "README.md").write_text("# M\nlicense: nothing\n")
    with pytest.raises(UsageError):
        licence_of(build_with(project, tmp_path))
    with pytest.raises(UsageError):
        licence_of(build_with(project, None))


def test_a_built_arm_is_exported_without_any_gate(
    folder: Path, tmp_path: Path, listener: Any
) -> None:
    project = load_project(folder)
    written = export_arm(project, "rag", "safetensors", tmp_path / "out", listener)
    assert (tmp_path / "out" / "model.safetensors") in written
    assert kinds(folder) == ENROLLED
    with pytest.raises(UsageError, match="no arm 'nobody'"):
        export_arm(project, "nobody", "safetensors", tmp_path / "other", listener)
