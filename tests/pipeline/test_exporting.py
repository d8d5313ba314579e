"""A candidate leaves the workspace as files that sit its exams again, or it doesn't leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("gguf", reason="needs tokka[quantise]")
pytest.importorskip("xllamacpp", reason="needs tokka[llamacpp]")

from tokka.assembling import Facts, assemble, release_folder  # noqa: E402
from tokka.candidates.opening import asked  # noqa: E402
from tokka.candidates.released import open_released  # noqa: E402
from tokka.errors import IntegrityError, UsageError  # noqa: E402
from tokka.exporting import Exported, export, export_to, format_of, modelfile_of  # noqa: E402
from tokka.pipeline import (  # noqa: E402
    Build,
    Models,
    Sat,
    embedder_of,
    load_candidate,
    open_arm,
    open_language_model,
    prepare,
    run,
    sit_exam,
)
from tokka.project import load_project  # noqa: E402
from tokka.project_yaml import parse_yaml  # noqa: E402
from tokka.records import Answer, Candidate, Message, Results  # noqa: E402
from tokka.reexamining import reexamine  # noqa: E402
from tokka.release.reading import read_release  # noqa: E402
from tokka.release.records import Reexam  # noqa: E402
from tokka.store import read_record, write_json  # noqa: E402
from tokka.training.export_checking import Checked  # noqa: E402

# Twelve questions prove little: eight points of a hundred are what they can show.
POLICY = {"control": "base", "max_forgetting": 0.6, "alpha": 0.3, "draws": 200}


def with_policy(folder: Path, **policy: Any) -> None:
    path = folder / "tokka.yaml"
    project = parse_yaml(path.read_text(encoding="utf-8")).value
    project["policy"] = {**POLICY, "max_conversion_loss": 0.2, **policy}
    path.write_text(json.dumps(project), encoding="utf-8")


def opened(folder: Path, listener: Any) -> Build:
    return prepare(load_project(folder), listener)


@pytest.fixture(scope="module")
def shared(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project, to which exports are only added."""
    folder = tmp_path_factory.mktemp("exporting") / "project"
    shutil.copytree(finished.folder, folder)
    with_policy(folder)
    return folder


@pytest.fixture
def build(shared: Path, here: None, listener: Any) -> Build:
    return opened(shared, listener)


@pytest.fixture
def own(shared: Path, tmp_path: Path, here: None, listener: Any) -> Build:
    """A project that a test may break."""
    return opened(Path(shutil.copytree(shared, tmp_path / "project")), listener)


@pytest.fixture
def lora(build: Build) -> Candidate:
    return load_candidate(build, "lora-search")


def again(build: Build, candidate: Candidate, exported: Exported) -> Reexam:
    models = Models(build)
    try:
        return reexamine(build, candidate, exported, models)
    finally:
        models.close()


def sat(build: Build, candidate: Candidate) -> list[Answer]:
    """What was answered in the domain exam; nobody is asked."""
    models = Models(build)
    return sit_exam(build, candidate, build.exams["domain"], models, None).answers


# ---- what is exported --------------------------------------------------------------------------


def test_an_adapter_leaves_as_one_model_of_the_same_numbers(build: Build, lora: Candidate) -> None:
    exported = export(build, lora, "safetensors")
    assert exported.folder is not None
    assert exported.served.id != lora.id
    assert list(exported.served.artifacts) == ["weights", "index"]
    assert exported.served.artifacts["index"] == lora.artifacts["index"]
    told = json.loads((exported.folder / "generation_config.json").read_text())
    assert (told["eos_token_id"], told["do_sample"]) == (1, False)
    reexam = again(build, lora, exported)
    assert reexam.faults == ()
    assert reexam.candidate_id == exported.served.id
    assert reexam.same == {"domain": 1.0, "retention": 1.0}
    assert [c.side for c in reexam.comparisons] == ["loss", "loss"]
    assert all(c.control_id == lora.id for c in reexam.comparisons)


@pytest.mark.parametrize("format", ["f16", "q4_k_m"])
def test_a_gguf_passes_through_llama_cpp(format: Any, build: Build, lora: Candidate) -> None:
    if format == "q4_k_m":
        pytest.importorskip("libgguf", reason="needs tokka[quantise]")
    exported = export(build, lora, format)
    assert exported.is_gguf
    reexam = again(build, lora, exported)
    assert reexam.faults == ()
    assert {c.outcome for c in reexam.comparisons} == {"pass"}
    assert {c.margin for c in reexam.comparisons} == {0.2}
    before, after = (sat(build, c) for c in (lora, exported.served))
    equal = [(a, b) for a, b in zip(before, after, strict=True) if a.text == b.text]
    assert len(equal) >= 8  # both engines count what was said alike, its end with it
    assert [a.tokens_out for a, _ in equal] == [b.tokens_out for _, b in equal]
    assert 0 < max(a.tokens_out for a in before) < 6


def test_the_same_weights_are_written_once(build: Build) -> None:
    """`lora` and `lora-search` differ in their search alone."""
    one = export(build, load_candidate(build, "lora"), "safetensors")
    assert one.folder is not None
    before = {p: p.stat().st_mtime_ns for p in one.folder.rglob("*")}
    other = export(build, load_candidate(build, "lora-search"), "safetensors")
    assert other.folder == one.folder and other.served.id != one.served.id
    assert before == {p: p.stat().st_mtime_ns for p in one.folder.rglob("*")}


def test_what_changes_nothing_is_taken_where_no_format_is_asked(
    build: Build, lora: Candidate
) -> None:
    assert format_of(build, lora) == "safetensors"
    assert format_of(build, lora, "q8_0") == "q8_0"
    with pytest.raises(UsageError, match=r"the base model is no \.gguf file"):
        format_of(build, lora, "gguf")
    with pytest.raises(UsageError, match="is no endpoint"):
        export(build, lora, "endpoint")


def test_llama_cpps_own_server_gives_the_prompt_that_was_examined(
    build: Build, lora: Candidate
) -> None:
    exported = export(build, lora, "f16")
    text = "Which colour is the rope?"
    talk = [("system", "Be brief."), ("user", "Hm?"), ("assistant", "Yes."), ("user", text)]
    question = asked(text).model_copy(
        update={"messages": tuple(Message.model_validate({"role": r, "content": c})
                                  for r, c in talk)}
    )  # fmt: skip
    model: Any = open_language_model(build, exported.folder)
    with model:
        wanted = open_specialist(lora, model).prompt(question)
        messages = [{"role": role, "content": content} for role, content in talk]
        shown = model._client.post("/apply-template", json={"messages": messages}).json()["prompt"]
        assert shown == wanted.text
        body = {"content": shown, "add_special": True, "parse_special": True}
        assert tuple(model._client.post("/tokenize", json=body).json()["tokens"]) == wanted.ids


def open_specialist(candidate: Candidate, model: Any) -> Any:
    from tokka.candidates.specialist import Specialist

    arm = candidate.arm.model_copy(update={"retrieval": None})
    return Specialist(candidate.model_copy(update={"arm": arm}), model)


def test_an_export_of_ones_own_has_a_modelfile_beside_it(
    build: Build, lora: Candidate, tmp_path: Path
) -> None:
    written = export_to(build, lora, "f16", tmp_path / "out")
    names = {path.name for path in written}
    assert {"model.gguf", "Modelfile", "tokenizer.json"} <= names
    assert not names & {"manifest.json", "quantise.json"}
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert "FROM ./model.gguf\n" in text and "Without the search in the documents" in text
    assert 'PARAMETER stop """</s>"""\nPARAMETER stop """\n"""\n' in text
    with pytest.raises(UsageError, match="isn't an empty folder"):
        export_to(build, lora, "f16", tmp_path / "out")


def test_fixed_shots_stand_in_the_modelfile(build: Build) -> None:
    few = load_candidate(build, "few-shot")
    text = modelfile_of(build, few, export(build, few, "f16"))
    assert text.count("Somebody painted the") == 4  # two, with and without a system text


# ---- what doesn't leave ------------------------------------------------------------------------


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the file itself had shown nothing: the exam has to."""
    monkeypatch.setattr(
        "tokka.training.export_checking.check_export", lambda *a, **k: Checked((), False)
    )


def test_a_fault_of_the_file_is_told_before_any_exam(own: Build, listener: Any) -> None:
    lora = load_candidate(own, "lora-search")
    exported = export(own, lora, "safetensors")
    assert exported.folder is not None
    ends = exported.folder / "generation_config.json"
    ends.write_text(ends.read_text().replace("1", "7"))
    with pytest.raises(IntegrityError, match="missing or changed since it was made"):
        again(own, lora, exported)
    reseal(own, exported.folder)
    listener.tasks.clear()
    broken = rebound(own, exported)
    assert again(own, lora, broken).faults == (
        "generation_config.json ends an answer at the tokens [7], the examined model at [1]",
    )
    assert not any(": sit " in task for task in listener.tasks)


def reseal(build: Build, folder: Path) -> None:
    """As a faulty conversion would have left it: the manifest belongs to the files."""
    from tokka.store import sha256_file

    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["digests"] = {name: sha256_file(folder / name) for name in manifest["files"]}
    write_json(folder / "manifest.json", manifest)


def rebound(build: Build, exported: Exported) -> Exported:
    from dataclasses import replace

    from tokka.exporting import _served

    assert exported.folder is not None
    return replace(exported, served=_served(build, exported.served, exported.folder))


def test_a_model_quantised_to_nonsense_does_not_pass(
    own: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokka.training import quantise

    def noise(rows: Any, kind: Any, name: str) -> Any:
        drawn = torch.randn(rows.shape, generator=torch.Generator().manual_seed(len(name))).numpy()
        return encode(rows if kind.name == "F32" else drawn, kind, name)

    encode = quantise._encode
    monkeypatch.setattr(quantise, "_encode", noise)
    lora = load_candidate(own, "lora-search")
    exported = export(own, lora, "q8_0")
    (fault,) = again(own, lora, exported).faults
    assert fault.startswith("these tensors lost more than their bits explain: ")
    blind(monkeypatch)
    faults = " ".join(again(own, lora, exported).faults)
    assert "even the upper bound is beyond the allowed loss of 20.0 points" in faults
    assert "character pairs with the examined ones" in faults


def test_a_gguf_of_wrongly_merged_weights_does_not_pass(own: Build) -> None:
    """It holds what it was made from, which isn't what was examined."""
    from safetensors.torch import load_file, save_file

    lora = load_candidate(own, "lora-search")
    merged = export(own, lora, "safetensors").folder
    assert merged is not None
    tensors = load_file(str(merged / "model.safetensors"))
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name] * 1.25
    save_file(tensors, str(merged / "model.safetensors"), metadata={"format": "pt"})
    reseal(own, merged)
    assert again(own, lora, export(own, lora, "f16")).faults == (
        f"these tensors aren't the examined ones: {name}",
    )


def test_a_prompt_without_bos_does_not_pass(own: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    lora = load_candidate(own, "lora-search")
    exported = export(own, lora, "safetensors")
    assert exported.folder is not None
    path = exported.folder / "tokenizer.json"
    rules = json.loads(path.read_text())
    rules["post_processor"] = None
    path.write_text(json.dumps(rules))
    reseal(own, exported.folder)
    broken = rebound(own, exported)
    assert again(own, lora, broken).faults == (
        "its tokenizer's files aren't those of the model that was examined",
    )
    blind(monkeypatch)
    faults = again(own, lora, broken).faults
    (prompts,) = [f for f in faults if f.startswith("domain: 12 of 12 prompts")]
    assert "examined was ['<s>', " in prompts and "(BOS is missing)" in prompts


def test_another_template_does_not_pass(own: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base format lost, and a chat template that nobody examined in its place."""
    lora = load_candidate(own, "lora-search")
    exported = export(own, lora, "safetensors")
    assert exported.folder is not None
    (exported.folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
    )
    reseal(own, exported.folder)
    blind(monkeypatch)
    faults = again(own, lora, rebound(own, exported)).faults
    assert any(f.startswith("domain: 12 of 12 prompts aren't the examined ones") for f in faults)


def test_another_index_does_not_pass(own: Build) -> None:
    from dataclasses import replace

    lora = load_candidate(own, "lora-search")
    exported = export(own, lora, "safetensors")
    other = {**exported.served.artifacts, "index": "index-0@1"}
    swapped = exported.served.model_copy(update={"artifacts": other})
    with pytest.raises(IntegrityError, match="is gone; run again"):
        again(own, lora, replace(exported, served=swapped))
    dense = load_candidate(own, "rag-dense").artifacts["index"]
    other = {**exported.served.artifacts, "index": dense}
    swapped = exported.served.model_copy(update={"artifacts": other})
    (fault,) = again(own, lora, replace(exported, served=swapped)).faults
    assert fault.startswith(f"its index is {dense}, and index-")
    folder = own.workspace.steps / exported.served.artifacts["index"].partition("@")[0]
    part = next(folder.rglob("chunks.jsonl"))
    part.write_text(part.read_text().replace("blue", "pink"))
    with pytest.raises(IntegrityError, match=r"chunks\.jsonl: missing or changed"):
        again(own, lora, exported)


def test_too_few_questions_hold_back_a_conversion_but_no_copy(own: Build, listener: Any) -> None:
    with_policy(own.project.root, max_conversion_loss=0.01)
    build = opened(own.project.root, listener)
    lora = load_candidate(build, "lora-search")
    faults = again(build, lora, export(build, lora, "f16")).faults
    assert len(faults) == 2  # of both exams
    for fault in faults:
        assert "inconclusive against the allowed loss of 1.0 points" in fault
        assert "questions would settle it" in fault
    copy = again(build, lora, export(build, lora, "safetensors"))
    assert copy.faults == ()
    assert {c.outcome for c in copy.comparisons} == {"inconclusive"}
    assert all("bit for bit" in c.reason for c in copy.comparisons)


@pytest.mark.parametrize("what", ["error", "waiting"])
def test_an_exam_with_a_hole_never_passes(
    what: str, build: Build, lora: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokka import pipeline, reexamining

    exported = export(build, lora, "safetensors")
    sit, scores = pipeline.sit_exam, reexamining._scores

    def failing(b: Any, candidate: Candidate, *rest: Any) -> Sat:
        from dataclasses import replace

        sat = sit(b, candidate, *rest)
        if what == "waiting" or candidate.id == lora.id:
            return sat
        first = sat.answers[0].model_copy(update={"status": "error", "error": "x"})
        return replace(sat, answers=[first, *sat.answers[1:]])

    def unjudged(sat: Sat) -> Any:
        found = scores(sat)
        if what == "error" or sat.candidate.id == lora.id:
            return found
        return [found[0].model_copy(update={"status": "waiting", "value": None}), *found[1:]]

    monkeypatch.setattr(pipeline, "sit_exam", failing)
    monkeypatch.setattr(reexamining, "_scores", unjudged)
    faults = again(build, lora, exported).faults
    told = {"error": "1 of 12 answers of the exported file failed",
            "waiting": "1 answers of the exported file wait for a judge"}  # fmt: skip
    assert faults[0].startswith("domain: " + told[what])
    assert len(faults) == 2  # and of retention


# ---- weights that are a GGUF already -----------------------------------------------------------


@pytest.fixture
def small(harbour: Path, tmp_path: Path, here: None, listener: Any, only_arms: Any) -> Path:
    """A base model, and the same quantised as an arm's last stage."""
    folder = Path(shutil.copytree(harbour, tmp_path / "small"))
    only_arms(folder, "base", policy={**POLICY, "max_conversion_loss": 0.2})
    path = folder / "tokka.yaml"
    project = json.loads(path.read_text())
    prompt = project["arms"]["base"]["prompt"]
    project["arms"]["small"] = {"prompt": prompt, "weights": [{"quantise": {"type": "q8_0"}}]}
    project["exams"] = {"domain": project["exams"]["domain"]}
    path.write_text(json.dumps(project))
    run(load_project(folder), listener)
    return folder


def test_a_quantised_arm_leaves_as_the_very_file(small: Path, listener: Any) -> None:
    build = opened(small, listener)
    candidate = load_candidate(build, "small")
    assert format_of(build, candidate) == "q8_0"
    with pytest.raises(UsageError, match=r"is a GGUF \(q8_0\), and f16 would be another model"):
        export(build, candidate, "f16")
    exported = export(build, candidate, "q8_0")
    reexam = again(build, candidate, exported)
    assert reexam.faults == () and reexam.same == {"domain": 1.0}
    base_model_that_is_a_gguf(small, exported, listener)


def base_model_that_is_a_gguf(folder: Path, exported: Exported, listener: Any) -> None:
    """Also one with the base format as its template, as we export it."""
    assert exported.folder is not None
    shutil.copyfile(exported.folder / "model.gguf", folder / "tide.gguf")
    project = json.loads((folder / "tokka.yaml").read_text())
    project["base_model"] = "tide.gguf"
    del project["arms"]["small"]
    (folder / "tokka.yaml").write_text(json.dumps(project))
    run(load_project(folder), listener)
    build = opened(folder, listener)
    candidate = load_candidate(build, "base")
    assert format_of(build, candidate) == "gguf"
    whole = export(build, candidate, "gguf")
    assert whole.is_gguf
    reexam = again(build, candidate, whole)
    assert reexam.faults == () and reexam.same == {"domain": 1.0}


# ---- a release's folder ------------------------------------------------------------------------


def facts(build: Build, **other: Any) -> Facts:
    results = build.workspace.root / "reports" / "tokka" / "results.json"
    verdict = next(
        arm.verdict
        for arm in read_record(results, Results).arms
        if arm.arm.name == "lora-search" and arm.verdict is not None
    )
    told = {
        "model": "harbour", "version": 1, "verdict": verdict, "results": results,
        "base_licence": "ours", "terms": (), "built_by": "aya", "built_at": "2026-11-23T00:00:00Z",
    }  # fmt: skip
    return Facts(**{**told, **other})


@pytest.fixture
def released(own: Build) -> Iterator[tuple[Build, Candidate, Path, Callable[..., Path]]]:
    lora = load_candidate(own, "lora-search")
    served, other = export(own, lora, "safetensors"), export(own, lora, "f16")
    reexams = {e.format: again(own, lora, e) for e in (served, other)}

    def make(**changed: Any) -> Path:
        return assemble(own, lora, served, [other], reexams, facts(own, **changed))

    yield own, lora, make(), make


def test_a_release_answers_from_its_own_folder_as_it_was_examined(
    released: Any, tmp_path: Path
) -> None:
    build, lora, folder, _ = released
    question = asked("Which colour is the rope of the north pier?")
    models = Models(build)
    (examined,) = open_arm(build, lora, models).answer([question])
    models.close()
    alone = tmp_path / "elsewhere" / "release"
    shutil.copytree(folder, alone)
    shutil.rmtree(build.workspace.root)  # nothing else is needed
    release = read_release(alone)
    assert (release.name, release.candidate.id) == ("harbour-1", lora.id)
    assert [a.format for a in release.artefacts] == ["safetensors", "f16"]
    assert all(name in release.files for a in release.artefacts for name in a.files)
    assert "artefacts/f16/Modelfile" in release.files
    assert {"exam/results.json", "exam/candidate.json", "exam/f16/domain/scores.jsonl"} <= set(
        release.files
    )
    assert release.artefacts[0].engine.startswith("torch ")
    assert release.artefacts[1].engine.startswith("xllamacpp ")

    def open_model(weights: Path | None, adapters: Any) -> Any:
        assert weights is not None and weights.is_relative_to(alone) and not adapters
        return open_language_model(build, weights)

    with open_released(alone, open_model=open_model, open_embedder=lambda: embedder_of(build)) as s:
        (answer,) = s.answer([question])
    assert (answer.text, answer.prompt_sha256) == (examined.text, examined.prompt_sha256)
    assert answer.passages == examined.passages and answer.passages
    assert answer.candidate_id == release.served.id


def test_a_release_is_made_once_and_its_number_used_once(released: Any) -> None:
    build, lora, folder, make = released
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert make(built_at="2026-12-24T00:00:00Z") == folder
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    other = load_candidate(build, "lora")
    exported = export(build, other, "safetensors")
    reexams = {"safetensors": again(build, other, exported)}
    with pytest.raises(IntegrityError, match=f"holds the candidate {lora.id} already"):
        assemble(build, other, exported, [], reexams, facts(build))
    two = assemble(build, other, exported, [], reexams, facts(build, version=2))
    assert two == release_folder(build, "harbour", 2) and read_release(two).version == 2


def test_what_was_not_examined_or_failed_is_never_assembled(own: Build) -> None:
    lora = load_candidate(own, "lora-search")
    served = export(own, lora, "safetensors")
    good = Reexam(candidate_id=served.served.id)
    for reexams, told in (
        ({}, "it wasn't examined again"),
        ({"f16": good}, "it wasn't examined again"),
        ({"safetensors": Reexam(candidate_id=lora.id)}, "it wasn't examined again"),
        ({"safetensors": good.model_copy(update={"faults": ("BOS twice",)})}, "BOS twice"),
    ):
        with pytest.raises(UsageError, match=f"can't be shipped: {told}"):
            assemble(own, lora, served, [], reexams, facts(own))  # type: ignore[arg-type]
    assert not release_folder(own, "harbour", 1).exists()


def test_an_assembly_that_was_killed_leaves_no_release_and_goes_on(
    released: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, folder, make = released
    shutil.rmtree(folder)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tokka.assembling.write_records", killed)
        with pytest.raises(KeyboardInterrupt):
            make()
    assert not folder.exists()
    assert read_release(make()).name == "harbour-1"
