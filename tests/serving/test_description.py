"""The OpenAPI description, and what schemathesis makes of it."""

from __future__ import annotations

import pytest
from fakes import make_service
from test_routes import MATRIX, one

from tokka.serving.app import make_app

schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, Phase, settings  # noqa: E402

ROLES = {"/metrics": "operator", "/tokka/requests": "auditor", "/tokka/approvals": "actor"}
APP = make_app(make_service())
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)
# Who may is the matrix's matter; here every request has the key that it needs.
SCHEMA.config.generation.update(with_security_parameters=False)


def test_every_route_is_described_with_its_roles():
    paths = one(make_service(), "/openapi.json", None).json()["paths"]
    assert set(paths) == set(MATRIX)
    assert "operator" in paths["/metrics"]["get"]["description"]
    assert paths["/healthz"]["get"]["security"] == []
    for item in paths.values():
        for operation in item.values():
            assert {"200", "405", "500"} <= set(operation["responses"])


def test_the_shapes_are_those_that_are_checked():
    from tokka.serving.shapes import CHAT

    said = one(make_service(), "/openapi.json", None).json()
    body = said["paths"]["/v1/chat/completions"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"] == CHAT


@SCHEMA.parametrize()
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_that_can_be_made_up_breaks_what_is_described(case):
    role = ROLES.get(case.operation.path, "user")
    case.call_and_validate(headers={"Authorization": f"Bearer tk-{role}"})
