"""Mask credentials wherever settings are shown, and reject settings files that contain credentials.

SHOWN, NAMES, ADDRESSES and _SHOWN_PROPERTIES are allow-lists: a setting or Spark property that is in none of them is masked.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from entitymill.errors import SettingsError

MASK = "***"
SHOWN = frozenset({
    "source.format", "source.where", "source.markup", "source.max_chars", "source.time_zone", "output.format",
    "output.annotations", "output.target_file_mb",
    "output.deletion_vectors", "output.change_feed",
    "output.adopt_source", "output.replace_slice", "segmentation.detector", "recognition.engine",
    "recognition.encoding", "recognition.precision", "mentions.trim", "mentions.decoding", "mentions.consistent_labels",
    "incremental.on_fingerprint_change",
    "limits.max_reject_ratio", "limits.max_removed_ratio", "limits.batch_seconds", "limits.tagger_mb",
    "limits.unit_rows", "limits.unit_mb",
    "limits.max_core_hours", "limits.lease_seconds", "limits.wait_seconds", "cost.per_core_hour",
    "spark.class_archive", "spark.partitions", "report.show_text", "report.fail_on_drift",
    "report.drift_share", "report.drift_rate", "report.drift_confidence", "report.drift_sentences",
})  # fmt: skip
"""Settings that are shown unchanged: numbers, flags, words from a fixed list, and the condition `source.where`."""
NAMES = frozenset({
    "source.id_column", "source.text_column", "source.passthrough", "output.schema", "entities.labels",
    "entities.min_confidence", "report.date_column", "cost.currency",
})  # fmt: skip
"""Settings whose values are names of columns, labels and the like. A value may also be a list or a dict of names. A name is
masked only if it looks like a URI or a connection string."""
ADDRESSES = frozenset({
    "source.path", "output.path", "segmentation.model", "model.path", "recognition.sparknlp_model", "report.path",
    "metrics.textfile", "metrics.pushgateway", "lineage.url", "lineage.namespace", "spark.master", "spark.jars", "log",
})  # fmt: skip
"""Settings that are paths or URIs; they are shown after `mask_address` has masked credentials in them."""
_SHOWN_PROPERTIES = (
    "spark.app.name", "spark.cores.max", "spark.default.parallelism", "spark.driver.bindAddress", "spark.driver.cores",
    "spark.driver.host", "spark.driver.maxResultSize", "spark.driver.memory", "spark.driver.memoryOverhead",
    "spark.driver.port", "spark.dynamicAllocation.", "spark.eventLog.dir", "spark.eventLog.enabled", "spark.executor.cores",
    "spark.executor.heartbeatInterval", "spark.executor.instances", "spark.executor.memory", "spark.executor.memoryOverhead",
    "spark.executor.pyspark.memory", "spark.hadoop.fs.s3a.aws.credentials.provider", "spark.hadoop.fs.s3a.connection.",
    "spark.hadoop.fs.s3a.endpoint", "spark.hadoop.fs.s3a.endpoint.region", "spark.hadoop.fs.s3a.path.style.access",
    "spark.io.compression.", "spark.kubernetes.namespace", "spark.local.dir", "spark.locality.", "spark.memory.",
    "spark.network.timeout", "spark.pyspark.python", "spark.python.worker.", "spark.scheduler.mode", "spark.serializer",
    "spark.shuffle.", "spark.speculation", "spark.sql.adaptive.", "spark.sql.ansi.enabled",
    "spark.sql.autoBroadcastJoinThreshold", "spark.sql.caseSensitive", "spark.sql.execution.arrow.", "spark.sql.extensions",
    "spark.sql.files.", "spark.sql.legacy.", "spark.sql.parquet.", "spark.sql.session.timeZone",
    "spark.sql.shuffle.partitions", "spark.sql.warehouse.dir", "spark.stage.", "spark.task.", "spark.ui.enabled",
    "spark.ui.port", "spark.ui.showConsoleProgress", "spark.databricks.delta.autoCompact.",
    "spark.databricks.delta.optimizeWrite.", "spark.databricks.delta.properties.defaults.",
    "spark.databricks.delta.retentionDurationCheck.enabled", "spark.databricks.delta.snapshotPartitions",
    "spark.yarn.queue",
)  # fmt: skip
"""Spark properties whose values are shown if they match _PLAIN_VALUE; a name that ends with a dot is a prefix."""
_PLAIN_VALUE = re.compile(r"[\w.,:*/+()\[\]$%-]*")
"""Matches a property's value that cannot contain a credential, because it has no `@`, `=`, `?`, `#`, `;` or space."""
_UNLIKE_A_NAME = re.compile(r"://|[=@;&]")
"""Matches what occurs in URIs and connection strings, but not in names of columns, labels or schemas."""
_ADDRESS = re.compile(
    r"(?P<before>(?:jdbc:[a-z0-9]+:|k8s://https?:|[A-Za-z][A-Za-z0-9+.-]*:)(?P<slashes>//)?|(?P<no_scheme>//)?)(?P<rest>.*)",
    re.DOTALL,
)
"""Matches any path or URI: the group `before` has the scheme with its slashes, and the group `rest` the remaining text."""
_TAIL = re.compile(r"[?#;]|&[\w.-]+=|\s[\w.-]+=")
"""Matches the place in a URI where a query string, a fragment or JDBC options begin."""
_HOSTS = re.compile(r"(?:[^:@,]*|\[[0-9a-fA-F:]+\])(?::\d+)?(?:,[^:@,]+(?::\d+)?)*")
"""Matches one or more hosts with optional ports, and no user."""
_CONTAINER = re.compile(r"[\w$.-]+@[^:@]*(?::\d+)?")
"""Matches CONTAINER@ACCOUNT, in which the text before the `@` is not a user."""
_STORAGES_OF_CONTAINERS = {"abfs", "abfss", "wasb", "wasbs"}
"""Schemes whose URIs contain CONTAINER@ACCOUNT."""
_STORAGES_WITH_PORTS = {"hdfs", "viewfs", "webhdfs", "swebhdfs", "o3fs", "ofs", "alluxio"}
"""Schemes whose URIs contain HOST:PORT, so that a number after a colon is a port, not a password."""
_STORAGES = (
    _STORAGES_OF_CONTAINERS | _STORAGES_WITH_PORTS | {"file", "dbfs", "s3", "s3a", "s3n", "gs", "adl", "oss", "obs", "cosn"}
)
"""Schemes of Hadoop storages, for which `?`, `#` and `;` are parts of a path."""
_PRETRAINED = "pretrained:"
_ADDRESS_IN_TEXT = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"<>`\u2019\u201d|{}]*[^\s'\"<>`\u2019\u201d|{}.,;:!?)…]"
)
"""Matches a URI in a sentence, without the punctuation after it."""
_MASKED_TAIL = re.compile(r"[?#;&\s]\*\*\*(?:-[0-9a-f]{8})?(?:/[^?#;&\s,@]*)?")
"""Matches what `_mask_tail` has put in the place of a query string, a fragment or JDBC options, and a path after it."""
_MAY_HOLD_CREDENTIAL = re.compile(r"^(?!/).*[@=:]|[?#;&\s][\w.-]+=", re.DOTALL)
"""Matches addresses that may hold a credential. For example, a#b and /data/dt=2026-??/*.parquet do not match."""
_MIN_HIDDEN_CHARACTERS = 8
_hidden: dict[str, str] = {}
"""Dict from each address with a credential, in settings that this process has loaded, to the masked address."""
_SECRET_KEY = re.compile(
    r"secret|password|passwd|passphrase|pwd$|api[._-]?key|access[._]?key|account\.?key|private\.key$|session\.token|sas\.token|"
    r"\bsas\.",
    re.IGNORECASE,
)
"""Matches key paths whose values are secrets, unless _SECRET_REFERENCE also matches the key path."""
_SECRET_REFERENCE = re.compile(
    r"(provider|provider\.path|\.file|\.endpoint)$|provider\.type|keyprovider|secretKeyRef\.|\.kubernetes\.\w+\.secrets\.",
    re.IGNORECASE,
)
"""Matches key paths whose values are not secrets, but say where a secret is stored."""
_SECRET_WORDS = r"(?:password|passwd|pwd|secret|token|api_?key|access_?key|account_?key|sig|signature)"
_SECRET_VALUES = (
    re.compile(r"://[^/@:\s]*:(?!\d+(?:[/,]|$))\S+@"),
    re.compile(r"https?://[^/@:\s]+@", re.IGNORECASE),  # in abfss://texts@lake, `texts` is a container, not a user
    re.compile(rf"[?&;][\w.-]*{_SECRET_WORDS}=[^&;\s]", re.IGNORECASE),
    re.compile(rf"-D[\w.]*{_SECRET_WORDS}=\S", re.IGNORECASE),
    re.compile(r"^(?:Shared)?A(?:ccount|ccess)Key=\S", re.IGNORECASE),
)
"""Each matches a password or token: in a URI, in its query string, in Java options, or in a connection string."""
_FREE_TEXT = {"source.where"}
"""Settings that may contain text that looks like a secret, even in a settings file."""


def mask_settings(settings: Any, key: str = "") -> Any:
    """Return a copy of settings in which MASK replaces each value, or each part of an address, that may be a credential.

    A value whose key is in none of the allow-lists of this module is always replaced, unless it is None.

    Args:
        settings: all settings, or the value of one key, as plain data from pydantic's `model_dump`.
        key: key path of `settings`; empty for all settings.
    """
    if key == "spark.conf" and isinstance(settings, dict):
        return {name: _mask_property(str(name), value) for name, value in settings.items()}
    if settings is None or key in SHOWN:
        return settings
    if key in NAMES:
        return _mask_names(settings)
    if key in ADDRESSES and isinstance(settings, str):
        return _mask_list(settings) if key == "spark.jars" else mask_address(settings)
    if isinstance(settings, dict):
        return {name: mask_settings(value, f"{key}.{name}" if key else str(name)) for name, value in settings.items()}
    return MASK


def _mask_list(addresses: str) -> str:
    """Return a comma-separated list of paths or URIs in which the credentials of each URI are masked.

    A comma before an `@` may be part of a password, so the list is not split there.
    """
    begin_with_scheme = re.split(r",(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)", addresses)
    several = (part.split(",") if "@" not in part.partition(",")[2] else [part] for part in begin_with_scheme)
    return ",".join(mask_address(part) for parts in several for part in parts)


def _mask_property(name: str, value: Any) -> str:
    """Return a Spark property's value; MASK if _SHOWN_PROPERTIES lacks the property, or the value may hold a credential."""
    listed = any(name.startswith(shown) if shown.endswith(".") else name == shown for shown in _SHOWN_PROPERTIES)
    return str(value) if listed and _PLAIN_VALUE.fullmatch(str(value)) else MASK


def _mask_names(value: Any) -> Any:
    """Return a string, or a list or dict of strings, in which MASK replaces each string that may contain a password.

    These are the strings that contain `://` or one of `= @ ; &`. Keys of a dict are replaced, too.
    """
    if isinstance(value, dict):
        return {_mask_names(name): _mask_names(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mask_names(inner) for inner in value]
    return MASK if isinstance(value, str) and _UNLIKE_A_NAME.search(value) else value


def mask_address(address: str, *, with_digest: bool = True) -> str:
    """Return a path or URI in which MASK replaces user and password, and the query string, fragment or JDBC options.

    For example, `https://me:pw@host/a?key=1` becomes `https://***@host/a?***`. Masked URIs of different tables must differ,
    since a run compares them to decide whether an output belongs to its job. In local paths and URIs of Hadoop storages,
    the text after `?`, `#` or `;` belongs to the path, and may be all that differs. So if they name no user, a digest of the
    masked text follows MASK, unless `with_digest` is False. A connection string, such as `AccountKey=…`, is masked as a
    whole, with a digest in the same way. If it is unclear which part of a URI is a credential, all text after the scheme is
    masked.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or address.startswith(_PRETRAINED):
        return _mask_tail("", address, with_digest=with_digest)
    before, rest = match["before"], match["rest"]
    scheme = before.partition(":")[0].lower()
    local = not before
    if local and re.match(r"[^/]*=", rest):  # a connection string
        return MASK + (_digest(rest) if with_digest else "")
    is_storage = local or scheme in _STORAGES
    authority = re.match(r"[^/]*", rest)[0] if match["slashes"] or match["no_scheme"] else ""  # type: ignore[index]
    if is_storage and _has_no_user(scheme, authority):
        return _mask_tail(before, rest, with_digest=with_digest)
    at = rest.rfind("@")
    if at >= 0:
        # A password may contain `?`, and a token in a query string may contain `@`. If the URI contains both characters, it
        # is unclear where the credential ends, so all of it is masked.
        return f"{before}{MASK}" if _TAIL.search(rest[:at]) else _mask_tail(f"{before}{MASK}@", rest[at + 1 :])
    if not authority or not _HOSTS.fullmatch(_TAIL.split(authority)[0]):
        return before + MASK
    return _mask_tail(before, rest)


def _has_no_user(scheme: str, authority: str) -> bool:
    """Return whether the authority of a storage URI (the part before the path) names only hosts and buckets, and no user."""
    if scheme in _STORAGES_OF_CONTAINERS and _CONTAINER.fullmatch(authority):
        return True
    if scheme in _STORAGES_WITH_PORTS:
        return _HOSTS.fullmatch(authority) is not None
    return ":" not in authority and "@" not in authority


def _mask_tail(before: str, rest: str, *, with_digest: bool = False) -> str:
    """Return `before` + `rest`, but replace the query string, fragment or JDBC options at the end of `rest` by MASK.

    With `with_digest`, a digest of the replaced text follows MASK, so that different texts still look different. Text that
    is masked already is not masked again.
    """
    tail = _TAIL.search(rest)
    if tail is None:
        return before + rest
    hidden = rest[tail.start() :]
    if _MASKED_TAIL.fullmatch(hidden):
        return before + rest
    return f"{before}{rest[: tail.start()]}{hidden[0]}{MASK}{_digest(hidden) if with_digest else ''}"


@cache
def _digest(hidden: str) -> str:
    """Return `-` and eight hex digits of a hash of `hidden`. The hash takes 0.1 s, which makes guessing a password slow."""
    return "-" + hashlib.pbkdf2_hmac("sha256", hidden.encode("utf8", "surrogatepass"), b"entitymill", 200_000).hex()[:8]


def remember_addresses(settings: Any, key: str = "") -> None:
    """Make `mask_text` mask the credentials in all addresses of these settings, including those that are not URIs.

    This lasts until the process ends. Addresses without a credential, or with fewer than _MIN_HIDDEN_CHARACTERS characters,
    are left out. `settings` and `key` are as in `mask_settings`.
    """
    if isinstance(settings, dict):
        for name, value in settings.items():
            remember_addresses(value, f"{key}.{name}" if key else str(name))
    elif key in ADDRESSES and isinstance(settings, str):
        for address in [settings, *(settings.split(",") if key == "spark.jars" else ())]:
            masked = mask_settings(address, key)
            if masked != address and _MAY_HOLD_CREDENTIAL.search(address) and len(address) >= _MIN_HIDDEN_CHARACTERS:
                _hidden[address] = masked


def mask_text(text: str) -> str:
    """Return a text, such as a message or another program's output, with the credentials in its addresses masked.

    Every URI in the text counts as an address, and so does every address that `remember_addresses` has stored.
    """
    for address in sorted(_hidden, key=len, reverse=True):  # one address may begin with another one
        text = text.replace(address, _hidden[address])
    return _ADDRESS_IN_TEXT.sub(lambda match: mask_address(match[0], with_digest=False), text)


def refuse_secrets(layer: Any, path: Path, key: str = "") -> None:
    """Raise a SettingsError if a settings file contains a secret, because settings files are often copied and committed.

    A secret is a string or number whose key path names a secret, or a string that contains one (see _SECRET_KEY,
    _SECRET_REFERENCE and _SECRET_VALUES). The message names the key of the secret, and does not contain its value.

    Args:
        layer: content of the file, or the value of one key in it.
        path: the file, for the message.
        key: key path of `layer`; empty for the content of the whole file.
    """
    if isinstance(layer, dict):
        for name, value in layer.items():
            refuse_secrets(value, path, f"{key}.{name}" if key else str(name))
        return
    if isinstance(layer, list):
        for value in layer:
            refuse_secrets(value, path, key)
        return
    in_key = _SECRET_KEY.search(key) is not None and _SECRET_REFERENCE.search(key) is None
    in_value = key not in _FREE_TEXT and isinstance(layer, str) and any(pattern.search(layer) for pattern in _SECRET_VALUES)
    is_value = isinstance(layer, str | int | float) and not isinstance(layer, bool)
    if is_value and (in_key or in_value):
        raise SettingsError(
            f"--config {path}: {key} holds a secret; remove it from the file, and set it in an environment variable, or "
            "name a credentials provider (docs/cluster.md)."
        )
