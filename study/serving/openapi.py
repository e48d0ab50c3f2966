"""What ``/openapi.json`` tells: the routes of a server, their requests and answers, as OpenAPI 3.1."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from study.serving.bounds import FORM, FORMATS, MAX_IMAGES, RESIZED_PIXELS, Shape

ROUTES = {"/release": "POST", "/health": "GET", "/label": "GET", "/metrics": "GET", "/openapi.json": "GET"}
"""Path -> the method that it takes."""
_ANY = {"application/json": {"schema": {"type": "object"}}}
_ERRORS = {
    "400": "Malformed: JSON, a form, headers, an empty body.",
    "401": "No valid API key.",
    "404": "No such path, or no privacy label.",
    "408": "The body took too long.",
    "413": "Too many bytes, images or pixels.",
    "415": "Neither first bytes nor Content-Type tell a kind of content that is read.",
    "422": "No image of the classifier's shape.",
    "429": "Over the client's query budget.",
    "500": "The classifier failed.",
    "503": "Too much waits, or no copy of the classifier runs; try again.",
}


def document(
    image_shape: Shape, n_classes: int, *, resize: str | None, keyed: bool, budget: int | None
) -> dict[str, Any]:
    """The OpenAPI document of one server.

    Args:
        image_shape: (C, H, W). n_classes: K.
        resize: how pictures of another size are resized; None: they are refused.
        keyed: whether an API key is asked for. budget: queries a client has; None: they are not counted.
    """
    release: dict[str, Any] = {
        "summary": "Released vectors of images",
        "description": _release_text(image_shape, resize, budget),
        "operationId": "release",
        "requestBody": {"required": True, "content": _contents()},
        "responses": {
            "200": {
                "description": "One released vector and its label an image, in the order of the images.",
                "headers": _headers(resize, budget),
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Released"}}},
            },
            **_errors("400", "408", "413", "415", "422", "500", "503"),
            **(_errors("401") if keyed else {}),
            **(_errors("429") if budget is not None else {}),
        },
    }
    metrics = _get("Counts and times, in Prometheus' text format", "metrics", {
        "200": {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **(_errors("401") if keyed else {}),
    })  # fmt: skip
    if keyed:
        for operation in (release, metrics):
            operation["security"] = [{"bearer": []}, {"header": []}]
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "A protected classifier",
            "version": metadata.version("mipoison"),
            "description": "Answers images with released vectors in place of confidence vectors.",
        },
        "paths": {
            "/release": {"post": release},
            "/health": {"get": _get("Whether the classifier runs, and what it takes", "health", {
                "200": _json("It runs.", "Health"), **_errors("503"),
            })},
            "/label": {"get": _get("The privacy label of the unit", "label", {
                "200": {"description": "The label.", "content": _ANY},
                **_errors("404"),
            })},
            "/metrics": {"get": metrics},
            "/openapi.json": {"get": _get("This document", "openapi", {
                "200": {"description": "OpenAPI 3.1.", "content": _ANY},
            })},
        },
        "components": {"schemas": _schemas(image_shape, n_classes, resize, budget)},
    }  # fmt: skip
    if keyed:
        found["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return found


def _release_text(image_shape: Shape, resize: str | None, budget: int | None) -> str:
    _, height, width = image_shape
    size = f"{width}x{height} pixels"
    said = [
        f"At most {MAX_IMAGES} images. A body's first bytes tell what it is; Content-Type counts for forms, "
        "and where these bytes tell nothing.",
        f"A picture of another size than {size} gets 422 with both sizes."
        if resize is None
        else f"Of a picture of another size than {size} the central part of that aspect ratio is taken and "
        f"resized ({resize}, Pillow); the answer says so. At most {RESIZED_PIXELS} pixels.",
        "Arrays and JSON are never resized.",
    ]
    if budget is not None:
        said.append(f"Each image counts as a query, and a client has {budget}.")
    return " ".join(said)


def _contents() -> dict[str, Any]:
    contents: dict[str, Any] = {kind: {"schema": {"description": text}} for kind, text in FORMATS.items()}
    contents["application/octet-stream"] = {
        "schema": {"description": "any of the others, by its first bytes"}
    }
    contents["application/json"] = {"schema": {"$ref": "#/components/schemas/Images"}}
    contents[FORM] = {
        "schema": {
            "type": "object",
            "additionalProperties": {"contentMediaType": "application/octet-stream"},
            "description": FORMATS[FORM],
        }
    }
    return contents


def _headers(resize: str | None, budget: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if budget is not None:
        found["X-Queries-Remaining"] = {
            "description": "Queries that the client has left.",
            "schema": {"type": "integer", "minimum": 0},
        }
    if resize is not None:
        found["X-Resized"] = {
            "description": "The interpolation, where a picture was resized.",
            "schema": {"const": resize},
        }
    return found


def _schemas(image_shape: Shape, n_classes: int, resize: str | None, budget: int | None) -> dict[str, Any]:
    channels, height, width = image_shape
    pixel = {"type": "number", "minimum": 0, "maximum": 1}
    image = _list(_list(_list(pixel, width), height), channels)
    size = _list({"type": "integer", "minimum": 1}, 2)
    released: dict[str, Any] = {
        "released": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_IMAGES,
            "items": _list(pixel, n_classes),
        },
        "labels": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": n_classes - 1},
        },
    }
    if resize is not None:
        released["resized"] = _object(
            {
                "interpolation": {"const": resize},
                "given": {"type": "array", "items": {"oneOf": [{"type": "null"}, size]}},
                "to": {"const": [width, height]},
            }
        )
    error: dict[str, Any] = {"error": {"type": "string"}, "given": size, "wanted": size}
    if budget is not None:
        error |= {"budget": {"const": budget}, "remaining": {"type": "integer", "minimum": 0}}
    return {
        "Images": _object(
            {
                "images": {
                    "oneOf": [image, {"type": "array", "minItems": 1, "maxItems": MAX_IMAGES, "items": image}]
                }
            }
        ),
        "Released": _object(released, optional=("resized",)),
        "Health": _object(
            {
                "status": {"const": "ok"},
                "image_shape": {"const": list(image_shape)},
                "n_classes": {"const": n_classes},
            }
        ),
        "Error": _object(error, optional=tuple(set(error) - {"error"})),
    }


def _list(item: dict[str, Any], length: int) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": length, "maxItems": length}


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = sorted(set(properties) - set(optional))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _get(summary: str, name: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "operationId": name, "responses": responses}


def _json(text: str, schema: str) -> dict[str, Any]:
    ref = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": text, "content": {"application/json": {"schema": ref}}}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _json(_ERRORS[status], "Error") for status in statuses}
