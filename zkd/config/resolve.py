"""Defaults that hang on other keys, and checks across keys. Pure, but for the environment given.

Sources of the checks: Apache ZooKeeper, quorum/QuorumPeerConfig.java (parseProperties,
parseDynamicConfig, checkValidity); the rest are traps that operators report.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from zkd.config import keys
from zkd.config.findings import Level
from zkd.config.key import Action
from zkd.config.pending import ENSEMBLE_ONLY, is_pending
from zkd.config.reader import COMMAND_LINE, Settings
from zkd.config.runtime import SOCKET_NAME_MAX, SOCKET_PATH_MAX, default_runtime_dir, short_enough
from zkd.config.servers import Membership, faults

HARMLESS_WORDS = frozenset(
    ("conf", "cons", "dirs", "dump", "envi", "hash", "isro", "mntr", "ruok", "srvr", "stat", "wchs")
)
"""Words that only read and whose answer does not grow with the number of watches."""

FOUR_LETTER_WORDS = HARMLESS_WORDS | {"crst", "gtmk", "srst", "stmk", "wchc", "wchp"}

LOOPBACK = tuple(ip_network(text) for text in ("127.0.0.0/8", "::1/128"))
STANDALONE_NAME = "standalone"
METRICS_PORT = 7000
BUILT_IN_PROVIDERS: Mapping[str, str] = {
    "org.apache.zookeeper.server.auth.SASLAuthenticationProvider": "sasl",
    "org.apache.zookeeper.server.auth.X509AuthenticationProvider": "x509",
    "org.apache.zookeeper.server.auth.IPAuthenticationProvider": "ip",
    "org.apache.zookeeper.server.auth.DigestAuthenticationProvider": "digest",
    "org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider": "ensemble",
    "org.apache.zookeeper.server.auth.KeyAuthenticationProvider": "key",
}
_PLUGIN = "plugin:"


def without_file(values: dict[str, Any]) -> None:
    """What a server without a configuration file is told: standalone, on loopback alone."""
    values.setdefault("data_dir", Path("zkd-data"))
    if "client_port" not in values and "secure_client_port" not in values:
        values["client_port"] = 2181
    if values.get("client_port", -1) != -1:
        values.setdefault("client_port_address", "127.0.0.1")


def fill_in(settings: Settings, source: Path | None, environ: Mapping[str, str]) -> None:
    """Set every value whose default hangs on others."""
    values = settings.values
    name = source.stem if source else STANDALONE_NAME
    values.setdefault("name", name)
    tick = values.get("tick_time", 3000)
    for attribute, ticks in (("min_session_timeout", 2), ("max_session_timeout", 20)):
        if values.get(attribute, -1) == -1:
            values[attribute] = tick * ticks
    if not values.get("connect_to_learner_master_limit"):
        values["connect_to_learner_master_limit"] = values.get("init_limit", 0)
    if values.get("max_write_queue_poll_time", -1) == -1:
        values["max_write_queue_poll_time"] = values.get("flush_delay", 0) // 3
    if "jute_maxbuffer_extrasize" not in values:
        values["jute_maxbuffer_extrasize"] = max(1024, values.get("jute_maxbuffer", 0xFFFFF))
    values.setdefault("frontends", max(1, (os.cpu_count() or 1) // 2))
    if values.get("metrics_provider") == "prometheus":
        values.setdefault("metrics_http_port", METRICS_PORT)
    _tls(values)
    _four_letter_words(values)
    _folders(settings, environ)


def _tls(values: dict[str, Any]) -> None:
    for side, default in (("client_tls", False), ("quorum_tls", True)):
        values.setdefault(f"{side}.client_hostname_verification", default)
        if f"{side}.enabled_protocols" not in values:
            protocol = values.get(f"{side}.protocol", "TLSv1.3")
            both = ("TLSv1.3", "TLSv1.2")
            values[f"{side}.enabled_protocols"] = (protocol,) if protocol == "TLSv1.2" else both


def _four_letter_words(values: dict[str, Any]) -> None:
    told = values.get("four_letter_whitelist")
    allowed = _expanded(told or ()) | {"srvr"}
    if values.get("read_only_mode_enabled"):
        allowed |= {"isro"}
    values["four_letter_whitelist"] = frozenset(allowed)
    nearby = values.get("four_letter_loopback_whitelist")
    if nearby is None:
        nearby = HARMLESS_WORDS if told is None else ()
    values["four_letter_loopback_whitelist"] = frozenset(_expanded(nearby))
    values.setdefault("four_letter_loopback_networks", LOOPBACK)


def _expanded(words: Any) -> set[str]:
    return set(FOUR_LETTER_WORDS) if "*" in words else set(words)


def _folders(settings: Settings, environ: Mapping[str, str]) -> None:
    values = settings.values
    for attribute, key in (("data_dir", "dataDir"), ("data_log_dir", "dataLogDir")):
        folder = values.get(attribute)
        if folder is None:
            continue
        if not folder.is_absolute() and key in settings.raw:
            what = f"{key} is relative; it is taken from the folder in which the server is started"
            settings.add(Level.WARNING, key, what, "write an absolute path")
        values[attribute] = folder.absolute()
    if "data_dir" not in values:
        return
    data_dir: Path = values["data_dir"]
    values.setdefault("data_log_dir", data_dir)
    key_file = values.get("session_key")
    values["session_key"] = data_dir / (key_file or "session.key")
    if "runtime_dir" in values:
        values["runtime_dir"] = values["runtime_dir"].absolute()
    else:
        temporary = Path(tempfile.gettempdir())
        values["runtime_dir"] = default_runtime_dir(data_dir, environ, temporary)
    if not short_enough(values["runtime_dir"]):
        room = SOCKET_PATH_MAX - SOCKET_NAME_MAX
        what = f"runtime.dir is longer than {room} bytes: {values['runtime_dir']}"
        settings.add(Level.ERROR, "runtime.dir", what, "choose a folder with a shorter path")


def check(settings: Settings, distributed: bool, has_client_address: bool) -> None:
    """Checks across keys; each fault or danger is added to the findings."""
    values = settings.values
    if "data_dir" not in values and "dataDir" not in settings.raw:
        settings.add(Level.ERROR, "dataDir", "dataDir is not set", "name the folder of the data")
    _check_ports(settings, has_client_address)
    if values["min_session_timeout"] > values["max_session_timeout"]:
        what = "minSessionTimeout is larger than maxSessionTimeout"
        settings.add(Level.ERROR, "minSessionTimeout", what, "raise the one or lower the other")
    _check_sasl(settings)
    _check_providers(settings)
    _check_dangers(settings)
    if distributed:
        for key in ("initLimit", "syncLimit"):
            if key not in settings.raw:
                what = f"{key} is not set, but there are several servers"
                settings.add(Level.ERROR, key, what, f"add a line such as {key}=10")
    _check_pending(settings, distributed)


def _check_pending(settings: Settings, distributed: bool) -> None:
    """Tell what is asked for and not given: a silent difference would be found in an outage."""
    names = []
    for name in settings.raw:
        key = keys.find(name)
        if key is None or key.action in (Action.IGNORE, Action.REFUSE) or not is_pending(key):
            continue
        as_default = not key.is_pattern and settings.values.get(key.attribute) == key.default
        if not as_default and (distributed or key.section != ENSEMBLE_ONLY):
            names.append(name)
    if names:
        what = f"this version does not act on these keys yet: {', '.join(names)}"
        settings.add(Level.WARNING, names[0], what)


def _check_ports(settings: Settings, has_client_address: bool) -> None:
    values = settings.values
    plain, secure = values.get("client_port", -1), values.get("secure_client_port", -1)
    for key, port, address in (
        ("clientPort", plain, "client_port_address"),
        ("secureClientPort", secure, "secure_client_port_address"),
    ):
        if values.get(address) and port == -1 and key not in settings.raw:
            what = f"{key}Address is set but {key} is not"
            settings.add(Level.ERROR, f"{key}Address", what, f"set {key}")
    told = "clientPort" in settings.raw or "secureClientPort" in settings.raw
    if plain == -1 and secure == -1 and not told and not has_client_address:
        what = "there is no port for clients"
        settings.add(Level.ERROR, "clientPort", what, "add the line clientPort=2181")
    if plain > 0 and plain == secure:
        what = f"clientPort and secureClientPort are both {plain}"
        settings.add(Level.ERROR, "secureClientPort", what, "choose different ports")


def _check_sasl(settings: Settings) -> None:
    values = settings.values
    enabled = values.get("quorum_auth_enable_sasl", False)
    learner = values.get("quorum_auth_learner_require_sasl", False)
    server = values.get("quorum_auth_server_require_sasl", False)
    for required, other, key, missing in (
        (server, enabled, "quorum.auth.serverRequireSasl", "quorum.auth.enableSasl"),
        (learner, enabled, "quorum.auth.learnerRequireSasl", "quorum.auth.enableSasl"),
        (server, learner, "quorum.auth.serverRequireSasl", "quorum.auth.learnerRequireSasl"),
    ):
        if required and not other:
            what = f"{key}=true needs {missing}=true"
            settings.add(Level.ERROR, key, what, f"set {missing}=true")


def _check_providers(settings: Settings) -> None:
    for suffix, text in settings.values.get("auth_providers", {}).items():
        if text not in BUILT_IN_PROVIDERS and not text.startswith(_PLUGIN):
            key = f"authProvider.{suffix}"
            what = f"{key}: the Java class {text} cannot be loaded"
            mend = "write plugin:NAME for a zkd plugin, or one of Apache ZooKeeper's classes"
            settings.add(Level.ERROR, key, what, mend)
    audit = settings.values.get("audit_impl_class", "")
    if audit and not audit.startswith(_PLUGIN) and not audit.endswith(".Slf4jAuditLogger"):
        what = f"audit.impl.class: the Java class {audit} cannot be loaded"
        settings.add(Level.ERROR, "audit.impl.class", what, "write plugin:NAME for a zkd plugin")


def _acts(name: str) -> bool:
    """Whether the server acts on a key: there is no danger in one on which it does not."""
    key = keys.find(name)
    return key is not None and not is_pending(key)


def _check_dangers(settings: Settings) -> None:
    values = settings.values
    if not values.get("force_sync", True) and _acts("forceSync"):
        what = "forceSync=no: writes that were answered are lost when the machine loses power"
        settings.add(Level.DANGER, "forceSync", what, "remove the line")
    if values.get("skip_acl", False):
        what = "skipACL=yes: no ACL is checked; everybody may read, change and delete everything"
        settings.add(Level.DANGER, "skipACL", what, "remove the line")
    if values.get("snapshot_trust_empty", False) and _acts("snapshot.trust.empty"):
        what = "snapshot.trust.empty=true hides the loss of snapshots"
        settings.add(Level.DANGER, "snapshot.trust.empty", what, "remove it after the migration")
    data_dir = values.get("data_dir")
    in_file = settings.where.get("dataDir", COMMAND_LINE) != COMMAND_LINE
    if in_file and data_dir is not None and data_dir.parts[:2] == ("/", "tmp"):
        what = f"dataDir={data_dir} is emptied when the machine restarts"
        settings.add(Level.WARNING, "dataDir", what, "choose a lasting folder")
    for side in ("client_tls", "quorum_tls", "metrics_tls"):
        for store in ("key_store", "trust_store"):
            location = values.get(f"{side}.{store}_location")
            kind = values.get(f"{side}.{store}_type", "")
            if kind == "BCFKS" or (not kind and location and location.suffix == ".bcfks"):
                what = f"BCFKS stores cannot be read: {location}"
                mend = (
                    "convert it: keytool -importkeystore -srcstoretype BCFKS "
                    "-deststoretype PKCS12 -srckeystore OLD -destkeystore NEW.p12"
                )
                settings.add(Level.ERROR, side, what, mend)


def check_membership(
    settings: Settings, membership: Membership, *, standalone_enabled: bool, my_id: int | None
) -> bool:
    """Check the server lines; True if this server is a member of an ensemble."""
    voters = membership.voters()
    distributed = bool(membership.servers) and (not standalone_enabled or len(voters) > 1)
    if membership.servers or not standalone_enabled:
        for fault in faults(membership, standalone_enabled=standalone_enabled):
            settings.add(Level.ERROR, "server", fault)
    if not membership.servers:
        return distributed
    if not distributed and len(voters) == 1:
        what = "there is only one server line; the server runs standalone"
        settings.add(Level.WARNING, "server", what, "standaloneEnabled=false for an ensemble of 1")
    elif len(voters) == 2:
        what = "with two voters no failure is tolerated"
        settings.add(Level.WARNING, "server", what, "use three servers")
    elif distributed and len(voters) % 2 == 0:
        what = f"{len(voters)} voters tolerate no more failures than {len(voters) - 1}"
        settings.add(Level.WARNING, "server", what, "use an odd number of servers")
    if distributed:
        _check_my_id(settings, membership, my_id)
    return distributed


def _check_my_id(settings: Settings, membership: Membership, my_id: int | None) -> None:
    values = settings.values
    folder = values.get("data_dir", Path("dataDir"))
    if my_id is None:
        if not any(finding.key == "myid" for finding in settings.findings):
            mend = f"write the number of this server's line into it: echo 1 > {folder}/myid"
            settings.add(Level.ERROR, "myid", f"there is no file {folder}/myid", mend)
        return
    if my_id not in membership.servers:
        what = f"{folder}/myid says {my_id}, but there is no line server.{my_id}"
        settings.add(Level.ERROR, "myid", what, "correct the file or add the line")
    highest = 254 if values.get("extended_types_enabled") else 255
    if not 1 <= my_id <= highest:
        level = Level.ERROR if values.get("extended_types_enabled") else Level.WARNING
        what = f"the server id {my_id} is not within 1 and {highest}; session ids may collide"
        settings.add(level, "myid", what, "choose a smaller id")
    observer = my_id in membership.servers and membership.servers[my_id].role == "observer"
    if observer != (values.get("peer_type", "participant") == "observer"):
        role = "observer" if observer else "participant"
        if observer or "peerType" in settings.raw:
            what = f"peerType differs from line server.{my_id}, which decides: {role}"
            settings.add(Level.WARNING, "peerType", what)
        values["peer_type"] = role
