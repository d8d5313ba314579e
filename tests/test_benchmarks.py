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


# ---- training -----------------------------------------------------------------------------------


@pytest.fixture
def asked(module: Callable[[str], Any]) -> list[Any]:
    """Two questions on each of 30 passages."""
    asked = module("train_work").Asked
    return [
        asked(f"資料{'円' * n}。", f"{word}はいつですか。", f"{word}の正午")
        for n in range(1, 31)
        for word in ("締切", "融資")
    ]


def test_heldout_pairs_are_about_other_passages_and_only_the_answer_is_learnt(
    module: Callable[[str], Any], asked: list[Any], make_tokenizer: Callable[..., Any]
) -> None:
    pytest.importorskip("torch")
    from tokka.models.rendering import TokenRenderer

    renderer = TokenRenderer(make_tokenizer(), "ja")
    work = module("train_work").short_answers("x", asked, renderer, train=40, heldout=7)
    assert (len(work.train), len(work.heldout)) == (40, 7)

    def passages(pairs: Any) -> set[str]:
        return {renderer.decode(pair.ids[: pair.start]).split("質")[0] for pair in pairs}

    assert not passages(work.train) & passages(work.heldout)
    for pair in (*work.train, *work.heldout):
        assert renderer.decode(pair.ids[pair.start :]).endswith("正午")
        assert pair.ids[-1] in renderer.stop_ids
    with pytest.raises(SystemExit, match="99 pairs were wanted, 52 are there; take fewer"):
        module("train_work").short_answers("x", asked, renderer, train=99, heldout=7)


def test_windows_have_one_length_and_heldout_ones_come_from_other_texts(
    module: Callable[[str], Any], make_tokenizer: Callable[..., Any]
) -> None:
    pytest.importorskip("torch")
    from tokka.models.rendering import TokenRenderer

    renderer = TokenRenderer(make_tokenizer(), "ja")
    texts = [word * 70 for word in ("締切", "融資", "資料", "質問", "万円")]
    cut = module("train_work").running_text
    work = cut("x", texts, renderer, train=3, heldout=2, window=16)
    assert {len(pair.ids) for pair in (*work.train, *work.heldout)} == {16}
    assert {pair.start for pair in work.train} == {1}

    def words(pairs: Any) -> set[str]:
        return {renderer.decode(pair.ids[2:4]) for pair in pairs}

    assert not words(work.train) & words(work.heldout)
    with pytest.raises(SystemExit, match="take fewer"):
        cut("x", texts, renderer, train=300, heldout=2, window=16)


def test_without_data_the_projects_own_example_is_asked_about(module: Callable[[str], Any]) -> None:
    title, asked, texts = module("train_work").read(None)
    assert title == "examples/aoba"
    assert len(asked) > 160
    assert asked[0].passage in texts
    assert asked[0].answer


def test_the_peer_and_tokka_train_on_the_same_texts_and_the_line_has_every_figure(
    module: Callable[[str], Any],
    asked: list[Any],
    tiny_folder: Path,
    make_tokenizer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for needed in ("torch", "peft", "trl"):
        pytest.importorskip(needed)
    from tokka.models.rendering import TokenRenderer

    benchmark, work = module("train_vs_trl"), module("train_work")
    renderer = TokenRenderer(make_tokenizer(), "ja")
    works = {
        "lora": work.short_answers("x", asked, renderer, train=12, heldout=3),
        "pretrain": work.running_text(
            "x", ["締切と融資の資料" * 40] * 4, renderer, train=14, heldout=2, window=16
        ),
    }
    size = benchmark.Size(
        *(12, 3, 14, 2, 2, 2, 2), ("options",), ("compact", "compact, packed"), ("pretrain",)
    )

    def in_this_process(command: list[str], job: Any, environment: Any) -> Any:
        assert "OMP_NUM_THREADS" not in environment
        name = Path(command[-1]).stem
        if name == "train_roofline":
            monkeypatch.setattr(module(name), "SIDE", 64)
            monkeypatch.setattr(module(name), "SECONDS", 0.01)
        found = module(name).work({**job, "dtype": "float32"})
        return json.loads(json.dumps({**found, "device": "cpu", "threads": 1, "versions": {}}))

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(benchmark, "run", in_this_process)
    monkeypatch.setattr(benchmark, "BATCH_TOKENS", 120)
    measured = benchmark.compare(works, size, str(tiny_folder), sys.executable)
    found = benchmark.summary(measured)
    assert list(found)[:7] == [
        *("ratio_lora", "ratio_lora_tuned_peer", "ratio_pretrain", "heldout_loss_ours"),
        *("heldout_loss_peer", "peak_memory_ratio", "roofline_share"),
    ]
    runs, losses = measured["runs"], measured["losses"]
    assert runs["documented"]["partial"]
    assert set(losses["lora"]) >= {"before", "tokka", measured["tuned"]}
    assert "documented" not in losses["lora"], "it trained on a part"
    for method, name in (("lora", "tokka"), ("pretrain", "tokka pretrain")):
        trained = runs[name]
        assert trained["tokens_in_all"] == works[method].tokens
        assert losses[method][name] < losses[method]["before"]
    assert losses["lora"][measured["tuned"]] < losses["lora"]["before"]
    shown = benchmark.report(measured)
    assert "GFLOP a token" in shown
    assert "tried, compact, packed" in shown


def test_a_text_more_or_a_token_less_gives_no_ratio(module: Callable[[str], Any]) -> None:
    work = module("train_work")
    digest = module("train_peer").digest
    check = module("train_vs_trl").check_same_work
    pairs = (work.Pair((1, 2, 3), 2), work.Pair((4, 5), 1))
    whole = work.Work("x", pairs, ())
    seen = [digest(pair.ids) for pair in pairs]
    found = {"name": "y", "partial": False, "tokens_in_all": 5, "learnt_in_all": 2}
    check({**found, "seen": seen}, whole)
    check(found, whole)
    check({**found, "seen": seen[:1], "partial": True, "tokens_in_all": 3}, whole)
    with pytest.raises(SystemExit, match="trained on 1 texts, 0 of them not in the work of 2"):
        check({**found, "seen": seen[:1]}, whole)
    with pytest.raises(SystemExit, match="trained on 3 texts, 0 of them"):
        check({**found, "seen": [*seen, seen[0]]}, whole)
    with pytest.raises(SystemExit, match="1 of them not in the work"):
        check({**found, "seen": [digest([9])], "partial": True}, whole)
    with pytest.raises(SystemExit, match=r"5 tokens and learnt 3; the work has 5 and 2"):
        check({**found, "learnt_in_all": 3}, whole)


def test_a_training_is_timed_from_the_end_of_its_first_step(module: Callable[[str], Any]) -> None:
    speed = module("train_vs_trl").speed
    assert speed({"ends": [50.0, 52.0, 54.0], "tokens": [1000, 300, 100, 999]}) == 100.0
    with pytest.raises(SystemExit, match="1 steps are too few"):
        speed({"ends": [1.0], "tokens": [10]})


def test_the_roofline_counts_what_a_small_model_multiplies(module: Callable[[str], Any]) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    roofline = module("train_roofline")
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        attn_implementation="eager",
    )
    ids = torch.arange(12)[None]
    with FlopCounterMode(display=False) as counter:
        LlamaForCausalLM(config)(input_ids=ids, labels=ids).loss.backward()
    terms = roofline.required(config, [[ids[0].tolist(), 0]], None)
    # torch counts all keys, seen or not.
    terms["attention"] *= 12 * 12 / (12 * 13 / 2)
    assert sum(terms.values()) == pytest.approx(counter.get_total_flops(), rel=0.01)
    lora = roofline.required(config, [[ids[0].tolist(), 10]], 4)
    assert lora["body"] == pytest.approx(terms["body"] * 4 / 6)
    assert lora["head"] == 4 * 64 * 32 * 2
    assert lora["adapters"] == 6 * 12 * 4 * 2 * (2 * 32 + 2 * 48 + 32 + 32 + 2 * 80 + 80)


def test_a_sliding_window_hides_keys_from_the_roofline(module: Callable[[str], Any]) -> None:
    from types import SimpleNamespace

    config = SimpleNamespace(
        layer_types=["full_attention", "sliding_attention"], sliding_window=3, num_hidden_layers=2
    )
    whole, slid = 1 + 2 + 3 + 4 + 5, 1 + 2 + 3 + 3 + 3
    assert module("train_roofline").visible_keys(config, 5) == whole + slid
    config.layer_types = None
    assert module("train_roofline").visible_keys(config, 5) == 2 * whole
