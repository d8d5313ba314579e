"""The side-by-side benchmarks do the same work on both sides before they print a ratio."""

from __future__ import annotations

import gzip
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CHOICES = {f"choice{i}": text for i, text in enumerate("一二三四五")}
LAW = {
    "コンテキスト": "資料。\n",
    "問題文": "正しいのは？",
    "選択肢": "a 一\nb 二\nc 三\nd 四",
    "output": "c",
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A benchmark's module by name, as it is found when its folder comes first on the path."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """JGLUE as published and as archived, and lawqa_jp, with rows enough for every count."""
    folder = tmp_path / "data"
    published = folder / "JGLUE" / "datasets" / "jcommonsenseqa-v1.3"
    published.mkdir(parents=True)
    rows = [{**CHOICES, "question": f"色は{i}？", "label": i % 5} for i in range(210)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (published / "train-v1.3.json").write_text(lines, encoding="utf-8")
    archived = folder / "jcommonsenseqa-v1.3_valid-v1.3.json.gz"
    archived.write_bytes(gzip.compress(lines.encode()))
    samples = [{**LAW, "ファイル名": str(i)} for i in range(70)]
    text = json.dumps({"samples": samples}, ensure_ascii=False)
    (folder / "selection.json").write_text(text, encoding="utf-8")
    return folder


# ---- the data and the exams ---------------------------------------------------------------------


def test_the_works_are_the_first_questions_and_shots_of_the_published_files(
    module: Callable[[str], Any], data: Path
) -> None:
    works = module("exam_work").works(data)
    assert {key: len(work.documents) for key, work in works.items()} == {
        "5shot": 200,
        "0shot_long": 60,
    }
    shots = "".join(f"質問：色は{i}？\n答え：{choice}\n\n" for i, choice in enumerate("一二三四五"))
    assert works["5shot"].prompts[7] == f"{shots}質問：色は7？\n答え："
    assert works["5shot"].documents[7].answer == 2
    law = works["0shot_long"]
    assert law.prompts[0] == "資料。\n\n質問：正しいのは？\n答え："
    assert law.documents[0].choices == ("一", "二", "三", "四")
    assert law.documents[0].answer == 2


def test_a_jsquad_question_comes_with_its_paragraph_without_the_title(
    module: Callable[[str], Any], tmp_path: Path
) -> None:
    asked = [{"question": "いつ？", "answers": [{"text": "五月"}]}]
    paragraph = {"context": "梅雨 [SEP] 五月から。", "qas": asked}
    text = json.dumps({"data": [{"title": "梅雨", "paragraphs": [paragraph]}]})
    (tmp_path / "jsquad-v1.3_valid-v1.3.json.gz").write_bytes(gzip.compress(text.encode()))
    assert module("public_data").jsquad(tmp_path) == [{**asked[0], "context": "五月から。"}]


def test_missing_data_says_where_to_get_it(
    module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public_data = module("public_data")
    with pytest.raises(SystemExit, match=r"nowhere is no folder\n.*yahoojapan/JGLUE"):
        public_data.data_folder("nowhere")
    monkeypatch.setattr(public_data, "USUAL", tmp_path / "no")
    with pytest.raises(SystemExit, match="no data folder was named\n"):
        public_data.data_folder(None)
    with pytest.raises(SystemExit, match=r"selection.*\n.*yahoojapan/JGLUE"):
        public_data.lawqa(tmp_path)


def test_a_task_of_the_harness_shows_the_first_shots_and_adds_nothing_of_its_own(
    module: Callable[[str], Any], data: Path, tmp_path: Path
) -> None:
    exam_work = module("exam_work")
    work = exam_work.works(data)["5shot"]
    exam_work.write_task(work, tmp_path)
    task = json.loads((tmp_path / f"{work.name}.yaml").read_text(encoding="utf-8"))
    assert task["fewshot_config"] == {"sampler": "first_n"}
    assert (task["num_fewshot"], task["target_delimiter"], task["fewshot_delimiter"]) == (
        *(5, ""),
        "\n\n",
    )
    files = task["dataset_kwargs"]["data_files"]
    rows = [json.loads(line) for line in Path(files["train"]).read_text("utf-8").splitlines()]
    assert [row["text"] for row in rows] == [shot.text for shot in work.shots]
    assert len(Path(files["test"]).read_text("utf-8").splitlines()) == 200


# ---- exams --------------------------------------------------------------------------------------


@pytest.fixture
def in_this_process(module: Callable[[str], Any]) -> Callable[..., Any]:
    """Stands in for `run`. The peer reads its task files and renders them by the harness's rules;
    the numbers are then tokka's, so that both must agree."""
    own = module("exam_own")

    def sitting(job: Any, asked: Any) -> Any:
        task = json.loads(Path(job["tasks"], f"{asked['task']}.yaml").read_text("utf-8"))
        files = task["dataset_kwargs"]["data_files"]

        def rows(split: str) -> list[Any]:
            lines = Path(files[split]).read_text("utf-8").splitlines()
            return [json.loads(line) for line in lines]

        shots = rows("train")[: task["num_fewshot"]] if task["num_fewshot"] else []
        shown = [s["text"] + s["choices"][s["answer"]] for s in shots]
        documents = rows("test")[: asked["limit"]]
        delimiter = task["fewshot_delimiter"]
        return {
            "name": asked["task"],
            "prompts": [delimiter.join([*shown, d["text"]]) for d in documents],
            "choices": [d["choices"] for d in documents],
            "answers": [d["answer"] for d in documents],
        }

    def run(command: list[str], job: Any, environment: Any) -> Any:
        if command[-1].endswith("exam_peer.py"):
            job = {**job, "sittings": [sitting(job, asked) for asked in job["sittings"]]}
        found = own.work(job)
        about = {"device": "cpu", "threads": 1, "versions": {}}
        # As in a result file: tuples become lists.
        return json.loads(json.dumps({**found, **about}))

    return run


def test_both_sides_sit_the_same_exams_and_the_line_has_every_figure(
    module: Callable[[str], Any],
    in_this_process: Callable[..., Any],
    data: Path,
    tiny_folder: Path,
    here: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exam_work, benchmark = module("exam_work"), module("exam_vs_lm_eval")
    monkeypatch.setattr(benchmark, "run", in_this_process)
    every = {key: exam_work.first(work, 3) for key, work in exam_work.works(data).items()}
    measured = benchmark.compare(every, 2, str(tiny_folder), "python")
    found = benchmark.summary(measured)
    assert list(found) == [
        *("ratio_5shot", "ratio_0shot_long", "agreement_fp32", "max_abs_diff_fp32"),
        *("accuracy_ours", "accuracy_peer", "peak_memory_ratio"),
    ]
    assert (found["agreement_fp32"], found["max_abs_diff_fp32"]) == (1.0, 0.0)
    assert [len(turn["5shot"]["loglikelihoods"]) for turn in measured["own"]] == [3, 3]
    assert len(measured["own_exact"]["0shot_long"]["loglikelihoods"]) == 2
    assert "sent" not in json.dumps(benchmark.brief(measured))
    assert "JCommonsenseQA valid, 5 shots" in benchmark.report(measured)


def test_tokka_is_asked_what_the_harness_would_ask_and_scores_it_right(
    module: Callable[[str], Any], tiny_folder: Path, make_tokenizer: Callable[..., Any], here: None
) -> None:
    torch = pytest.importorskip("torch")
    from tokka.models.torch_model import load_module

    prompt, choices = "質問：何？\n答え：", ["円", "万円"]
    asked = {"name": "x", "prompts": [prompt], "choices": [choices], "answers": [1]}
    job = {"model": str(tiny_folder), "dtype": "float32", "sittings": [asked]}
    found = module("exam_own").work(job)["sittings"][0]
    encode = make_tokenizer()
    whole = [list(encode(prompt + choice).input_ids) for choice in choices]
    length = len(encode(prompt).input_ids)
    assert [[list(p), list(o)] for p, o in found["sent"]] == [
        [ids[:length], ids[length:]] for ids in whole
    ]
    network = load_module(tiny_folder, "float32")
    with torch.inference_mode():
        for ids, value in zip(whole, found["loglikelihoods"][0], strict=True):
            logits = network(torch.tensor([ids])).logits[0].log_softmax(-1)
            terms = [float(logits[i - 1, ids[i]]) for i in range(length, len(ids))]
            assert value == pytest.approx(sum(terms), abs=1e-4)
    first, second = found["loglikelihoods"][0]
    assert found["accuracy"] == float(second > first)


def test_other_token_ids_or_counts_give_no_ratio(module: Callable[[str], Any]) -> None:
    check = module("exam_vs_lm_eval").check_same_work
    own = {"a": {"sent": [[[1, 2], [3]], [[1, 2], [4]]]}}
    check(own, own)
    with pytest.raises(SystemExit, match="tokka asked 2 options, the peer 1"):
        check(own, {"a": {"sent": own["a"]["sent"][:1]}})
    with pytest.raises(SystemExit, match="option 1 was not the same"):
        check(own, {"a": {"sent": [own["a"]["sent"][0], [[1, 2], [5]]]}})


def test_the_exam_figures_follow_from_the_sittings(module: Callable[[str], Any]) -> None:
    def sitting(seconds: float, peak: int, values: list[list[float]], accuracy: float) -> Any:
        return {
            **{"seconds": seconds, "peak_bytes": peak, "loglikelihoods": values},
            "accuracy": accuracy,
        }

    def rounds(first: float, second: float, peak: int, accuracy: float) -> Any:
        turn = {
            "5shot": sitting(first, peak, [], accuracy),
            "0shot_long": sitting(second, peak // 2, [], 0.9),
        }
        slower = {key: {**s, "seconds": 3 * s["seconds"]} for key, s in turn.items()}
        return [turn, slower]

    exact = {"5shot": sitting(1, 1, [[-1.0, -2.0], [-3.0, -2.5]], 0)}
    other = {"5shot": sitting(1, 1, [[-1.0, -2.0], [-3.0, -3.25]], 0)}
    found = module("exam_vs_lm_eval").summary(
        {
            **{"own": rounds(1.0, 2.0, 300, 0.5), "peer": rounds(20.0, 8.0, 600, 0.4)},
            **{"own_exact": exact, "peer_exact": other},
        }
    )
    assert found == {
        "ratio_5shot": 20.0,
        "ratio_0shot_long": 4.0,
        "agreement_fp32": 0.5,
        "max_abs_diff_fp32": 0.75,
        "accuracy_ours": 0.5,
        "accuracy_peer": 0.4,
        "peak_memory_ratio": 0.5,
    }


def test_a_named_python_without_the_right_harness_is_refused(
    module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = module("peer_environment")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 0.4.12 2.13.0\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setenv(peer.NAMED, str(python))
    with pytest.raises(SystemExit, match=r"has lm-eval 0\.4\.12, wanted is 0\.4\.13; install it"):
        peer.python_of_the_peer()
    python.write_text("#!/bin/sh\necho 0.4.13 2.13.0\n", encoding="utf-8")
    assert peer.python_of_the_peer() == str(python)
    monkeypatch.setenv(peer.NAMED, str(tmp_path / "absent"))
    with pytest.raises(SystemExit, match="can't be started"):
        peer.python_of_the_peer()


# ---- processes ----------------------------------------------------------------------------------


def test_a_contestant_gets_its_job_tells_its_progress_and_hands_back_what_it_found(
    module: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measuring = module("measuring")
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from measuring import contestant, tell, timed\n"
        "def work(job):\n"
        "    tell('half way')\n"
        "    if job['n'] < 0: raise ValueError('below zero')\n"
        "    run = timed(lambda: job['n'] + 1)\n"
        "    return {'n': run.value, 'peak_bytes': run.peak_bytes, 'seconds': run.seconds}\n"
        "contestant(work)\n",
        encoding="utf-8",
    )
    command = [sys.executable, str(program)]
    found = measuring.run(command, {"n": 4}, measuring.environment())
    assert found["n"] == 5
    assert found["peak_bytes"] > 2**20
    assert found["seconds"] >= 0
    assert "half way" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="below zero"):
        measuring.run(command, {"n": -1}, measuring.environment())


# ---- generation ---------------------------------------------------------------------------------


def test_prompts_are_one_a_paragraph_and_evenly_from_short_to_long(
    module: Callable[[str], Any],
) -> None:
    rows = [{"context": "字" * n, "question": q} for n in range(1, 102) for q in "甲乙"]
    chosen = module("generate_vs_transformers").pick(rows, 11)
    lengths = [len(row["context"]) for row in chosen]
    assert sorted(lengths) == [1, *range(11, 102, 10)]
    assert lengths != sorted(lengths)


def test_no_prompt_asks_about_a_paragraph_of_the_shots(module: Callable[[str], Any]) -> None:
    rows = [{"context": c, "question": q} for c in "一二三四" for q in "甲乙"]
    shots, asked = module("generate_vs_transformers").set_apart(rows, 2)
    assert shots == [rows[0], rows[2]]
    assert asked == rows[4:]


def test_transformers_and_tokka_write_the_same_texts_and_count_the_same_tokens(
    module: Callable[[str], Any], tiny_folder: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tokka.models.opening import open_renderer
    from tokka.records import Message

    renderer = open_renderer(tiny_folder, "ja")
    texts = ["何", "資料と質問と答え、融資の額は何円", "締切は翌営業日の正午", "長", "円万円"]
    prompts = [list(renderer.prompt((Message(role="user", content=t),)).ids) for t in texts]
    job = {
        **{"model": str(tiny_folder), "dtype": "float32", "prompts": prompts},
        **{"max_tokens": 24, "batch": 2},
    }
    contestants = module("generate_contestants")
    said, watched = contestants._said, []

    def watch(*given: Any) -> Any:
        watched.append(given)
        return said(*given)

    monkeypatch.setattr(contestants, "_said", watch)
    own, peer = contestants.tokka(job), contestants.transformers(job)
    assert len(watched) == 3, "every batch of the peer may end early"
    assert own["texts"] == peer["texts"]
    assert own["tokens"] == peer["tokens"]
    assert own["prompt_tokens"] == peer["prompt_tokens"] == [len(ids) for ids in prompts]
    module("generate_vs_transformers").check_same_work(prompts, {"tokka": own, "peer": peer})


def test_an_answer_ends_at_eos_or_at_a_line_break_after_something_visible(
    module: Callable[[str], Any], make_tokenizer: Callable[..., Any]
) -> None:
    torch = pytest.importorskip("torch")
    from tokka.models.rendering import TokenRenderer

    contestants = module("generate_contestants")
    tokenizer = make_tokenizer()
    renderer = TokenRenderer(tokenizer, "ja")

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    def cut(spoken: list[int]) -> tuple[str, int]:
        written = contestants._cut(spoken, renderer)
        return written.text, written.tokens

    end = tokenizer.eos_token_id
    assert cut(ids("\n円\n万円")) == ("\n円", 3)
    assert cut([*ids("円"), end, *ids("万")]) == ("円", 1)
    assert cut(ids("万円")) == ("万円", 2)
    ended = contestants._said(renderer, 1)
    rows = torch.tensor([[1, *ids("\n円万")], [1, *ids("円\n万")]])
    assert ended(rows[:, :3], None).tolist() == [False, True]
    assert ended(rows[:, :4], None).tolist() == [False, True]


def test_lost_prompts_or_answers_give_no_ratio(module: Callable[[str], Any]) -> None:
    check = module("generate_vs_transformers").check_same_work
    check([[1, 2]], {"x": {"prompt_tokens": [2], "texts": ["a"]}})
    with pytest.raises(SystemExit, match="x saw"):
        check([[1, 2]], {"x": {"prompt_tokens": [3], "texts": ["a"]}})
    with pytest.raises(SystemExit, match="x wrote 0 answers to 1"):
        check([[1, 2]], {"x": {"prompt_tokens": [2], "texts": []}})


def test_the_generation_figures_count_tokens_a_second_against_the_faster_llamacpp(
    module: Callable[[str], Any],
) -> None:
    benchmark = module("generate_vs_transformers")

    def result(tokens: int, seconds: float) -> Any:
        return {
            **{"tokens": [tokens], "seconds": seconds, "texts": ["a"], "prompt_tokens": [3]},
            **{"peak_bytes": 2**20, "versions": {}},
        }

    turn = {
        "transformers": result(10, 10.0),
        "tokka": result(12, 2.0),
        "llamacpp 4 bit": result(10, 5.0),
        "llamacpp bf16": result(10, 2.5),
    }
    exact = {"tokka": result(1, 1.0), "transformers": result(1, 1.0)}
    measured = {"rounds": [turn, turn], "exact": exact}
    assert benchmark.summary(measured) == {
        "ratio_transformers": 6.0,
        "ratio_llamacpp": 1.5,
        "identical_fp32": True,
    }
    assert "1 of 1 texts identical" in benchmark.report(measured)
    exact["tokka"]["texts"] = ["b"]
    without = {key: value for key, value in turn.items() if "llama" not in key}
    found = benchmark.summary({"rounds": [without], "exact": exact})
    assert found["ratio_llamacpp"] is None
    assert found["identical_fp32"] is False


def test_a_quantised_gguf_is_written_out_again_in_bf16(
    module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")
    monkeypatch.setenv("TOKKA_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "model-q8.gguf"
    writer = gguf.GGUFWriter(str(source), "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_file_type(7)  # mostly Q8_0
    kinds = gguf.GGUFValueType
    writer.add_key_value("llama.small", [3, 4], kinds.ARRAY, sub_type=kinds.UINT8)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    matrix = numpy.linspace(-1, 1, 64, dtype=numpy.float32).reshape(2, 32)
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("blk.0.w", gguf.quantize(matrix, kind), raw_dtype=kind)
    writer.add_tensor("norm", numpy.ones(4, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    written = gguf.GGUFReader(str(module("gguf_bf16").bf16_of(source)))
    found = {tensor.name: tensor for tensor in written.tensors}
    assert found["blk.0.w"].tensor_type == gguf.GGMLQuantizationType.BF16
    values = gguf.dequantize(found["blk.0.w"].data, found["blk.0.w"].tensor_type)
    assert numpy.allclose(values.reshape(2, 32), matrix, atol=0.02)
    assert found["norm"].tensor_type == gguf.GGMLQuantizationType.F32
    assert written.fields["llama.block_count"].contents() == 1
    assert written.fields["llama.small"].types == [kinds.ARRAY, kinds.UINT8]
    assert written.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_BF16
    assert written.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]
