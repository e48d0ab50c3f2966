"""Where an s3:// root leads: server, region and path, from the URI and the environment, credentials never."""

from __future__ import annotations

import functools
import os
import re
import urllib.parse

from pyarrow import fs

from mipoison.config import ConfigError

OPTIONS = ("endpoint_override", "region", "scheme")
"""What the query of an s3:// URI may say."""
_SECRET = re.compile(r"key|secret|token|passw|credential|sas|signature", re.IGNORECASE)


def line(error: BaseException | None) -> str:
    """An error's first line, without the identifiers of the request."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.sub(r" \((Request ID|Host ID): [^)]*\)", "", text)


def refuse_credentials(uri: str) -> None:
    """ConfigError if user information or a query parameter looks like a credential; it is not repeated."""
    split = urllib.parse.urlsplit(uri)
    user = split.netloc.rpartition("@")[0]
    named = [k for k, _ in urllib.parse.parse_qsl(split.query, keep_blank_values=True) if _SECRET.search(k)]
    if named or ":" in user or (user and split.scheme in ("s3", "http", "https")):
        raise ConfigError(
            f"storage {split.scheme}://...: no credentials in the URI, which records and logs repeat. "
            "Use the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), a profile (AWS_PROFILE), a role"
        )


def open_s3(uri: str) -> tuple[fs.FileSystem, str, str]:
    """File system, path and complete URI of an s3:// root."""
    refuse_credentials(uri)
    split = urllib.parse.urlsplit(uri)
    given = urllib.parse.parse_qsl(split.query, keep_blank_values=True)
    for key, value in given:
        if key not in OPTIONS or not value:
            raise ConfigError(
                f"storage {uri!r}: query parameter {key}={value}: choose from {', '.join(OPTIONS)}"
            )
    options = dict(given)
    path = urllib.parse.unquote(split.path).strip("/")
    if not split.netloc:
        raise ConfigError(f"storage {uri!r} names no bucket or folder: write s3://bucket/prefix")
    if split.fragment or "\0" in path or any(p in ("", ".", "..") for p in path.split("/") if path):
        raise ConfigError(f"storage {uri!r} is not understood: write s3://bucket/prefix, plain names")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if "endpoint_override" not in options and endpoint:
        refuse_credentials(endpoint)
        scheme, _, host = endpoint.rpartition("://")
        options = {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"} | options
    if options.get("scheme", "https") not in ("http", "https"):
        raise ConfigError(f"storage {uri!r}: scheme={options['scheme']}: choose from http, https")
    if "region" not in options:
        options["region"] = _region(split.netloc, "endpoint_override" in options, uri)
    try:
        system = _s3_system(tuple(sorted(options.items())))
    except Exception as error:
        raise ConfigError(f"storage {uri!r} is not understood: {line(error)}") from error
    query = urllib.parse.urlencode(sorted(options.items()), safe=":[]/")
    base = f"s3://{split.netloc}/{urllib.parse.quote(path)}".rstrip("/")
    return system, f"{split.netloc}/{path}".rstrip("/"), f"{base}?{query}"


@functools.lru_cache(maxsize=16)
def _region(bucket: str, elsewhere: bool, uri: str) -> str:
    """The bucket's region: of another server than Amazon's what the environment says, else Amazon knows."""
    if elsewhere:
        return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError as error:
        raise ConfigError(f"storage {uri!r}: {line(error)}") from error


@functools.lru_cache(maxsize=16)
def _s3_system(options: tuple[tuple[str, str], ...]) -> fs.S3FileSystem:
    """One client per server: every trial opens its storage anew.

    Timeouts are for silence, not for a whole transfer. Small files are sent in one request, on closing.
    """
    return fs.S3FileSystem(
        **dict(options),
        connect_timeout=5,
        request_timeout=10,
        allow_delayed_open=True,
    )
