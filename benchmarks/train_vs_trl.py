"""tokka against TRL 1.16 `SFTTrainer` (LoRA) and transformers' `Trainer` (pretraining).

    python benchmarks/train_vs_trl.py [--data FOLDER] [--quick] [--profile FOLDER] [--out FILE]

Work: JSQuAD questions after their paragraphs with short answers, and windows of 512 tokens of its
articles; without data, the project's own example. Both sides get the same token ids, model, rank,
learning rate, schedule, one epoch and about 1,024 tokens a step. TRL runs as its documentation
shows it, with the best of its options, and with its head computed where something is learnt, which
no option turns on (`train_setups`); the fastest after the documented one is the tuned peer.

Speed is real tokens, padding not counted, over the time from the end of the first step to that of
the last. Memory is the most that each process held. Held-out losses come from one plain float32
forward pass over everybody's saved weights. `--quick` trains on less, lets the slow set-ups make
only a few steps, and tries fewer of them. The last line is JSON; ratios above 1 are in tokka's
favour.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import train_setups
from measuring import Facts, environment, machine, run, say, table
from peer_environment import TRL, python_of_the_peer
from public_data import USUAL, add_data_option, data_folder
from train_peer import digest
from train_work import Work, read, running_text, short_answers

HERE = Path(__file__).parent
BATCH_TOKENS = 1024
RANK, ALPHA = 16, 32.0
LEARNING_RATES = {"lora": 5e-4, "pretrain": 1e-4}
WARMUP_RATIO = 0.1


@dataclass(frozen=True)
class Size:
    """How much is done. `documented_steps` and `options_steps` 0: the whole work."""

    pairs: int
    heldout_pairs: int
    windows: int
    heldout_windows: int
    documented_steps: int
    options_steps: int
    trial_steps: int
    options: tuple[str, ...]
    compact: tuple[str, ...]
    pretrain: tuple[str, ...]


WHOLE = Size(
    *(160, 64, 24, 16, 6, 4, 3),
    train_setups.OPTIONS,
    train_setups.COMPACT,
    train_setups.PRETRAIN,
)
QUICK = Size(
    *(96, 64, 10, 4, 3, 2, 3),
    train_setups.OPTIONS[:1],
    train_setups.COMPACT[:1],
    train_setups.PRETRAIN[:1],
)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_option(options)
    options.add_argument("--model", default="embedded:gemma-3-270m", help="reference of a folder")
    options.add_argument("--quick", action="store_true", help="less of everything (10 minutes)")
    options.add_argument("--profile", type=Path, help="folder for the peers' slowest operators")
    options.add_argument("--out", type=Path, help="also write everything measured to this file")
    given = options.parse_args()
    size = QUICK if given.quick else WHOLE
    facts = machine()
    say(f"{facts['processor']}, {facts['cores']} cores, load {facts['load_average']}")
    folder = data_folder(given.data) if given.data or USUAL.is_dir() else None
    from tokka.models.opening import kind, locate, open_renderer

    if kind(given.model) in ("gguf", "endpoint"):
        sys.exit(f"--model: {given.model} is no folder of safetensors, which training needs")
    model = locate(given.model, Path(), say)
    title, asked, texts = read(folder)
    renderer = open_renderer(model, "ja")
    works = {
        "lora": short_answers(title, asked, renderer, train=size.pairs, heldout=size.heldout_pairs),
        "pretrain": running_text(
            title, texts, renderer, train=size.windows, heldout=size.heldout_windows
        ),
    }
    measured = compare(works, size, str(model), python_of_the_peer(TRL), given.profile)
    found = summary(measured)
    print(report(measured))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"summary": found, "quick": given.quick, "model": given.model, "machine": facts}
        given.out.write_text(
            json.dumps(whole | measured, ensure_ascii=False, indent=1), encoding="utf-8"
        )
    print(json.dumps(found))


# ---- the measurement ----------------------------------------------------------------------------


def compare(
    works: dict[str, Work], size: Size, model: str, python: str, profiles: Path | None = None
) -> Facts:
    """Everything measured, checked to be the same work.

    `runs`: a training by its name, "tokka" and "tokka pretrain" among them; `trials`: tokens a
    second of the set-ups that were tried; `tuned`: the fastest of TRL beside the documented one,
    `options`: the fastest without replaced code; `losses` by work and run, "before" among them;
    `roof` as `train_roofline` hands it back.
    """
    with tempfile.TemporaryDirectory(prefix="tokka-training-") as kept:
        side = _Sides(works, model, python, Path(kept))
        roof = side.roofline()
        options, compact, absent = _candidates(python, size)
        option = side.fastest("lora", options, size.trial_steps)
        runs = {
            "documented": side.peer("lora", "documented", size.documented_steps),
            option: side.peer("lora", option, size.options_steps),
        }
        if compact:
            replaced = side.fastest("lora", compact, size.trial_steps)
            runs[replaced] = side.peer("lora", replaced)
        tuned = max((name for name in runs if name != "documented"), key=lambda n: speed(runs[n]))
        if runs[tuned]["partial"]:
            runs[tuned] = side.peer("lora", tuned)
        runs["tokka"] = side.own("lora")
        usual = side.fastest("pretrain", size.pretrain, size.trial_steps)
        runs[usual] = side.peer("pretrain", usual)
        kept = train_setups.PRETRAIN_TUNED
        runs[kept] = side.peer("pretrain", kept)
        runs["tokka pretrain"] = side.own("pretrain")
        for found in runs.values():
            check_same_work(found, works[found["method"]])
        losses = {method: side.losses(method, runs) for method in works}
        if profiles is not None:
            side.profile(profiles, ("documented", tuned))
    return {
        "runs": runs,
        "trials": side.trials,
        "tuned": tuned,
        "options": option,
        "pretrain": usual,
        "losses": losses,
        "roof": roof,
        "absent": absent,
        "works": {
            key: {"title": w.title, "texts": len(w.train), "tokens": w.tokens, "learnt": w.learnt}
            for key, w in works.items()
        },
    }


def _candidates(python: str, size: Size) -> tuple[Sequence[str], Sequence[str], list[str]]:
    """Set-ups of options only, set-ups with a replaced function, and what had to be left out."""
    ask = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); import train_setups as s; "
        "print(torch.cuda.is_available(), *s.packages_here())"
    )
    said = subprocess.run([python, "-c", ask, str(HERE)], capture_output=True, text=True)
    cuda, *packages = said.stdout.split() or ["False"]
    if cuda != "True":
        return size.options, size.compact, ["liger and unsloth need a GPU: left out"]
    names, absent = train_setups.on_gpu(frozenset(packages))
    for line in absent:
        say(line)
    return names, (), absent  # on a GPU the head is computed where something is learnt


class _Sides:
    """Both sides' trainings of the same works, in processes of their own, kept in `folder`."""

    def __init__(self, works: dict[str, Work], model: str, python: str, folder: Path) -> None:
        self._works, self._model, self._python, self._folder = works, model, python, folder
        self.trials: dict[str, float] = {}

    def _job(self, method: str) -> Facts:
        return {
            "method": method,
            "model": self._model,
            "lessons": _plain(self._works[method].train),
            "dtype": "bfloat16",
            "rank": RANK,
            "alpha": ALPHA,
            "learning_rate": LEARNING_RATES[method],
            "warmup_ratio": WARMUP_RATIO,
            "seed": 0,
            "batch_tokens": BATCH_TOKENS,
        }

    def own(self, method: str) -> Facts:
        say(f"{method}: tokka")
        folder = str(self._folder / f"tokka-{method}")
        job = {**self._job(method), "folder": folder}
        found = run([sys.executable, str(HERE / "train_own.py")], job, unthreaded())
        return {**found, "name": "tokka", "folder": folder, "method": method, "partial": False}

    def peer(self, method: str, name: str, steps: int = 0, profile: bool = False) -> Facts:
        say(f"{method}: {name}" + (f", {steps} steps" if steps else ""))
        setup = train_setups.setup(name)
        rows = max(1, round(BATCH_TOKENS / self._works[method].mean_length))
        folder = str(self._folder / name.replace(" ", "-"))
        job = {
            **self._job(method),
            "setup": setup,
            "batch": setup["batch"] or rows,
            "folder": folder,
            "profile": profile,
            **({"max_steps": steps} if steps else {}),
        }
        found = run(
            [self._python, str(HERE / "train_peer.py")], job, unthreaded(**setup["environment"])
        )
        return {
            **found,
            "name": name,
            "folder": folder,
            "method": method,
            "partial": bool(steps),
        }

    def fastest(self, method: str, names: Sequence[str], steps: int) -> str:
        """The set-up that makes most tokens a second in `steps` steps; one that fails is out. A
        single one is not tried."""
        if len(names) == 1:
            return names[0]
        tried = {}
        for name in names:
            try:
                tried[name] = speed(self.peer(method, name, steps))
            except SystemExit as ended:
                say(f"{name} does not run here: {str(ended).strip().splitlines()[-1]}")
                continue
            say(f"    {tried[name]:,.1f} tokens/s")
        if not tried:
            sys.exit(f"none of {', '.join(names)} runs here; there is no peer to compare with")
        self.trials |= tried
        return max(tried, key=lambda name: tried[name])

    def roofline(self) -> Facts:
        say("what this machine could do at most")
        job = {
            "model": self._model,
            "rank": RANK,
            "methods": {key: key for key in self._works},
            "lessons": {key: _plain(work.train) for key, work in self._works.items()},
        }
        return run([sys.executable, str(HERE / "train_roofline.py")], job, unthreaded())

    def losses(self, method: str, runs: Facts) -> dict[str, float]:
        """Of the untouched model ("before") and of everybody who trained on the whole work."""
        whole = {
            name: found["folder"]
            for name, found in runs.items()
            if found["method"] == method and not found["partial"]
        }
        job = {
            "model": self._model,
            "cases": {"before": "", **whole},
            "lessons": _plain(self._works[method].heldout),
        }
        say(f"{method}: held-out losses")
        found = run([self._python, str(HERE / "train_heldout.py")], job, unthreaded())
        losses: dict[str, float] = found["losses"]
        return losses

    def profile(self, folder: Path, names: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(names):
            found = self.peer("lora", name, 2, profile=True)
            (folder / f"{name}.txt").write_text(found["profile"], encoding="utf-8")


def unthreaded(**more: str) -> dict[str, str]:
    """Everybody's environment without this process's own rules for threads."""
    rules = {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MKL_NUM_THREADS"}
    inherited = environment(**more)
    return {key: value for key, value in inherited.items() if key not in rules - set(more)}


def _plain(pairs: Any) -> list[Any]:
    return [[list(pair.ids), pair.start] for pair in pairs]


def check_same_work(found: Facts, work: Work) -> None:
    """The same texts, each once, the same tokens, and as many of them learnt; ends the program
    where not. A run of a few steps has seen some of them."""
    name = found["name"]
    if "seen" in found:
        wanted = sorted(digest(pair.ids) for pair in work.train)
        strange = set(found["seen"]) - set(wanted)
        if strange or (not found["partial"] and sorted(found["seen"]) != wanted):
            sys.exit(
                f"{name} trained on {len(found['seen'])} texts, {len(strange)} of them not in the "
                f"work of {len(wanted)}; there is no ratio"
            )
    trained = (found["tokens_in_all"], found["learnt_in_all"])
    if not found["partial"] and trained != (work.tokens, work.learnt):
        sys.exit(
            f"{name} trained on {trained[0]} tokens and learnt {trained[1]}; the work has "
            f"{work.tokens} and {work.learnt}; there is no ratio"
        )


# ---- the figures --------------------------------------------------------------------------------


def speed(found: Facts) -> float:
    """Real tokens a second, the first step left out."""
    ends = found["ends"]
    if len(ends) < 2:
        sys.exit(f"{len(ends)} steps are too few to time; train on more")
    return float(sum(found["tokens"][1 : len(ends)]) / (ends[-1] - ends[0]))


def summary(measured: Facts) -> Facts:
    """The line at the end. `heldout_loss_peer` is the tuned peer's where the documented one made
    only a few steps; `ratio_lora_options` is against TRL's options alone,
    `ratio_pretrain_tuned_peer`
    against a `Trainer` whose process keeps freed memory, as ours does."""
    runs, losses = measured["runs"], measured["losses"]
    own, documented, tuned = runs["tokka"], runs["documented"], runs[measured["tuned"]]
    if own["parameters"] != tuned["parameters"]:
        sys.exit(
            f"tokka trains {own['parameters']:,} parameters, TRL {tuned['parameters']:,}; "
            "there is no ratio"
        )
    peer = "documented" if "documented" in losses["lora"] else measured["tuned"]
    usual = measured["pretrain"]
    roof = measured["roof"]["works"]
    return {
        "ratio_lora": round(speed(own) / speed(documented), 2),
        "ratio_lora_tuned_peer": round(speed(own) / speed(tuned), 2),
        "ratio_pretrain": round(speed(runs["tokka pretrain"]) / speed(runs[usual]), 2),
        "heldout_loss_ours": round(losses["lora"]["tokka"], 4),
        "heldout_loss_peer": round(losses["lora"][peer], 4),
        "peak_memory_ratio": round(own["peak_bytes"] / documented["peak_bytes"], 3),
        "roofline_share": round(roofline_share(own, roof["lora"], measured["roof"]["rate"]), 3),
        "read_share": round(own["read_in_all"] / own["tokens_in_all"], 3),
        "ratio_lora_options": round(speed(own) / speed(runs[measured["options"]]), 2),
        "ratio_pretrain_tuned_peer": round(
            speed(runs["tokka pretrain"]) / speed(runs[train_setups.PRETRAIN_TUNED]), 2
        ),
        "tuned_peer": measured["tuned"],
        "heldout_loss_before": round(losses["lora"]["before"], 4),
        "heldout_loss_tuned_peer": round(losses["lora"][measured["tuned"]], 4),
        "pretrain_loss_before": round(losses["pretrain"]["before"], 4),
        "pretrain_loss_ours": round(losses["pretrain"]["tokka pretrain"], 4),
        "pretrain_loss_peer": round(losses["pretrain"][usual], 4),
        "pretrain_memory_ratio": round(
            runs["tokka pretrain"]["peak_bytes"] / runs[usual]["peak_bytes"], 3
        ),
        "pretrain_roofline_share": round(
            roofline_share(runs["tokka pretrain"], roof["pretrain"], measured["roof"]["rate"]), 3
        ),
    }


def roofline_share(run: Facts, roof: Facts, rate: float) -> float:
    """Arithmetic that tokka did over what the machine could have done in the time: tokens that
    lessons of a batch share are read once and counted once."""
    shared = run["read_in_all"] / run["tokens_in_all"]
    terms = roof["terms"]
    needed = shared * (sum(terms.values()) - terms["head"]) + terms["head"]
    return float(speed(run) * needed / roof["tokens"] / rate)


def report(measured: Facts) -> str:
    runs, roof = measured["runs"], measured["roof"]
    parts = []
    for method, work in measured["works"].items():
        rows: list[Sequence[object]] = [
            ("", "steps", "tokens", "padding", "tokens/s", "CPU s/1,000", "MiB", "held-out loss")
        ]
        for name, found in runs.items():
            if found["method"] == method:
                rows.append(_row(name, found, measured["losses"][method]))
        limit = roof["works"][method]
        total = sum(limit["terms"].values())
        terms = ", ".join(
            f"{term} {flop / total:.0%}" for term, flop in limit["terms"].items() if flop
        )
        parts += [
            f"{method}: {work['title']}, {work['texts']} texts, {work['tokens']:,} tokens, "
            f"{work['learnt']:,} learnt; loss before {measured['losses'][method]['before']:.4f}",
            table(rows),
            f"roof: {total / limit['tokens'] / 1e9:.2f} GFLOP a token ({terms}) at "
            f"{roof['rate'] / 1e9:,.0f} GFLOP/s: {limit['tokens_per_second']:,.0f} tokens/s",
            "",
        ]
    about = [
        f"{name}: {side['device']}, {side['threads']} threads, {json.dumps(side['versions'])}"
        for name, side in runs.items()
        if name in ("documented", "tokka")
    ]
    trials = [f"tried, {name}: {rate:,.1f} tokens/s" for name, rate in measured["trials"].items()]
    return "\n".join([*parts, *trials, *measured["absent"], *about])


def _row(name: str, found: Facts, losses: dict[str, float]) -> Sequence[object]:
    ends, cpu = found["ends"], found["cpu_ends"]
    tokens = sum(found["tokens"])
    later = sum(found["tokens"][1 : len(ends)])
    read = sum(found.get("read", ()))
    return (
        name,
        len(ends),
        tokens,
        f"{1 - tokens / read:.0%}" if read else "",
        speed(found),
        f"{1000 * (cpu[-1] - cpu[0]) / later:.1f}",
        found["peak_bytes"] >> 20,
        f"{losses[name]:.4f}" if name in losses else "",
    )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
