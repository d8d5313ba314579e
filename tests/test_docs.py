"""The documentation says what the code does: commands, keys of the project file, links, sisters."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from tokka.learning_rates import learning_rate
from tokka.project_settings import (
    ChunkSpec,
    EndpointSpec,
    ExamSpec,
    Policy,
    Project,
    ReleaseSpec,
    ServeSpec,
)
from tokka.records import (
    Arm,
    ChooseSpec,
    FinetuneSpec,
    MergeSpec,
    PreferSpec,
    PretrainSpec,
    PromptSpec,
    PullSpec,
    QuantiseSpec,
    ReplaySpec,
    RetrievalSpec,
    ScratchSpec,
    TrainingSpec,
)

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "README.ja.md"]
PROJECT_PAGE = (ROOT / "docs" / "guide" / "project-file.md").read_text(encoding="utf-8")


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table_under(heading: str) -> dict[str, str]:
    """key → default, of the first table after a heading of the page on the project file."""
    after = PROJECT_PAGE.split(f"\n{heading}\n", 1)[1]
    section = re.split(r"\n#+ ", after, maxsplit=1)[0]
    rows = re.findall(r"^\| `([a-z_0-9]+)` \|(.*?)\|", section, flags=re.MULTILINE)
    return {key: default.strip(" `") for key, default in rows}


def shared_with(model: type[BaseModel]) -> set[str]:
    """The keys of a stage that the table of shared keys explains, with the same default."""
    shared = TrainingSpec.model_fields
    return {
        name
        for name, field in model.model_fields.items()
        if name in shared and shared[name].default == field.default
    }


def test_the_command_reference_is_what_the_command_line_says() -> None:
    generator = load_generator()
    assert generator.PAGE.read_text(encoding="utf-8") == generator.commands_page(), "run: make docs"


@pytest.mark.parametrize("readme", ["README.md", "README.ja.md"])
def test_a_readme_names_every_command_and_no_other(readme: str) -> None:
    reference = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    exist = set(re.findall(r"^## tokka ([\w-]+)$", reference, flags=re.MULTILINE))
    named = re.findall(
        r"^\| `tokka ([\w-]+)", (ROOT / readme).read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert sorted(named) == sorted(exist)


@pytest.mark.parametrize(
    ("heading", "model", "own"),
    [
        ("## Top level", Project, {"file"}),
        ("## `chunks`", ChunkSpec, set()),
        ("## `exams.NAME`", ExamSpec, set()),
        ("## `arms.NAME`", Arm, {"schema_version", "name"}),
        ("### `prompt`", PromptSpec, {"schema_version"}),
        ("### `retrieval`", RetrievalSpec, {"schema_version"}),
        ("#### What `pretrain`, `finetune` and `prefer` share", TrainingSpec, {"schema_version"}),
        ("#### `replay`", ReplaySpec, {"schema_version"}),
        ("#### `pull`", PullSpec, {"schema_version"}),
        ("#### `finetune`", FinetuneSpec, shared_with(FinetuneSpec)),
        ("#### `pretrain`", PretrainSpec, shared_with(PretrainSpec)),
        ("#### `scratch`", ScratchSpec, {"schema_version"}),
        ("#### `prefer`", PreferSpec, shared_with(PreferSpec)),
        ("#### `merge`", MergeSpec, {"schema_version"}),
        ("#### `quantise`", QuantiseSpec, {"schema_version"}),
        ("### `choose`", ChooseSpec, {"schema_version"}),
        ("## `policy`", Policy, set()),
        ("## `release`", ReleaseSpec, set()),
        ("## `serve`", ServeSpec, set()),
        ("## `endpoint`", EndpointSpec, set()),
    ],
)
def test_every_key_of_the_project_file_is_explained_with_its_default(
    heading: str, model: type[BaseModel], own: set[str]
) -> None:
    table = table_under(heading)
    fields = {name: field for name, field in model.model_fields.items() if name not in own}
    assert set(table) == set(fields)
    for name, field in fields.items():
        assert (table[name] == "required") == field.is_required(), name
        if isinstance(field.default, bool):
            assert table[name] == str(field.default).lower(), name
        elif isinstance(field.default, int | float):
            assert float(table[name]) == field.default, name


def test_the_learning_rates_are_those_of_the_code() -> None:
    full: dict[str, Any] = {"method": "full"}
    scratch = PretrainSpec(scratch=ScratchSpec())
    specs: list[list[TrainingSpec]] = [
        [FinetuneSpec(data="x"), PretrainSpec(method="lora"), PretrainSpec(method="qlora")],
        [FinetuneSpec(data="x", **full)],
        [PretrainSpec()],
        [scratch],
        [PreferSpec(data="x"), PreferSpec(data="x", objective="kto")],
        [PreferSpec(data="x", **full), PreferSpec(data="x", objective="kto", **full)],
        [PreferSpec(data="x", objective="orpo")],
        [PreferSpec(data="x", objective="orpo", **full)],
    ]
    rows = re.findall(r"^\| `.* \| `(\S+)` \| (\S+) to (\S+) \|$", PROJECT_PAGE, flags=re.MULTILINE)
    said = [tuple(map(float, row)) for row in rows]
    for row, meant in zip(said, specs, strict=True):
        for spec in meant:
            known = learning_rate(spec)
            assert row == pytest.approx((known.default, known.low, known.high)), spec


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_two_readmes_have_the_same_parts() -> None:
    def shape(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        parts = re.findall(r"^(#+ |```\w*|    \S+|\| `[^`]+`|- |\|---)", text, flags=re.MULTILINE)
        return [part.strip() for part in parts]

    assert shape("README.md") == shape("README.ja.md")


def test_every_extra_that_a_message_names_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {
        (extra, path.name)
        for path in (ROOT / "src").rglob("*.py")
        for extra in re.findall(
            r"(?:require\([^)]*extra=\"|tokka\[)([a-z0-9-]+)", path.read_text(encoding="utf-8")
        )
    }
    assert named
    unknown = {one for one in named if one[0] not in project["optional-dependencies"]}
    assert not unknown


def test_every_requirement_is_pinned_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(one for extra in extras for one in extra)]
    names = {plain(re.split(r"[\[<>=~! ]", one, maxsplit=1)[0]) for one in wanted} - {"tokka"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [plain(line.split("==")[0]) for line in lines if not line.startswith("#")]
    assert len(pins) == len(set(pins))
    assert names <= set(pins)
    assert not [line for line in lines if not line.startswith("#") and not PIN.fullmatch(line)]


PIN = re.compile(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_changelog_fragments_are_named_by_kind() -> None:
    kinds = {"added", "changed", "fixed", "removed", "security"}
    fragments = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    assert fragments
    for path in fragments:
        assert path.suffix == ".md" and path.stem.rsplit(".", 1)[1] in kinds, path.name
        assert path.read_text(encoding="utf-8").strip()


def test_the_ci_script_is_sound_shell_and_can_be_started() -> None:
    script = ROOT / ".ci" / "run"
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()
