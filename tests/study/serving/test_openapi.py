"""The OpenAPI document is valid, and real answers of a real server agree with it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from worst_bodies import SHAPE, encoded, npy, png_with

pytest.importorskip("uvicorn", reason="ray[serve] is not installed")

from running_server import fetch, running

from study.serving.api_keys import ApiKeys
from study.serving.budget import QueryBudget
from study.serving.door import Door
from study.serving.openapi import ROUTES, document
from tests.study.serving.test_pictures import png


@pytest.mark.parametrize("resize", [None, "bilinear"])
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("budget", [None, 5])
def test_it_is_valid(resize: str | None, keyed: bool, budget: int | None) -> None:
    found = document((3, 4, 5), 7, resize=resize, keyed=keyed, budget=budget)
    OpenAPIV31SpecValidator(found).validate()
    assert {(path, method.upper()) for path, of in found["paths"].items() for method in of} == set(
        ROUTES.items()
    )


def check(openapi: dict[str, Any], path: str, answer: tuple[int, dict[str, str], bytes]) -> Any:
    """Hold an answer against the document; return its JSON."""
    status, headers, body = answer
    (operation,) = openapi["paths"][path].values()
    response = operation["responses"][str(status)]
    (kind,) = response["content"]
    assert headers["content-type"].partition(";")[0] == kind
    for name in response.get("headers", {}):
        if name.lower() in headers:
            jsonschema.validate(json.loads(f'"{headers[name.lower()]}"') if name == "X-Resized" else
                                int(headers[name.lower()]), response["headers"][name]["schema"])  # fmt: skip
    if kind == "text/plain":
        return body.decode()
    schema = {**response["content"][kind]["schema"], "components": openapi["components"]}
    jsonschema.Draft202012Validator(schema).validate(json.loads(body))
    return json.loads(body)


@pytest.mark.timeout(120)
def test_real_answers_agree(tmp_path: Path) -> None:
    keys = ApiKeys({"anna": hashlib.sha256(b"k1").hexdigest()})
    door = Door(keys, QueryBudget(tmp_path / "q", 6))
    label = b'{"excess_leakage": 0.01}'
    with running(door=door, resize="bilinear", label=label) as port:
        openapi = json.loads(fetch(port, "/openapi.json")[2])
        OpenAPIV31SpecValidator(openapi).validate()
        key = {"authorization": "Bearer k1"}

        def asked(body: bytes, expected: int, **headers: str) -> Any:
            answer = fetch(port, "/release", body, **headers)
            assert answer[0] == expected, answer
            return check(openapi, "/release", answer)

        asked(encoded("PNG"), 401)
        assert len(asked(encoded("PNG"), 200, **key)["released"]) == 1
        array = npy(np.zeros((2, *SHAPE)))
        assert len(asked(array, 200, content_type="text/plain", **key)["labels"]) == 2
        resized = asked(png(64, 48), 200, **key)["resized"]
        assert resized == {"interpolation": "bilinear", "given": [[64, 48]], "to": [16, 16]}
        assert asked(npy(np.zeros((3, *SHAPE))), 429, **key)["remaining"] == 2
        asked(b"hello", 415, **key)
        asked(b"", 400, **key)
        asked(png_with(b"")[:60], 422, **key)
        asked(npy(np.zeros((300, *SHAPE), np.uint8)), 413, **key)
        for path in ("/health", "/label", "/openapi.json"):
            assert fetch(port, path)[0] == 200
            check(openapi, path, fetch(port, path))
        assert json.loads(fetch(port, "/label")[2]) == {"excess_leakage": 0.01}
        assert fetch(port, "/metrics")[0] == 401
        metrics = check(openapi, "/metrics", fetch(port, "/metrics", **key))
        assert "mipoison_queries_total 4.0" in metrics
        assert "mipoison_budget_refusals_total 1.0" in metrics
        assert 'mipoison_requests_total{path="/release",status="413"} 1.0' in metrics
        assert "anna" not in metrics
    with running() as port:
        openapi = json.loads(fetch(port, "/openapi.json")[2])
        check(openapi, "/label", fetch(port, "/label"))
        assert b"mipoison protect" in fetch(port, "/label")[2]
        answer = fetch(port, "/release", png(64, 48))
        assert answer[0] == 422
        assert check(openapi, "/release", answer)["given"] == [64, 48]
        assert fetch(port, "/metrics")[0] == 200


@pytest.mark.parametrize("images", [np.zeros(SHAPE), np.zeros((2, *SHAPE))])
def test_the_schema_of_a_request_takes_what_the_server_takes(images: np.ndarray) -> None:
    openapi = document(SHAPE, 2, resize=None, keyed=False, budget=None)
    schema = {"$ref": "#/components/schemas/Images", "components": openapi["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate({"images": images.tolist()})
    for wrong in ({"images": images[..., :-1].tolist()}, {"images": (images - 1).tolist()}, {}):
        assert not validator.is_valid(wrong)


def test_page_and_document_say_when_the_content_type_counts() -> None:
    """As ``content_kind`` does: for forms, and where the first bytes tell nothing."""
    told = document(SHAPE, 2, resize=None, keyed=False, budget=None)["paths"]["/release"]["post"]
    page = Path(__file__).parents[3] / ".docs" / "pages" / "serving.md"
    for text in (told["description"], page.read_text()):
        assert "Content-Type counts" in text
        assert "whatever its Content-Type" not in text
        assert "whatever Content-Type" not in text
