"""Read a task file of lm-evaluation-harness: what it says, where it says so, what can't be taken.

Path of a YAML file → `TaskFile`: the merged values of the file and of what it includes, each with
its file and line. Nothing is run and nothing is constructed from a tag: `!function`, Python classes
and everything else that would run code is a mistake, with its line. Files outside of the task's
folder and the current one are read only where the caller names their root.

>>> task = read_task(Path("tasks/faq.yaml"))
>>> task.values["doc_to_text"], task.place("doc_to_text")
('Q: {{question}}\\nA:', 'faq.yaml:7')
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tokka.errors import UsageError

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_INCLUDES = 20

# What an importer reads, by what it is for; `SUPPORTED` shows the same to people.
READ = (
    *("task", "output_type", "dataset_path", "dataset_name", "dataset_kwargs"),
    *("training_split", "validation_split", "test_split", "fewshot_split"),
    *("doc_to_text", "doc_to_target", "doc_to_choice", "description", "gen_prefix"),
    *("target_delimiter", "fewshot_delimiter", "num_fewshot", "fewshot_config"),
    *("generation_kwargs", "filter_list", "metric_list", "metadata"),
)
PAST = ("task_alias", "tag", "group_alias", "should_decontaminate", "doc_to_decontamination_query")
_CODE = {
    "process_docs": "a function that rewrites the rows; write the rewritten rows into the data "
    "files and remove the line",
    "process_results": "a function that marks answers; use metric_list and filter_list instead",
    "custom_dataset": "a function that makes the data; write the rows into a file and name it in "
    "dataset_kwargs.data_files",
    "class": "a task written in Python; export its rows and prompts to files and write a plain "
    "task over them",
    "use_prompt": "a prompt of the library promptsource; write it into doc_to_text",
}
_OTHER = {
    "group": "a group of tasks; import each of its task files by itself",
    "task_list": "a list of tasks; import each of its task files by itself",
    "doc_to_image": "an image; tokka asks in text only",
    "doc_to_audio": "a sound; tokka asks in text only",
}
_KNOWN = (*READ, *PAST, *_CODE, *_OTHER, "unsafe_code", "repeats", "include")
_PLAIN = tuple(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)

SUPPORTED = """\
Read from a task of lm-evaluation-harness 0.4.13:
  output_type         multiple_choice, generate_until
  dataset_path        json or csv with dataset_kwargs.data_files (also field, delimiter, sep), or a
                      local folder with files named by split; .jsonl, .json, .csv, .tsv, also .gz
  splits              test_split, validation_split, training_split, fewshot_split
  prompt              doc_to_text, doc_to_target, doc_to_choice as a Jinja template or the name of a
                      field, doc_to_choice also as a list or map; description, gen_prefix,
                      target_delimiter, fewshot_delimiter
  shots               num_fewshot; fewshot_config with sampler (default with the harness's seed
                      1234, first_n), split, samples as a list, doc_to_text, doc_to_target,
                      doc_to_choice, gen_prefix, target_delimiter, fewshot_delimiter
  generation_kwargs   until, max_gen_toks (max_new_tokens, max_tokens, max_completion_tokens),
                      do_sample: false, temperature: 0
  filter_list         chains of regex, remove_whitespace, lowercase, uppercase, map, take_first
  metric_list         acc, acc_norm, acc_bytes; exact_match with ignore_case, ignore_punctuation,
                      ignore_numbers, regexes_to_ignore; others are left out with a notice
  include             of YAML files in the task's folder, or below --root
Read past: dataset_name, task_alias, tag, metadata, should_decontaminate,
  doc_to_decontamination_query
Refused: !function and every other tag, process_docs, process_results, custom_dataset, class,
  use_prompt, unsafe_code, doc_to_image, doc_to_audio, group, task_list, repeats, sampling, data on
  a hub, Parquet, several right options, one option in several prompts (doc_to_text as a number)"""


@dataclass(frozen=True, slots=True)
class TaskFile:
    """`values` by field, after includes; `places` are "file:line" of each field and of what stands
    below it, such as ("fewshot_config", "sampler"). `mistakes` are finished sentences."""

    path: Path
    values: dict[str, Any]
    places: dict[tuple[str | int, ...], str]
    mistakes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.values.get("task") or self.path.stem)

    def place(self, *location: str | int) -> str:
        """The place of a value, or of the nearest one that encloses it."""
        while location and location not in self.places:
            location = location[:-1]
        return self.places.get(location, self.path.name)


@dataclass(slots=True)
class _Reading:
    roots: tuple[Path, ...]
    mistakes: list[str] = field(default_factory=list)
    seen: list[Path] = field(default_factory=list)
    nodes: int = 0


def read_task(path: Path, roots: Sequence[Path] = ()) -> TaskFile:
    """The task in the file, with a mistake for each field that is refused. Raises UsageError where
    the file can't be read at all."""
    reading = _Reading(allowed_roots(path, roots))
    values, places = _file(path, reading)
    refused = _refusals(TaskFile(path, values, places))
    return TaskFile(path, values, places, tuple(dict.fromkeys([*reading.mistakes, *refused])))


def allowed_roots(path: Path, roots: Sequence[Path]) -> tuple[Path, ...]:
    """The folders that a task may read from: its own, the current one, and those named."""
    return tuple(one.resolve() for one in (path.parent, Path.cwd(), *roots))


def is_inside(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path, its links followed, lies in one of the folders."""
    return any(path.resolve().is_relative_to(root) for root in roots)


# ---- files ------------------------------------------------------------------------------------


def _file(path: Path, reading: _Reading) -> tuple[dict[str, Any], dict[tuple[str | int, ...], str]]:
    if path.resolve() in reading.seen:
        raise UsageError(f"import: {path} includes itself; remove the include")
    if len(reading.seen) >= MAX_INCLUDES:
        raise UsageError(f"import: more than {MAX_INCLUDES} files are included; write one file")
    reading.seen.append(path.resolve())
    node = _composed(path)
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"import: {path} holds no task; write fields such as doc_to_text: …")
    places: dict[tuple[str | int, ...], str] = {}
    own = _value(node, (), path, reading, places)
    includes = own.pop("include", [])
    merged: dict[str, Any] = {}
    merged_places: dict[tuple[str | int, ...], str] = {}
    for name in includes if isinstance(includes, list) else [includes]:
        included = path.parent / str(name)
        if not is_inside(included, reading.roots):
            reading.mistakes.append(
                f"include: {name} lies outside of the task's folder; name its folder with --root "
                f"({places.get(('include',), path.name)})"
            )
            continue
        values, inner = _file(included, reading)
        values.pop("task_list", None)
        _overwrite(merged, merged_places, values, inner)
    _overwrite(merged, merged_places, own, places)
    return merged, merged_places


def _overwrite(
    values: dict[str, Any],
    places: dict[tuple[str | int, ...], str],
    more: dict[str, Any],
    more_places: dict[tuple[str | int, ...], str],
) -> None:
    for location in [one for one in places if one and one[0] in more]:
        del places[location]
    values.update(more)
    places.update(more_places)


def _composed(path: Path) -> yaml.Node | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"import: can't read {path}: {error.strerror}; check the path") from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"import: {path} has {len(content):,} bytes; a task file has at most 1 MB")
    try:
        return yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(
            f"import: not valid YAML: {error.problem}; correct it ({path.name}:{line})"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(
            f"import: {path} is no UTF-8 YAML ({type(error).__name__}); save it as such"
        ) from error


def _value(
    node: yaml.Node,
    location: tuple[str | int, ...],
    path: Path,
    reading: _Reading,
    places: dict[tuple[str | int, ...], str],
) -> Any:
    """The plain value of a node, by the rules of YAML 1.1 as the harness reads it."""
    place = f"{path.name}:{node.start_mark.line + 1}"
    places[location] = place
    reading.nodes += 1
    if reading.nodes > MAX_NODES:
        raise UsageError(f"import: {path} holds more than {MAX_NODES:,} values; write them out")
    if node.tag not in _PLAIN:
        name = ".".join(map(str, location)) or "the file"
        what = f"{node.tag} {node.value}" if isinstance(node, yaml.ScalarNode) else node.tag
        reading.mistakes.append(
            f"{name}: {what} would run code, which tokka never does; {_instead(location)} ({place})"
        )
        return None
    if isinstance(node, yaml.MappingNode):
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node, place)
            if not location:
                key = str(key)
            if key in found:
                line = key_node.start_mark.line + 1
                reading.mistakes.append(f"{key}: stands there twice; keep one ({path.name}:{line})")
            found[key] = _value(value_node, (*location, key), path, reading, places)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(one, (*location, place_in_list), path, reading, places)
            for place_in_list, one in enumerate(node.value)
        ]
    return _scalar(node, place)


def _scalar(node: yaml.Node, place: str) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise UsageError(f"import: a key must be a text, not a list or map ({place})")
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(
            f"import: {node.value!r} can't be read; put quotes around it ({place})"
        ) from error
    finally:
        loader.dispose()


def _instead(location: tuple[str | int, ...]) -> str:
    name = str(location[0]) if location else ""
    if name in _CODE:
        return _CODE[name].rpartition("; ")[2]
    if name.startswith("doc_to_"):
        return "write a Jinja template or the name of a field"
    if name in ("metric_list", "filter_list"):
        return "use one of the built-in metrics and filters"
    return "write the value itself"


# ---- refusals ---------------------------------------------------------------------------------


def _refusals(task: TaskFile) -> Iterator[str]:
    values = task.values
    several = next((name for name in ("group", "task_list") if values.get(name)), None)
    for name, value in values.items():
        if value is None or several not in (None, name):  # of a group nothing else matters
            continue
        place = task.place(name)
        if name in _CODE:
            yield f"{name}: {_CODE[name]} ({place})"
        elif name in _OTHER:
            yield f"{name}: {_OTHER[name]} ({place})"
        elif name == "unsafe_code" and value:
            yield f"unsafe_code: the task runs what the model wrote; tokka never does ({place})"
        elif name == "repeats" and value != 1:
            yield f"repeats: {value}, but tokka asks once; remove the line ({place})"
        elif name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.7)
            hint = f"did you mean {near[0]}?" if near else "remove the line"
            yield f"{name}: unknown field; {hint} ({place})"
