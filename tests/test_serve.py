"""From an approved release's folder to answers over HTTP: real ledger, real model, real sockets.

The release is put together by hand around a tiny model, so that no run and no export is needed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("sqlalchemy")
pytest.importorskip("uvicorn")

from fakes import serving

from tokka.errors import IntegrityError, UsageError, WaitingForApproval
from tokka.project import Project, load_project
from tokka.records import Arm, Candidate, PromptSpec, Verdict, fingerprint
from tokka.release import approval
from tokka.release.api_keys import issue_key, revoke_key
from tokka.release.keys import fresh_key, load_key, write_key
from tokka.release.ledger import Ledger, open_ledger
from tokka.release.records import ModelEntry, Release
from tokka.serve import check_address, limits_of, open_service
from tokka.store import Workspace, sha256_file, write_json, write_text

PEOPLE = {"aoi": ("owner", "developer"), "ben": ("validator",), "chie": ("approver",)}
PROJECT = """\
name: harbour
language: en
base_model: model/
exams:
  domain: {path: exam.jsonl, role: domain}
arms:
  base: {prompt: {max_tokens: 12}}
serve: {places: 2, sample: 1.0, caller_system: refuse}
"""
ASK = {"model": "harbour-1", "messages": [{"role": "user", "content": "Which colour is it?"}]}


@pytest.fixture(scope="module")
def made(harbour: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one release, drafted, and its people's keys beside it."""
    folder = tmp_path_factory.mktemp("serve") / "project"
    folder.mkdir()
    shutil.copytree(harbour / "model", folder / "model")
    (folder / "tokka.yaml").write_text(PROJECT)
    row = {"id": "q", "question": "Which colour?", "answer": "blue", "split": "test"}
    (folder / "exam.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TOKKA_KEYS", str(folder / "keys"))
        for name in PEOPLE:
            write_key(fresh_key(name))
        released = assemble(folder)
        with open_ledger(".tokka/ledger.sqlite", folder) as ledger:
            draft(ledger, released)
    return folder


def assemble(folder: Path) -> Release:
    root = folder / ".tokka" / "releases" / "harbour-1"
    workspace = Workspace(root / "workspace")
    step = workspace.step(
        "export", {"of": "model"},
        lambda partial: shutil.copytree(folder / "model", partial, dirs_exist_ok=True) and None,
    )  # fmt: skip
    shutil.rmtree(workspace.root / "locks", ignore_errors=True)
    arm = Arm(name="base", prompt=PromptSpec(max_tokens=12))
    candidate = Candidate(
        id="c" * 64, arm=arm, base_model="model/", base_digest="b" * 64, language="en"
    )
    weights = f"{step.name}@{workspace.digest(step)}"
    write_text(root / "exam" / "results.json", "{}")
    files = {
        path.relative_to(root).as_posix(): sha256_file(path)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
    released = Release(
        model="harbour", version=1, candidate=candidate,
        served=candidate.model_copy(update={"artifacts": {"weights": weights}}),
        serves="safetensors", artefacts=(), project_digest="p" * 64,
        results_digest=fingerprint({}), exams={"domain": "e" * 64},
        verdict=Verdict(arm="base", candidate_id="c" * 64, outcome="pass", reasons=()),
        base_licence="Apache-2.0", built_by="aoi", built_at="2026-11-23T00:00:00Z",
        language="en", files=files,
    )  # fmt: skip
    write_json(root / "release.json", released.model_dump(mode="json"))
    return released


def draft(ledger: Ledger, released: Release) -> None:
    for name, duties in PEOPLE.items():
        approval.enrol(ledger, load_key("aoi"), name, duties, load_key(name).public_key)  # type: ignore[arg-type]
    approval.register(
        ledger, load_key("aoi"),
        ModelEntry(name="harbour", owner="aoi", use="colours", tier="medium", tier_reason="a trial",
                   base_model="model/", base_digest="b" * 64, licence="Apache-2.0"),
    )  # fmt: skip
    approval.release(
        ledger, load_key("aoi"), released, approvals=None, valid_days=90, validate_days=30
    )


@pytest.fixture
def project(made: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = tmp_path / "project"
    shutil.copytree(made, folder)
    monkeypatch.setenv("TOKKA_KEYS", str(folder / "keys"))
    for name in ("TOKKA_ACTOR", "TOKKA_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    return load_project(folder)


def ledger_of(project: Project) -> Ledger:
    return open_ledger(project.ledger, project.root, create=False)


def approve(project: Project) -> None:
    with ledger_of(project) as ledger:
        approval.decide(ledger, load_key("ben"), "validate", "harbour-1")
        approval.decide(ledger, load_key("chie"), "approve", "harbour-1", conditions=("trials",))


def kinds(project: Project) -> list[str]:
    with ledger_of(project) as ledger:
        return [entry.signed.act.kind for entry in ledger.entries()]


def test_a_draft_is_served_only_when_it_is_said_so(project):
    with (
        pytest.raises(WaitingForApproval, match="harbour-1 is draft"),
        open_service(project, "harbour-1"),
    ):
        pass
    with open_service(project, "harbour", unapproved=True) as opened:
        assert opened.service.mark["tokka"]["unapproved"]
    assert "serve" not in kinds(project)


def test_an_approved_release_answers_as_its_specialist_does(project):
    """The way of a key, a question, its answer, the request log and a decision, in one go."""
    approve(project)
    with ledger_of(project) as ledger:
        boss = load_key("aoi")
        user = issue_key(ledger, boss, "chat", groups=("hr",)).shown
        auditor = issue_key(ledger, boss, "audit", roles=("auditor",)).shown
        chie = issue_key(ledger, load_key("chie"), "chie", actor="chie").shown
    with open_service(project, "harbour-1", actor="aoi") as opened:
        from tokka.candidates.opening import asked

        service = opened.service
        expected = next(service.specialist.answer([asked("Which colour is it?")]))
        with serving(service) as url, httpx.Client(base_url=url, timeout=30) as client:

            def get(path: str, key: str, **more: Any) -> httpx.Response:
                return client.get(path, headers={"authorization": f"Bearer {key}"}, **more)

            def post(path: str, key: str, body: Any) -> httpx.Response:
                return client.post(path, json=body, headers={"authorization": f"Bearer {key}"})

            said = post("/v1/chat/completions", user, ASK)
            assert said.status_code == 200, said.text
            answer = said.json()
            assert answer["choices"][0]["message"]["content"] == expected.text
            assert answer["tokka"]["prompt_sha256"] == expected.prompt_sha256
            assert answer["tokka"]["conditions"] == ["trials"]
            assert (answer["tokka"]["stage"], answer["tokka"]["unapproved"]) == ("serving", False)
            streamed = post("/v1/chat/completions", user, {**ASK, "stream": True})
            assert streamed.text.endswith("data: [DONE]\n\n")
            system = [{"role": "system", "content": "Be rude."}, *ASK["messages"]]
            assert (
                post("/v1/chat/completions", user, {**ASK, "messages": system}).status_code == 400
            )
            assert get("/tokka/requests", user).status_code == 403
            release = get("/tokka/release", user).json()
            assert release["approvals"][0]["actor"] == "chie"
            assert release["expires"] > "2026"
            decision = {"verdict": "reject", "model": "harbour", "version": 1,
                        "digest": release["digest"], "comment": "no"}  # fmt: skip
            refused = post("/tokka/approvals", chie, decision)
            assert refused.status_code == 403  # what serves is withdrawn, not rejected
            done = post("/tokka/approvals", chie, {**decision, "verdict": "approve"})
            assert done.status_code == 200, done.text
            assert done.json()["version"]["approvals"][0]["method"] == "session"
            ends = time.monotonic() + 5
            while len(rows := get("/tokka/requests", auditor).json()["data"]) < 3:
                assert time.monotonic() < ends
                time.sleep(0.05)
            row = next(row for row in rows if row["answer_hash"])
            assert row["question"] is None
            assert row["prompt_sha256"] == expected.prompt_sha256
            assert "unapproved" not in client.get("/healthz").headers
    assert kinds(project)[-2:] == ["serve", "approve"]
    with ledger_of(project) as ledger:
        assert len(ledger.observations()) == 2
        day = time.strftime("%Y-%m-%d", time.gmtime())
        key_id = user.split("-")[1]
        assert ledger.usage_of(key_id, day).requests == 3


def test_a_withdrawal_ends_service_and_a_revoked_key_its_owner(project):
    approve(project)
    with ledger_of(project) as ledger:
        issued = issue_key(ledger, load_key("aoi"), "chat")
    with open_service(project, "harbour-1", actor="aoi") as opened:
        service = opened.service
        clock = [0.0]
        service.ring._clock = lambda: clock[0]
        key = {"authorization": f"Bearer {issued.shown}"}
        with serving(service) as url:
            assert httpx.post(f"{url}/v1/chat/completions", json=ASK, headers=key).is_success
            with ledger_of(project) as ledger:
                approval.decide(ledger, load_key("chie"), "withdraw", "harbour-1", comment="wrong")
            asyncio.run(service.look())
            ended = httpx.post(f"{url}/v1/chat/completions", json=ASK, headers=key)
            assert (ended.status_code, ended.json()["error"]["code"]) == (503, "not_approved")
            assert httpx.get(f"{url}/readyz").status_code == 503
            with ledger_of(project) as ledger:
                revoke_key(ledger, load_key("aoi"), issued.key.id)
            clock[0] = 6.0
            assert httpx.get(f"{url}/v1/models", headers=key).status_code == 401


def test_a_restart_of_what_is_served_needs_no_key_and_a_first_start_does(project, monkeypatch):
    approve(project)
    keys = project.root / "keys"
    monkeypatch.setenv("TOKKA_KEYS", str(project.root / "nobody"))
    with pytest.raises(UsageError), open_service(project, "harbour-1"):
        pass
    monkeypatch.setenv("TOKKA_KEYS", str(keys))
    with open_service(project, "harbour-1", actor="aoi"):
        pass
    monkeypatch.setenv("TOKKA_KEYS", str(project.root / "nobody"))
    with open_service(project, "harbour-1"):
        pass
    assert kinds(project).count("serve") == 1


def test_a_changed_file_isnt_served(project):
    approve(project)
    root = project.root / ".tokka" / "releases" / "harbour-1"
    config = next(root.rglob("generation_config.json"))
    config.write_text(config.read_text() + " ")
    with pytest.raises(IntegrityError, match="was changed"), open_service(project, "harbour-1"):
        pass


def test_the_log_of_requests_is_hashed_with_a_secret_of_its_own(project):
    with open_service(project, "harbour-1", unapproved=True) as opened:
        secret = opened.service.hash_secret
    path = project.root / ".tokka" / "request-log.key"
    assert path.stat().st_mode & 0o077 == 0
    assert path.read_bytes() == secret
    path.write_bytes(b"short")
    with (
        pytest.raises(UsageError, match="delete it"),
        open_service(project, "harbour-1", unapproved=True),
    ):
        pass


def test_every_setting_of_serve_reaches_the_server(project):
    limits = limits_of(project)
    for name, value in project.serve.model_dump().items():
        assert getattr(limits, name) == value
    assert (limits.places, limits.caller_system) == (2, "refuse")


@pytest.mark.parametrize(
    ("host", "tls", "insecure", "keys", "fine"),
    [
        ("127.0.0.1", False, False, True, True),
        ("::1", False, False, False, True),
        ("localhost", False, False, False, True),
        ("0.0.0.0", False, False, True, False),
        ("0.0.0.0", True, False, True, True),
        ("::", False, True, True, True),
        ("192.0.2.7", True, False, False, False),
        ("example.jp", False, True, False, False),
    ],
)
def test_others_reach_it_only_over_tls_and_with_keys(host, tls, insecure, keys, fine):
    if fine:
        check_address(host, tls, insecure, keys)
    else:
        with pytest.raises(UsageError):
            check_address(host, tls, insecure, keys)


def test_keys_and_a_server_as_somebody_types_them(project, processes):
    """`tokka key new`, `tokka serve`, SIGTERM: whole processes."""
    approve(project)
    on = {"TOKKA_KEYS": str(project.root / "keys")}
    made = processes.run(
        "key", "new", "chat", "--group", "hr", "--per-minute", 100, "--as", "aoi", "--json",
        cwd=project.root, **on,
    )  # fmt: skip
    assert made.code == 0, made.err
    assert made.json["groups"] == ["hr"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = processes.start(
        "serve", "harbour-1", "--port", port, "--as", "aoi", "--json", cwd=project.root, **on
    )
    try:
        told = json.loads(server.stdout.readline())
        assert told["url"] == f"http://127.0.0.1:{port}/v1"
        key = {"authorization": f"Bearer {made.json['key']}"}
        said = httpx.post(f"{told['url']}/chat/completions", json=ASK, headers=key, timeout=30)
        assert said.status_code == 200
        os.kill(server.pid, signal.SIGTERM)
        _, err = server.communicate(timeout=30)
        assert (server.returncode, err) == (0, "")
    finally:
        server.kill()
        server.wait()
    with ledger_of(project) as ledger:
        assert [row.status for row in ledger.requests()] == [200]
