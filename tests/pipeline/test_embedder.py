"""The project's embedder is opened with what the project says, and a key goes to one host only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokka.models import embedder
from tokka.pipeline import embedder_of
from tokka.project_settings import EndpointSpec


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def opener(name: str, cache: Path, **how: Any) -> None:
        found.update(how, name=name)

    monkeypatch.setattr(embedder, "open_embedder", opener)
    return found


@pytest.mark.parametrize(
    ("base_model", "key"),
    [
        ("embedded:gemma-3-270m", "KEY"),
        ("http://a.example/v1#llm", "KEY"),
        ("http://b.example/v1#llm", None),
        ("http://a.example:8443/v1#llm", None),
    ],
)
def test_the_models_key_is_not_sent_to_another_host(
    opened: dict[str, Any], base_model: str, key: str | None
) -> None:
    project = SimpleNamespace(
        base_model=base_model,
        embedder="http://a.example/v1#e5",
        root=Path("/project"),
        endpoint=EndpointSpec(hosts=("a.example", "b.example"), api_key_env="KEY"),
    )
    embedder_of(SimpleNamespace(project=project))  # type: ignore[arg-type]
    assert opened["endpoint"].api_key_env == key
    assert opened["endpoint"].hosts == ("a.example", "b.example")
    assert opened["root"] == Path("/project")
