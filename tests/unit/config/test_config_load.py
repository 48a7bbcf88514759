"""`load`: defaults, derived values, faults told at once, warnings, dynamic files, myid."""

from __future__ import annotations

from pathlib import Path

import pytest

from zkd.config import Config, ConfigError, Finding, Level, examine, load
from zkd.errors import OperatorError

BASE = "dataDir=/var/lib/zkd\nclientPort=2181\n"


def write(folder: Path, text: str, name: str = "zoo.cfg") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def loaded(folder: Path, text: str) -> Config:
    return load(write(folder, BASE + text))


def findings(folder: Path, text: str) -> list[Finding]:
    return list(examine(write(folder, BASE + text)).findings)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text))
    return [finding.what for finding in caught.value.findings]


def test_without_a_file_it_is_a_standalone_server_on_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None)
    assert (config.listen_address, config.listen_port) == ("127.0.0.1", 2181)
    assert config.data_dir == config.data_log_dir == tmp_path / "zkd-data"
    assert config.session_key == tmp_path / "zkd-data" / "session.key"
    assert config.name == "standalone"
    assert config.standalone
    assert config.source is None
    assert config.warnings == ()
    assert config.raw["dataDir"] == str(tmp_path / "zkd-data")


def test_overrides_win_over_the_file_and_are_not_called_duplicates(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "tickTime=2000\n")
    config = load(path, {"tickTime": "500", "zookeeper.maxCnxns": "7", "frontends": "3"})
    assert (config.tick_time, config.max_cnxns, config.frontends) == (500, 7, 3)
    assert config.warnings == ()


def test_overrides_alone_configure_a_throwaway_server(tmp_path: Path) -> None:
    config = load(None, {"dataDir": str(tmp_path), "clientPort": "0"})
    assert (config.listen_address, config.listen_port) == ("127.0.0.1", 0)
    assert config.data_dir == tmp_path
    assert config.warnings == ()


def test_derived_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, "tickTime=1000\nflushDelay=30\njute.maxbuffer=2MB\ninitLimit=7\n")
    assert (config.min_session_timeout, config.max_session_timeout) == (2000, 20_000)
    assert config.max_write_queue_poll_time == 10
    assert config.jute_maxbuffer == config.jute_maxbuffer_extrasize == 2 * 1024 * 1024
    assert config.connect_to_learner_master_limit == 7
    assert config.name == "zoo"
    assert config.frontends >= 1
    assert (config.listen_address, config.listen_port) == ("", 2181)
    assert config.secure_listen_port == -1


def test_the_defaults_of_the_reference(tmp_path: Path) -> None:
    """configuration.md, sections 2 to 4."""
    config = loaded(tmp_path, "")
    assert config.tick_time == 3000
    assert config.max_client_cnxns == 60
    assert config.max_cnxns == 0
    assert config.global_outstanding_limit == 1000
    assert config.snap_count == 100_000
    assert config.jute_maxbuffer == 0xFFFFF
    assert config.max_batch_size == 1000
    assert config.force_sync
    assert not config.skip_acl
    assert not config.enforce_quota
    assert config.large_request_max_bytes == 100 * 1024 * 1024
    assert config.cnx_timeout == 5000
    assert config.sync_enabled
    assert config.container_max_never_used_interval == 0


def test_units_in_attributes(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "snapSizeLimitInKb=1024\nautopurge.purgeInterval=2\npathStats.slotDuration=15\n"
        "cache.bytes=64MB\nflush.interval=5s\n",
    )
    assert config.snap_size_limit_bytes == 1024 * 1024
    assert config.autopurge_purge_interval == 2 * 3600 * 1000
    assert config.path_stats_slot_duration == 15_000
    assert config.cache_bytes == 64 * 1024 * 1024
    assert config.flush_interval == 5000


def test_all_faults_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "tickTime=abc\nclientPort=70000\nlocalSessionsEnabled=yes\na=\\u12\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    places = {finding.where for finding in caught.value.findings}
    assert {f"{path}:{line}" for line in (1, 2, 3, 4)} <= places
    text = str(caught.value)
    assert isinstance(caught.value, OperatorError)
    for part in ("tickTime", "clientPort", "localSessionsEnabled", "dataDir is not set"):
        assert part in text


def test_a_single_fault_reads_as_what_where_mend(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "tickTime=0\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.what.startswith("tickTime: '0' is not at least 1")
    assert caught.value.where == f"{path}:3"
    assert caught.value.mend


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be read: No such file"):
        load(tmp_path / "none.cfg")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("clientPort=2181\n", "dataDir is not set"),
        ("dataDir=/d\n", "there is no port for clients"),
        ("dataDir=/d\nclientPortAddress=::1\n", "clientPortAddress is set but clientPort is not"),
        (
            "dataDir=/d\nclientPort=1\nsecureClientPortAddress=::1\n",
            "secureClientPortAddress is set but secureClientPort is not",
        ),
        (BASE + "secureClientPort=2181\n", "are both 2181"),
        (BASE + "minSessionTimeout=100000\n", "minSessionTimeout is larger"),
        (BASE + "electionAlg=2\n", "electionAlg: '2'"),
        (BASE + "quorum.auth.serverRequireSasl=true\n", "needs quorum.auth.enableSasl"),
        (
            BASE + "quorum.auth.enableSasl=true\nquorum.auth.serverRequireSasl=true\n",
            "needs quorum.auth.learnerRequireSasl",
        ),
        (BASE + "peerType=leader\n", "'leader' is not one of"),
        (BASE + "authProvider.1=com.example.Auth\n", "com.example.Auth cannot be loaded"),
        (BASE + "audit.impl.class=com.example.Audit\n", "com.example.Audit cannot be loaded"),
        (BASE + "metricsProvider.className=com.example.M\n", "'com.example.M' is not one of"),
        (BASE + "ssl.keyStore.location=/k.bcfks\n", "BCFKS stores cannot be read"),
        (BASE + "ssl.context.supplier.class=x\n", "ssl.context.supplier.class cannot be used"),
        (BASE + "runtime.dir=/" + "x" * 90 + "\n", "runtime.dir is longer"),
        (BASE + "server.1=a\n", "server.1: 'a' does not have the form"),
        (BASE + "weight.1=x\n", "'x' is not a weight"),
        (BASE + "version=xyz\n", "'xyz' is not a hexadecimal version"),
        (BASE + "standaloneEnabled=false\n", "needs at least one server line"),
        (BASE + "admin.serverPort=-5\n", "admin.serverPort: '-5'"),
        (BASE + "frontends=0\n", "frontends: '0' is not at least 1"),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, text: str, fault: str) -> None:
    found = faults(tmp_path, text)
    assert any(fault in what for what in found), found


def test_an_unknown_key_warns_with_the_nearest_name_and_strict_refuses(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "maxClientCnxs=5\nclientport=2\nqqq.zzz=1\n")
    config = load(path)
    assert [(w.level, w.key, w.mend) for w in config.warnings] == [
        (Level.WARNING, "maxClientCnxs", "did you mean maxClientCnxns?"),
        (Level.WARNING, "clientport", "did you mean clientPort?"),
        (Level.WARNING, "qqq.zzz", "remove it"),
    ]
    with pytest.raises(ConfigError) as caught:
        load(path, strict=True)
    assert len(caught.value.findings) == 3


def test_the_last_duplicate_wins_whatever_its_spelling(tmp_path: Path) -> None:
    config = loaded(tmp_path, "maxCnxns=1\nzookeeper.maxCnxns=2\n")
    assert config.max_cnxns == 2
    [warning] = config.warnings
    assert "set twice" in warning.what
    assert warning.where.endswith("zoo.cfg:4")
    assert "zoo.cfg:3" in warning.what


def test_other_spellings_of_a_key(tmp_path: Path) -> None:
    config = loaded(tmp_path, "requestThrottleLimit=9\nobserver.syncEnabled=false\n")
    assert config.request_throttle_max_requests == 9
    assert not config.sync_enabled


@pytest.mark.parametrize(
    "line",
    [
        "nio.numWorkerThreads=8",
        "zookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        "java.net.preferIPv4Stack=true",
        "sun.net.inetaddr.ttl=60",
        "zookeeper.jmx.log4j.disable=true",
        "sasl.client.username=x",
        "metricsProvider.exportJvmInfo=true",
        "hostProvider.dnsSrvRefreshIntervalSeconds=60",
    ],
)
def test_a_key_of_the_java_server_is_told_once_and_ignored(tmp_path: Path, line: str) -> None:
    [finding] = findings(tmp_path, line + "\n")
    assert finding.level is Level.NOTE
    assert "has no effect" in finding.what


@pytest.mark.parametrize(
    ("line", "level", "words"),
    [
        ("forceSync=no", Level.DANGER, "are lost when the machine loses power"),
        ("skipACL=yes", Level.DANGER, "no ACL is checked"),
        ("snapshot.trust.empty=true", Level.DANGER, "hides the loss"),
        ("forceSync=false", Level.WARNING, "it is read as yes"),
        ("skipACL=true", Level.WARNING, "it is read as no"),
        ("enforceQuota=yes", Level.WARNING, "it is read as false"),
        ("dataLogDir=logs", Level.WARNING, "dataLogDir is relative"),
        ("autopurge.snapRetainCount=1", Level.WARNING, "taken as 3"),
        ("snapCount=1", Level.WARNING, "taken as 2"),
        ("maxCnxns=-3", Level.WARNING, "taken as 0"),
        ("largeRequestThreshold=0", Level.WARNING, "taken as -1"),
    ],
)
def test_doubtful_values_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, level: Level, words: str
) -> None:
    monkeypatch.setattr("zkd.config.pending.PENDING", ())
    [finding] = findings(tmp_path, line + "\n")
    assert finding.level is level
    assert words in finding.what


def test_four_letter_words_by_default(tmp_path: Path) -> None:
    """Everybody srvr, as the reference; the harmless reading ones from loopback."""
    config = loaded(tmp_path, "")
    assert config.four_letter_whitelist == {"srvr"}
    assert config.four_letter_allowed("srvr", "192.0.2.1")
    assert not config.four_letter_allowed("mntr", "192.0.2.1")
    for address in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"):
        assert config.four_letter_allowed("mntr", address)
        assert not config.four_letter_allowed("crst", address)
        assert not config.four_letter_allowed("wchc", address)
    assert not config.four_letter_allowed("mntr", "not an address")


def test_four_letter_words_as_told(tmp_path: Path) -> None:
    config = loaded(tmp_path, "4lw.commands.whitelist=ruok, mntr\n")
    assert config.four_letter_whitelist == {"ruok", "mntr", "srvr"}
    assert config.four_letter_loopback_whitelist == frozenset()
    everything = loaded(tmp_path, "4lw.commands.whitelist=*\n")
    assert everything.four_letter_allowed("stmk", "192.0.2.1")
    read_only = loaded(tmp_path, "readonlymode.enabled=true\n")
    assert read_only.four_letter_allowed("isro", "192.0.2.1")
    nearby = loaded(
        tmp_path, "4lw.loopback.whitelist=*\n4lw.loopback.networks=10.0.0.0/8,fd00::/8\n"
    )
    assert nearby.four_letter_allowed("crst", "10.1.2.3")
    assert nearby.four_letter_allowed("crst", "fd00::1%eth0")
    assert not nearby.four_letter_allowed("crst", "127.0.0.1")


def test_tls_sets_are_apart(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "secureClientPort=2281\nssl.keyStore.location=/c.pem\nssl.keyStore.password=s3cret\n"
        "ssl.clientAuth=none\nssl.quorum.keyStore.location=/q.p12\nssl.quorum.protocol=TLSv1.2\n",
    )
    assert config.client_tls.key_store_location == Path("/c.pem")
    assert config.client_tls.client_auth == "none"
    assert config.client_tls.client_hostname_verification is False
    assert config.client_tls.enabled_protocols == ("TLSv1.3", "TLSv1.2")
    assert config.quorum_tls.key_store_location == Path("/q.p12")
    assert config.quorum_tls.client_hostname_verification is True
    assert config.quorum_tls.enabled_protocols == ("TLSv1.2",)
    assert (config.secure_listen_address, config.secure_listen_port) == ("", 2281)
    assert "s3cret" not in repr(config)


def test_patterns_become_mappings(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n"
        "zookeeper.authProvider.ldap=plugin:ldap\nsuperUser.a=x\nplugin.audit.log.file=y\n",
    )
    assert dict(config.auth_providers) == {
        "1": "org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
        "ldap": "plugin:ldap",
    }
    assert dict(config.super_users) == {"a": "x"}
    assert dict(config.plugin_settings) == {"audit.log.file": "y"}
    assert config.raw["authProvider.ldap"] == "plugin:ldap"


def test_storage_finds_what_it_asks_for(tmp_path: Path) -> None:
    config = loaded(tmp_path, "snapCount=500\nautopurge.purgeInterval=0\n")
    assert config.flush_count == 500
    assert loaded(tmp_path, "").flush_count is None
    assert not config.purge
    small = loaded(tmp_path, "snapSizeLimitInKb=1024\npreAllocSize=1024\ntxnLogSizeLimitInKb=10\n")
    assert (small.flush_bytes, small.log_wal_bytes) == (1 << 20, 1 << 20)
    assert small.log_retain_bytes == 10 * 1024


def test_a_configuration_never_changes(tmp_path: Path) -> None:
    config = loaded(tmp_path, "")
    with pytest.raises(AttributeError):
        config.tick_time = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.raw["a"] = "b"  # type: ignore[index]


# -- ensembles -----------------------------------------------------------------------------------


def ensemble(folder: Path, extra: str = "", *, my_id: str | None = "1", lines: int = 3) -> Path:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    if my_id is not None:
        (data / "myid").write_text(my_id)
    servers = "".join(f"server.{n}=zoo{n}:2888:3888\n" for n in range(1, lines + 1))
    text = f"dataDir={data}\ninitLimit=10\nsyncLimit=5\n{servers}{extra}"
    return write(folder, text if ";" in extra else text + "clientPort=2181\n")


def told(path: Path) -> str:
    return "\n".join(str(finding) for finding in examine(path).findings)


def test_a_member_of_an_ensemble(tmp_path: Path) -> None:
    config = load(ensemble(tmp_path))
    assert config.distributed
    assert not config.standalone
    assert config.my_id == 1
    assert list(config.servers) == [1, 2, 3]
    assert config.listen_port == 2181
    assert not any("server" in warning.what for warning in config.warnings)


@pytest.mark.parametrize(
    ("my_id", "fault"),
    [
        (None, "there is no file"),
        ("x\n", "'x' is not the number of a server"),
        ("", "'' is not the number of a server"),
        ("9", "there is no line server.9"),
    ],
)
def test_myid_must_fit(tmp_path: Path, my_id: str | None, fault: str) -> None:
    assert fault in told(ensemble(tmp_path, my_id=my_id))


def test_limits_are_required_in_an_ensemble(tmp_path: Path) -> None:
    path = ensemble(tmp_path)
    path.write_text(path.read_text().replace("initLimit=10\nsyncLimit=5\n", ""))
    assert "initLimit is not set" in told(path)
    assert "syncLimit is not set" in told(path)


@pytest.mark.parametrize(
    ("lines", "words"),
    [(1, "runs standalone"), (2, "no failure is tolerated"), (4, "no more failures than 3")],
)
def test_numbers_of_voters_that_warn(tmp_path: Path, lines: int, words: str) -> None:
    config = load(ensemble(tmp_path, lines=lines))
    assert any(words in warning.what for warning in config.warnings)
    assert config.distributed == (lines > 1)


def test_a_single_line_is_an_ensemble_if_standalone_is_switched_off(tmp_path: Path) -> None:
    assert load(ensemble(tmp_path, "standaloneEnabled=false\n", lines=1)).distributed


def test_the_client_port_of_the_servers_own_line(tmp_path: Path) -> None:
    config = load(ensemble(tmp_path, "server.4=zoo4:1:2:observer;10.0.0.4:2184\n", my_id="4"))
    assert (config.listen_address, config.listen_port) == ("10.0.0.4", 2184)
    assert config.peer_type == "observer"


def test_two_different_client_ports_are_refused(tmp_path: Path) -> None:
    extra = "clientPort=2181\nserver.4=zoo4:1:2;2184\n"
    words = told(ensemble(tmp_path, extra, my_id="4"))
    assert "clientPort says *:2181, line server.4 says" in words


def test_several_addresses(tmp_path: Path) -> None:
    extra = "multiAddress.enabled=true\nserver.4=a:1:2|b:1:2\n"
    config = load(ensemble(tmp_path, extra))
    assert [address.host for address in config.servers[4].addresses] == ["a", "b"]


def test_groups_and_weights(tmp_path: Path) -> None:
    config = load(ensemble(tmp_path, "group.1=1:2\ngroup.2=3\nweight.1=2\nweight.3=0\n"))
    assert dict(config.membership.groups) == {1: (1, 2), 2: (3,)}
    assert dict(config.membership.weights) == {1: 2, 3: 0}


def test_a_dynamic_file_and_its_version(tmp_path: Path) -> None:
    dynamic = write(
        tmp_path,
        "server.1=a:1:2:participant;2181\nserver.2=b:1:2:participant;2181\n"
        "server.3=c:1:2:participant;2181\n",
        "zoo.cfg.dynamic.10000001a",
    )
    path = ensemble(tmp_path, f"dynamicConfigFile={dynamic}\n", lines=0)
    config = load(path)
    assert list(config.servers) == [1, 2, 3]
    assert config.membership.version == 0x10000001A
    assert config.listen_port == 2181


def test_a_dynamic_file_excludes_server_lines_beside_it(tmp_path: Path) -> None:
    dynamic = write(tmp_path, "server.1=a:1:2;2181\ntickTime=5\n", "zoo.cfg.dynamic")
    words = told(ensemble(tmp_path, f"dynamicConfigFile={dynamic}\n"))
    assert "server.1 must stand in the file that dynamicConfigFile names" in words
    assert "tickTime may not stand in a dynamic file" in words


def test_a_dynamic_file_that_is_missing(tmp_path: Path) -> None:
    assert "cannot be read" in told(ensemble(tmp_path, "dynamicConfigFile=/nowhere\n", lines=0))


def test_ids_end_at_254_with_ttl_nodes(tmp_path: Path) -> None:
    extra = "server.255=d:1:2\n"
    assert load(ensemble(tmp_path, extra, my_id="255")).my_id == 255
    extra += "extendedTypesEnabled=true\n"
    assert "not within 1 and 254" in told(ensemble(tmp_path, extra, my_id="255"))
