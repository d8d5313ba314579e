"""What a task file asks for, checked: prompts, shots, generation, filters and metrics.

`TaskFile` → `TaskSettings`, or Mistakes with every value that can't be taken over, each with its
line. What only changes a report (a metric that tokka doesn't compute) becomes a notice.


'strict-match'
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tokka.errors import Mistakes
from tokka.exam.harness.shots import SAMPLERS
from tokka.exam.harness.task_file import TaskFile
from tokka.records import FilterChain, Marking, TextFilter

DEFAULT_MAX_TOKENS = 256
MAX_PATTERN_CHARACTERS = 2_000
_TOKEN_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_GENERATION = (*_TOKEN_NAMES, "until", "do_sample", "temperature")
_SHOTS = (
    *("sampler", "split", "samples", "doc_to_text", "doc_to_target", "doc_to_choice"),
    *("gen_prefix", "target_delimiter", "fewshot_delimiter"),
)
_METRICS = {"multiple_choice": ("acc", "acc_norm", "acc_bytes"), "generate_until": ("exact_match",)}
_DEFAULT_METRICS = {"multiple_choice": ("acc", "acc_norm"), "generate_until": ("exact_match",)}
_MARKING = ("ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore")
_ABOUT_METRIC = ("metric", "aggregation", "higher_is_better", "hf_evaluate")
_FILTERS: dict[str, tuple[str, ...]] = {
    "regex": ("regex_pattern", "group_select", "fallback"),
    "remove_whitespace": (),
    "lowercase": (),
    "uppercase": (),
    "map": ("mapping_dict", "default_value"),
    "take_first": (),
}
_DEFAULT_PATTERN = r"#### (\-?[0-9\.\,]+)"


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """How a row becomes a question with its answer. Each `doc_to_…` is a field's name, a template
    or the value itself."""

    doc_to_text: Any
    doc_to_target: Any
    doc_to_choice: Any
    gen_prefix: Any
    target_delimiter: str
    fewshot_delimiter: str


@dataclass(frozen=True, slots=True)
class ShotSettings:
    count: int
    sampler: str
    split: str | None
    samples: list[dict[str, Any]] | None
    turn: TurnSettings


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """`marking`, `stop` and `max_tokens` are of generate_until. `metrics` are those that tokka
    computes."""

    name: str
    version: str
    multiple_choice: bool
    asked_split: str
    training_split: str | None
    validation_split: str | None
    test_split: str | None
    description: Any
    turn: TurnSettings
    shots: ShotSettings
    metrics: tuple[str, ...]
    stop: tuple[str, ...]
    max_tokens: int
    marking: Marking | None


@dataclass(frozen=True, slots=True)
class _Reading:
    task: TaskFile
    mistakes: list[str]
    notices: list[str]

    def wrong(self, text: str, *location: str | int) -> None:
        """A mistake in a value, unless its field is refused already."""
        name = ".".join(str(part) for part in location)
        if any(mistake.startswith(str(location[0])) for mistake in self.task.mistakes):
            return
        self.mistakes.append(f"{name}: {text} ({self.task.place(*location)})")


def settings_of(task: TaskFile, notices: list[str], shots: int | None = None) -> TaskSettings:
    """All settings of the task; `shots` replaces num_fewshot. Raises Mistakes."""
    reading = _Reading(task, [], notices)
    values = task.values
    output = values.get("output_type") or "generate_until"
    if output not in _METRICS:
        reading.wrong(
            f"{output} asks for something else than a choice or a text; tokka reads "
            f"{' and '.join(_METRICS)}",
            "output_type",
        )
        output = "multiple_choice"
    choice = output == "multiple_choice"
    if any(values.get(name) for name in ("group", "task_list")):
        raise _mistakes(task, task.mistakes)
    turn = _turn(reading, choice)
    split = values.get("test_split") or values.get("validation_split")
    if not split:
        reading.wrong("missing; name the split whose rows are asked", "test_split")
    generation = values.get("generation_kwargs")
    stop, max_tokens = ((), 1) if choice else _generation(reading, generation, turn)
    metrics, about = _metrics(reading, output)
    chains = () if choice else _chains(reading, bool(about.get("regexes_to_ignore")))
    settings = TaskSettings(
        name=task.name,
        version=_version(values.get("metadata")),
        multiple_choice=choice,
        asked_split=str(split),
        training_split=values.get("training_split"),
        validation_split=values.get("validation_split"),
        test_split=values.get("test_split"),
        description=values.get("description"),
        turn=turn,
        shots=_shots(reading, turn, shots),
        metrics=metrics,
        stop=stop,
        max_tokens=max_tokens,
        marking=_marking(reading, chains, about) if chains else None,
    )
    if values.get("should_decontaminate") or values.get("doc_to_decontamination_query"):
        notices.append("doc_to_decontamination_query is read past: tokka has its own check")
    if task.mistakes or reading.mistakes:
        raise _mistakes(task, [*task.mistakes, *reading.mistakes])
    return settings


def _mistakes(task: TaskFile, mistakes: Sequence[str]) -> Mistakes:
    return Mistakes(
        f"import: {task.path} asks for what tokka doesn't do "
        "(tokka exam import lm-eval --supported lists what it does)",
        list(mistakes),
    )


def with_first_chain(marking: Marking, name: str) -> Marking:
    """The same marking, scored by the chain of that name. Raises KeyError where there is none."""
    chosen = [chain for chain in marking.chains if chain.name == name]
    if not chosen:
        raise KeyError(name)
    others = [chain for chain in marking.chains if chain.name != name]
    return marking.model_copy(update={"chains": (*chosen, *others)})


# ---- prompts ----------------------------------------------------------------------------------


def _turn(reading: _Reading, choice: bool) -> TurnSettings:
    values = reading.task.values
    for name in ("doc_to_text", "doc_to_target", *(("doc_to_choice",) if choice else ())):
        if values.get(name) in (None, ""):
            reading.wrong("missing; write a template or the name of a field", name)
    return TurnSettings(
        doc_to_text=values.get("doc_to_text"),
        doc_to_target=values.get("doc_to_target"),
        doc_to_choice=values.get("doc_to_choice"),
        gen_prefix=values.get("gen_prefix"),
        target_delimiter=_text(reading, values, "target_delimiter", " "),
        fewshot_delimiter=_text(reading, values, "fewshot_delimiter", "\n\n"),
    )


def _shots(reading: _Reading, turn: TurnSettings, wanted: int | None) -> ShotSettings:
    values = reading.task.values
    count = values.get("num_fewshot")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
        reading.wrong(f"must be a whole number from 0, got {count!r}", "num_fewshot")
        count = 0
    if wanted is not None and count == 0 and wanted:
        reading.wrong(
            f"is 0 in the file, and lm_eval keeps that 0 whatever is asked for; remove the line or "
            f"leave out --shots {wanted}",
            "num_fewshot",
        )
    config = values.get("fewshot_config") or {}
    if not isinstance(config, dict):
        reading.wrong("must be a map such as {sampler: first_n}", "fewshot_config")
        config = {}
    for name in config:
        if name not in _SHOTS:
            reading.wrong(f"is not read; known are {', '.join(_SHOTS)}", "fewshot_config", name)
    sampler = config.get("sampler", "default")
    if sampler not in SAMPLERS:
        reading.wrong(f"{sampler!r} is none of {', '.join(SAMPLERS)}", "fewshot_config", "sampler")
    samples = config.get("samples")
    if samples is not None and not (
        isinstance(samples, list) and all(isinstance(one, dict) for one in samples)
    ):
        reading.wrong("must be a list of rows", "fewshot_config", "samples")
        samples = None
    return ShotSettings(
        count=wanted if wanted is not None else count or 0,
        sampler=str(sampler),
        split=config.get("split", values.get("fewshot_split")),
        samples=samples,
        turn=TurnSettings(
            doc_to_text=config.get("doc_to_text") or turn.doc_to_text,
            doc_to_target=config.get("doc_to_target") or turn.doc_to_target,
            doc_to_choice=config.get("doc_to_choice", turn.doc_to_choice),
            gen_prefix=config.get("gen_prefix", turn.gen_prefix),
            target_delimiter=_text(reading, config, "target_delimiter", turn.target_delimiter),
            fewshot_delimiter=_text(reading, config, "fewshot_delimiter", turn.fewshot_delimiter),
        ),
    )


def _text(reading: _Reading, values: Mapping[str, Any], name: str, default: str) -> str:
    value = values.get(name, default)
    if not isinstance(value, str):
        reading.wrong(f"must be a text, got {value!r}; put quotes around it", name)
        return default
    return value


def _version(metadata: Any) -> str:
    return str(metadata["version"]) if isinstance(metadata, dict) and "version" in metadata else ""


# ---- generation -------------------------------------------------------------------------------


def _generation(reading: _Reading, given: Any, turn: TurnSettings) -> tuple[tuple[str, ...], int]:
    """Stop strings and the most tokens of an answer, with the harness's defaults."""
    if given is None:
        given = {}
    if not isinstance(given, dict):
        reading.wrong('must be a map such as {until: ["\\n"]}', "generation_kwargs")
        return (), DEFAULT_MAX_TOKENS
    for name in given:
        if name not in _GENERATION:
            reading.wrong(
                f"is not read; known are {', '.join(_GENERATION)}", "generation_kwargs", name
            )
    temperature = given.get("temperature", 0)
    if given.get("do_sample") or (temperature and given.get("do_sample") is None):
        name = "do_sample" if given.get("do_sample") else "temperature"
        reading.wrong(
            "would sample, and tokka examines greedily; write do_sample: false",
            *("generation_kwargs", name),
        )
    until = given.get("until", [turn.fewshot_delimiter])
    listed = [until] if isinstance(until, str) else until
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        reading.wrong(f"must be a list of texts, got {until!r}", "generation_kwargs", "until")
        listed = []
    most = next((given[name] for name in _TOKEN_NAMES if given.get(name) is not None), None)
    most = DEFAULT_MAX_TOKENS if most is None else most
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 8192:
        name = next(name for name in _TOKEN_NAMES if given.get(name) is not None)
        reading.wrong(f"must be 1 to 8192, got {most!r}", "generation_kwargs", name)
        most = DEFAULT_MAX_TOKENS
    return tuple(one for one in dict.fromkeys(listed) if one), most


# ---- marking ----------------------------------------------------------------------------------


def _metrics(reading: _Reading, output: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The metrics that tokka computes, and what exact_match ignores."""
    given = reading.task.values.get("metric_list")
    if given is None:
        return _DEFAULT_METRICS[output], {}
    found: list[str] = []
    about: dict[str, Any] = {}
    for place, entry in enumerate(given if isinstance(given, list) else [given]):
        name = entry.get("metric") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(name, str):
            reading.wrong("an entry must be a map with metric: NAME", "metric_list", place)
            continue
        if entry.get("hf_evaluate"):
            reading.wrong(
                f"{name} would fetch and run code (hf_evaluate); use a built-in metric",
                *("metric_list", place),
            )
        elif name not in _METRICS[output]:
            reading.notices.append(f"metric {name} is not computed by tokka and is left out")
        elif entry.get("aggregation", "mean") != "mean":
            reading.wrong(
                f"{name} is aggregated by {entry['aggregation']}; tokka takes the mean",
                *("metric_list", place, "aggregation"),
            )
        else:
            found.append(name)
            about = {k: v for k, v in entry.items() if k not in _ABOUT_METRIC}
            for option in about if name == "exact_match" else ():
                if option not in _MARKING:
                    reading.wrong(
                        f"is not read; known are {', '.join(_MARKING)}",
                        *("metric_list", place, option),
                    )
    if not found:
        reading.wrong(f"none of its metrics is one of {', '.join(_METRICS[output])}", "metric_list")
    return tuple(found), about


def _chains(reading: _Reading, wants_one: bool) -> tuple[FilterChain, ...]:
    """Without take_first a prediction is a list of one text, which the harness compares alike, but
    can't take anything out of (`wants_one`)."""
    given = reading.task.values.get("filter_list")
    if given is None:
        return (FilterChain(name="none"),)
    if not isinstance(given, list) or not given:
        reading.wrong("must be a list of {name: …, filter: […]}", "filter_list")
        return ()
    chains: list[FilterChain] = []
    for place, entry in enumerate(given):
        steps = entry.get("filter") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(steps, list) or "name" not in entry:
            reading.wrong("an entry must be {name: …, filter: […]}", "filter_list", place)
            continue
        found = [
            _filter(reading, step, ("filter_list", place, "filter", number))
            for number, step in enumerate(steps)
        ]
        lacks_it = "take_first" not in found and (wants_one or not found)
        if lacks_it or "take_first" in found[:-1]:
            reading.wrong(
                "must end with - function: take_first, once", "filter_list", place, "filter"
            )
        chains.append(
            FilterChain(
                name=str(entry["name"]),
                steps=tuple(step for step in found if isinstance(step, TextFilter)),
            )
        )
    if len({chain.name for chain in chains}) < len(chains):
        reading.wrong("two chains have one name; rename one", "filter_list")
    return tuple(chains)


def _filter(
    reading: _Reading, step: Any, location: tuple[str | int, ...]
) -> TextFilter | str | None:
    name = step.get("function") if isinstance(step, dict) else None
    if name not in _FILTERS:
        reading.wrong(f"{name!r} is none of {', '.join(_FILTERS)}", *location)
        return None
    unknown = [one for one in step if one not in ("function", *_FILTERS[name])]
    if unknown:
        reading.wrong(f"{name} takes no {unknown[0]}", *location)
        return None
    if name == "take_first":
        return "take_first"
    pattern = step.get("regex_pattern", _DEFAULT_PATTERN) if name == "regex" else ""
    if name == "regex" and not _is_pattern(reading, pattern, location):
        return None
    try:
        return TextFilter(
            function=name,
            pattern=pattern,
            match=step.get("group_select", 0),
            fallback=step.get("fallback", "[invalid]"),
            mapping=step.get("mapping_dict") or {},
            default=step.get("default_value"),
        )
    except ValidationError as error:
        first = error.errors()[0]
        reading.wrong(
            f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}; write texts in quotes",
            *location,
        )
        return None


def _is_pattern(reading: _Reading, pattern: Any, location: tuple[str | int, ...]) -> bool:
    if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARACTERS:
        reading.wrong("a pattern must be a text of at most 2,000 characters", *location)
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        reading.wrong(f"{pattern!r} is no regular expression ({error}); correct it", *location)
        return False
    return True


def _marking(
    reading: _Reading, chains: tuple[FilterChain, ...], about: Mapping[str, Any]
) -> Marking | None:
    listed = about.get("regexes_to_ignore") or []
    if not isinstance(listed, list):
        reading.wrong("regexes_to_ignore must be a list of texts", "metric_list")
        return None
    if not all(_is_pattern(reading, one, ("metric_list",)) for one in listed):
        return None
    return Marking(
        chains=chains,
        regexes_to_ignore=tuple(listed),
        ignore_case=bool(about.get("ignore_case")),
        ignore_punctuation=bool(about.get("ignore_punctuation")),
        ignore_numbers=bool(about.get("ignore_numbers")),
    )
