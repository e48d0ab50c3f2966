"""Opens an ``s3://`` root: server, region and path from the URI and the environment. Credentials in the URI
are refused."""

from __future__ import annotations

import functools
import os
import re
import urllib.parse

from pyarrow import fs

from mipoison.config import ConfigError

OPTIONS = ("endpoint_override", "region", "scheme")
"""Parameters that the query of an ``s3://`` URI may have."""
_HOST = re.compile(r"[\w.-]+(:\d+)?(/[\w./-]*)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
_REGION = re.compile(r"[A-Za-z0-9-]{1,40}")
_FORMS = {"endpoint_override": "a host, or host:port, and no user or key", "region": "a region's name"}
_SECRET = re.compile(r"key|secret|token|passw|credential|sas|signature", re.IGNORECASE)


def line(error: BaseException | None) -> str:
    """The first line of an error's message, without the identifiers of the request."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.sub(r" \((Request ID|Host ID): [^)]*\)", "", text)


def shown(uri: str) -> str:
    """The parts of a URI that a message may contain: scheme, host and path, no user, password or query."""
    try:
        split = urllib.parse.urlsplit(uri)
    except ValueError:
        return f"{uri.partition('://')[0]}://..."
    return f"{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path}"


def _harmless(text: str) -> str:
    """The text if it is a short word or a host with its port; ``...`` for everything that may be a secret."""
    return text if re.fullmatch(r"[a-z._-]{0,20}(:\d{1,5})?", text) else "..."


def holds_credentials(uri: str) -> bool:
    """Whether the user part or a query parameter of a URI looks like a credential.

    Raises:
        ConfigError: the URI is malformed; the message does not contain it, because it may have a secret.
    """
    try:
        split = urllib.parse.urlsplit(uri)
        given = urllib.parse.parse_qsl(split.query, keep_blank_values=True)
    except ValueError as error:
        raise ConfigError(f"{shown(uri)} is not understood: brackets or characters of no URI") from error
    user = split.netloc.rpartition("@")[0]
    named = any(_SECRET.search(key) or "@" in urllib.parse.unquote(value) for key, value in given)
    return named or ":" in user or (bool(user) and split.scheme in ("s3", "http", "https"))


def refuse_credentials(uri: str) -> None:
    """Raise ConfigError, without repeating them, if a URI contains credentials."""
    if holds_credentials(uri):
        split = urllib.parse.urlsplit(uri)
        raise ConfigError(
            f"storage {split.scheme}://...: no credentials in the URI, which records and logs repeat. "
            "Use the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), a profile (AWS_PROFILE), a role"
        )


def open_s3(uri: str) -> tuple[fs.FileSystem, str, str]:
    """Open an ``s3://`` root.

    Returns:
        pyarrow's file system, the path in it, and the URI with endpoint and region filled in.

    Raises:
        ConfigError: the URI is malformed, contains credentials, or has an unknown parameter.
    """
    refuse_credentials(uri)
    split = urllib.parse.urlsplit(uri)
    given = urllib.parse.parse_qsl(split.query, keep_blank_values=True)
    for key, value in given:
        if key not in OPTIONS or not value:
            raise ConfigError(
                f"storage {shown(uri)}: query parameter {_harmless(key)}={_harmless(value)}: choose from "
                f"{', '.join(OPTIONS)}"
            )
    options = dict(given)
    path = urllib.parse.unquote(split.path).strip("/")
    if not split.netloc:
        raise ConfigError(f"storage {shown(uri)} names no bucket or folder: write s3://bucket/prefix")
    if split.fragment or "\0" in path or any(p in ("", ".", "..") for p in path.split("/") if path):
        raise ConfigError(f"storage {shown(uri)} is not understood: write s3://bucket/prefix, plain names")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if "endpoint_override" not in options and endpoint:
        refuse_credentials(endpoint)
        scheme, _, host = endpoint.rpartition("://")
        options = {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"} | options
    for key, form in (("endpoint_override", _HOST), ("region", _REGION)):
        if key in options and not form.fullmatch(options[key]):
            raise ConfigError(f"storage {shown(uri)}: {key} (or $AWS_ENDPOINT_URL): write {_FORMS[key]}")
    if options.get("scheme", "https") not in ("http", "https"):
        raise ConfigError(
            f"storage {shown(uri)}: scheme={_harmless(options['scheme'])}: choose from http, https"
        )
    if "region" not in options:
        options["region"] = _region(split.netloc, "endpoint_override" in options, uri)
    try:
        system = _s3_system(tuple(sorted(options.items())))
    except Exception as error:
        raise ConfigError(f"storage {shown(uri)} is not understood: {line(error)}") from error
    query = urllib.parse.urlencode(sorted(options.items()), safe=":[]/")
    base = f"s3://{split.netloc}/{urllib.parse.quote(path)}".rstrip("/")
    return system, f"{split.netloc}/{path}".rstrip("/"), f"{base}?{query}"


@functools.lru_cache(maxsize=16)
def _region(bucket: str, elsewhere: bool, uri: str) -> str:
    """The bucket's region: from the environment for another server than Amazon's, else as Amazon answers.

    Args:
        bucket: its name. elsewhere: whether the server is not Amazon's. uri: for messages.
    """
    if elsewhere:
        return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError as error:
        raise ConfigError(f"storage {shown(uri)}: {line(error)}") from error


@functools.lru_cache(maxsize=16)
def _s3_system(options: tuple[tuple[str, str], ...]) -> fs.S3FileSystem:
    """The client of a server; it is cached because every trial opens its storage again.

    The timeouts, in seconds, are for a connection without data, not for a whole transfer. Small files are
    sent in one request when they are closed.
    """
    return fs.S3FileSystem(
        **dict(options),
        connect_timeout=5,
        request_timeout=10,
        allow_delayed_open=True,
    )
