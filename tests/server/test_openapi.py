"""The description of the APIs: it has every route and nothing else, and answers are as it says."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import mlx_zimage
from mlx_zimage import Request
from mlx_zimage.server import native, openai_images, sdapi
from mlx_zimage.server.app import API

from .conftest import SMALL, Running

DOCUMENT: dict[str, Any] = json.loads(API.read_text("utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]


def check(value: Any, schema: Any) -> None:
    """Hold a value against a schema of the document."""
    text = json.dumps(schema).replace("#/components/schemas/", "#/$defs/")
    defined = json.dumps(SCHEMAS).replace("#/components/schemas/", "#/$defs/")
    whole = {**json.loads(text), "$defs": json.loads(defined)}
    jsonschema.Draft202012Validator(whole).validate(value)


def answer_of(path: str, method: str = "get", status: str = "200") -> Any:
    """Return the schema of an answer."""
    content = DOCUMENT["paths"][path][method]["responses"][status]["content"]
    return next(iter(content.values()))["schema"]


def test_routes_and_document_agree() -> None:
    served = {
        (path.replace(":path", ""), method)
        for api in (native, openai_images, sdapi)
        for method, path, _ in api.ROUTES
    }
    described = {
        (path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in item
    }
    assert described - served == {("/openapi.json", "GET")}
    assert served - described == set()


def test_a_jobs_schema_has_the_requests_fields() -> None:
    names = {field.name for field in fields(Request)}
    assert {*SCHEMAS["NewJob"]["properties"]} == names | {"count", "loras", "sweep"}


def test_every_schema_is_used_and_exists() -> None:
    text = json.dumps(DOCUMENT)
    for name in SCHEMAS:
        assert f'"#/components/schemas/{name}"' in text
        jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert text.count("#/components/schemas/") == sum(
        text.count(f'"#/components/schemas/{name}"') for name in SCHEMAS
    )


def test_the_version_is_the_packages(server: Running) -> None:
    served = server.ask("GET", "/openapi.json")
    assert served.json == DOCUMENT
    assert DOCUMENT["info"]["version"] == mlx_zimage.__version__


def test_a_jobs_answers(server: Running) -> None:
    body = {**SMALL, "steps": 2, "seed": 1, "sweep": [{"field": "seed", "values": [1, 2]}]}
    check(body, SCHEMAS["NewJob"])
    made = server.ask("POST", "/api/jobs", body)
    check(made.json, answer_of("/api/jobs", "post", "202"))
    events = [*server.events(made.json["events"])]
    for event in events:
        check(event, SCHEMAS["Happening"])
    ended = server.ask("GET", f"/api/jobs/{made.json['id']}").json
    check(ended, answer_of("/api/jobs/{id}"))
    assert ended["sheet"]["kind"] == "sheet"
    check(next(server.events("/api/events")), SCHEMAS["Happening"])
    entry = server.ask("GET", f"/api/history/{ended['images'][0]['id']}").json
    check(entry, answer_of("/api/history/{id}"))
    file = server.ask("GET", ended["images"][0]["url"]).body
    told = server.ask("POST", "/api/metadata", file, {"Content-Type": "image/png"})
    check(told.json, answer_of("/api/metadata", "post"))
    assert told.json["request"]["seed"] == 1
    assert told.json["differences"] == []


@pytest.mark.parametrize(
    "path",
    [
        path
        for path, item in DOCUMENT["paths"].items()
        if "get" in item and "{" not in path and path not in ("/api/events", "/openapi.json")
    ],
)
def test_answers_are_as_described(server: Running, path: str) -> None:
    answer = server.ask("GET", path)
    assert answer.status == 200
    check(answer.json, answer_of(path))


def test_others_answers(server: Running) -> None:
    check(server.ask("POST", "/api/estimate", SMALL).json, answer_of("/api/estimate", "post"))
    check(server.ask("GET", "/v1/models/demo").json, SCHEMAS["Model"])
    body = {"prompt": SMALL["prompt"], "size": "64x64", "steps": 1}
    check(body, SCHEMAS["Generation"])
    made = server.ask("POST", "/v1/images/generations", body)
    check(made.json, answer_of("/v1/images/generations", "post"))
    drawn = server.ask("POST", "/sdapi/v1/txt2img", {**SMALL})
    check(drawn.json, answer_of("/sdapi/v1/txt2img", "post"))
    for path in ("/api/jobs/0123456789abcdef", "/nothing", "/files/0123456789abcdef.png"):
        check(server.ask("GET", path).json, SCHEMAS["Error"])


def test_it_is_in_the_package() -> None:
    assert API.parent == Path(mlx_zimage.__file__).parent / "server"
