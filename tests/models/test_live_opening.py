"""Which live model a reference opens: the same rules as for any model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tokka.errors import IntegrityError, UsageError
from tokka.models.live_opening import open_live
from tokka.models.opening import EndpointOptions, digest_of


def test_a_folder_is_computed_here(tiny_folder: Path) -> None:
    live: Any = open_live(str(tiny_folder), places=3, language="ja", dtype="float32")
    try:
        assert (type(live).__name__, live.places, live.ready) == ("TorchLive", 3, True)
        assert live.digest == digest_of(tiny_folder, "ja")
        assert live.model.capabilities.dtype == "float32"
    finally:
        asyncio.run(live.close())
    assert not live.ready


def test_weights_stand_in_place_of_the_references_own(tiny_folder: Path) -> None:
    live: Any = open_live("nowhere", weights=tiny_folder, language="ja", dtype="float32")
    try:
        assert live.digest == digest_of(tiny_folder, "ja")
    finally:
        asyncio.run(live.close())


def test_an_endpoint_is_asked_and_only_on_listed_hosts() -> None:
    live: Any = open_live("http://127.0.0.1:9/v1#m", places=5, endpoint=EndpointOptions())
    assert (type(live).__name__, live.places) == ("EndpointLive", 5)
    asyncio.run(live.close())
    with pytest.raises(UsageError, match=r"llm\.example\.com"):
        open_live("https://llm.example.com/v1#m")


def test_a_gguf_takes_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokka.models.safety.refuse_unsafe", lambda *_, **__: ())
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match="no adapter"):
        open_live("nowhere", weights=tmp_path, adapters=[tmp_path])


def test_unsafe_files_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(IntegrityError):
        open_live(str(tmp_path))
