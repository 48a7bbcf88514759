"""The table: complete, unambiguous, and the documents that are made from it."""

from __future__ import annotations

import dataclasses
import json
import re
from operator import attrgetter
from pathlib import Path

import pytest
from click.testing import CliRunner

from zkd.cli.config import config as command
from zkd.config import Config, keys, load
from zkd.config.document import differences, markdown, sample
from zkd.config.key import Action
from zkd.config.resolve import BUILT_IN_PROVIDERS

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "configuration.md"
SAMPLE = ROOT / "conf" / "standalone.cfg"

REFERENCE = """
4lw.commands.whitelist DigestAuthenticationProvider.digestAlg DigestAuthenticationProvider.enabled
DigestAuthenticationProvider.superDigest IPAuthenticationProvider.usexforwardedfor
SASLAuthenticationProvider.superPassword X509AuthenticationProvider.superUser admin.commandURL
admin.enableServer admin.forceHttps admin.httpVersion admin.idleTimeout admin.needClientAuth
admin.portUnification admin.rateLimiterIntervalInMS admin.restore.enabled admin.serverAddress
admin.serverPort admin.snapshot.enabled allowSaslFailedClients audit.enable audit.impl.class
authProvider.1 autopurge.purgeInterval autopurge.snapRetainCount bitHashCacheSize client.certReload
client.portUnification client.secure clientCnxnSocket clientPort clientPortAddress
clientPortListenBacklog clientTcpKeepAlive closeSessionTxn.enabled cnxTimeout commitLogCount
commitProcessor.maxCommitBatchSize commitProcessor.maxReadBatchSize
commitProcessor.numWorkerThreads commitProcessor.shutdownTimeout connectToLearnerMasterLimit
connection_throttle_decrease_ratio connection_throttle_drop_decrease
connection_throttle_drop_increase connection_throttle_fill_count connection_throttle_fill_time
connection_throttle_freeze_time connection_throttle_global_session_weight
connection_throttle_local_session_weight connection_throttle_renew_session_weight
connection_throttle_tokens connection_throttle_weight_enabled dataDir dataLogDir datadir.autocreate
db.autocreate digest.enabled disableAutoWatchReset dynamicConfigFile electionAlg
electionPortBindRetry emulate353TTLNodes enableEagerACLCheck enforce.auth.enabled
enforce.auth.schemes enforceQuota ensembleAuthName extendedTypesEnabled
fastleader.maxNotificationInterval fastleader.minNotificationInterval fips-mode flushDelay
follower.nodelay follower.skipLearnerRequestToNextProcessor forceSnapshotSync forceSync
forward_learner_requests_to_commit_processor_disabled fsync.warningthresholdms
globalOutstandingLimit hostProvider.dnsSrvRefreshIntervalSeconds initLimit
intBufferStartingSizeBytes java.security.auth.login.config jmx.log4j.disable jmx.log4j.mbean
jute.maxbuffer jute.maxbuffer.extrasize jvm.pause.info-threshold.ms jvm.pause.monitor
jvm.pause.sleep.time.ms jvm.pause.warn-threshold.ms kerberos.canonicalizeHostNames
kerberos.minReLoginTimeMs kerberos.removeHostFromPrincipal kerberos.removeRealmFromPrincipal kinit
largeRequestMaxBytes largeRequestThreshold leader.ackLoggingFrequency leader.closeSocketAsync
leader.maxConcurrentDiffSyncs leader.maxConcurrentSnapSyncs leader.maxTimeToWaitForEpoch
leader.nodelay leaderConnectDelayDuringRetryMs leaderServes learner.asyncSending
learner.closeSocketAsync letAnySaslUserDoX localSessionsEnabled localSessionsUpgradingEnabled
maxBatchSize maxClientCnxns maxCnxns maxGetChildrenResponseCacheSize maxInProcessingDeadWatchers
maxResponseCacheSize maxSessionTimeout maxWriteQueuePollTime messageTracker.BufferSize
messageTracker.Enabled metricsProvider.className metricsProvider.exportJvmInfo
metricsProvider.httpHost metricsProvider.httpPort metricsProvider.httpVersion
metricsProvider.httpsPort metricsProvider.maxQueueSize metricsProvider.numWorkerThreads
metricsProvider.prometheusMetricsSummaryRotateIntervalSeconds metricsProvider.ssl.ciphersuites
metricsProvider.ssl.enabledProtocols metricsProvider.ssl.keyStore.location
metricsProvider.ssl.need.client.auth metricsProvider.ssl.want.client.auth
metricsProvider.workerShutdownTimeoutMs minSessionTimeout multiAddress.enabled
multiAddress.reachabilityCheckEnabled multiAddress.reachabilityCheckTimeoutMs
netty.advancedFlowControl.enabled netty.server.earlyDropSecureConnectionHandshakes
netty.server.outstandingHandshake.limit nio.directBufferBytes nio.numSelectorThreads
nio.numWorkerThreads nio.sessionlessCnxnTimeout nio.shutdownTimeout observer.election.DelayMs
observer.reconnectDelayMs observer.syncEnabled observerMaster.sizeLimit observerMasterPort
oraclePath pathStats.delay pathStats.enabled pathStats.initialDelay pathStats.maxDepth
pathStats.sampleRate pathStats.slotCapacity pathStats.slotDuration pathStats.topPathMax peerType
portUnification preAllocSize quorum.auth.enableSasl quorum.auth.kerberos.servicePrincipal
quorum.auth.learner.saslLoginContext quorum.auth.learnerRequireSasl
quorum.auth.server.saslLoginContext quorum.auth.serverRequireSasl quorum.cnxn.threads.size
quorumCnxnTimeoutMs quorumListenOnAllIPs readonlymode.enabled reconfigEnabled request.timeout
request_stale_connection_check request_stale_latency_check request_throttle_drop_stale
request_throttle_max_requests request_throttle_stall_time request_throttler.shutdownTimeout
requireKerberosConfig sasl.client sasl.client.username sasl.clientconfig sasl.serverconfig
secureClientPort secureClientPortAddress security.auth_to_local
serializeLastProcessedZxid.enabled server.principal server.realm serverCnxnFactory
sessionRequireClientSASLAuth shuffleDnsResponse skipACL snapCount snapSizeLimitInKb
snapshot.compression.method snapshot.trust.empty snapshotSizeFactor ssl.allowReverseDnsLookup
ssl.authProvider ssl.ciphersuites ssl.clientAuth ssl.clientHostnameVerification
ssl.context.supplier.class ssl.crl ssl.enabledProtocols ssl.handshakeDetectionTimeoutMillis
ssl.hostnameVerification ssl.keyStore.location ssl.keyStore.password ssl.keyStore.passwordPath
ssl.keyStore.type ssl.ocsp ssl.protocol ssl.quorum.clientAuth ssl.quorum.keyStore.location
ssl.quorum.trustStore.passwordPath ssl.sslProvider ssl.trustStore.location ssl.trustStore.type
sslQuorum sslQuorumReloadCertFiles standaloneEnabled superUser superUser.2 syncEnabled syncLimit
tcpKeepAlive throttled_op_wait_time tickTime txnLogSizeLimitInKb watchManagerName
watcherCleanIntervalInSeconds watcherCleanThreadsNum watcherCleanThreshold
znode.container.checkIntervalMs znode.container.maxNeverUsedIntervalMs
znode.container.maxPerMinute
""".split()


@pytest.mark.parametrize("name", REFERENCE)
def test_every_key_of_the_reference_is_known_with_and_without_prefix(name: str) -> None:
    """The keys of QuorumPeerConfig.java and the properties that the server's classes ask for."""
    found = keys.find(name)
    assert found is not None
    assert keys.find(f"zookeeper.{name}") is found


@pytest.mark.parametrize("name", ["server.1", "group.1", "weight.1", "version"])
def test_lines_of_the_membership_are_no_keys(name: str) -> None:
    assert keys.find(name) is None


def test_a_row_says_all_that_it_must() -> None:
    for key in keys.TABLE:
        assert key.section
        assert key.help.endswith("."), key.name
        if key.action is Action.APPLY or key.own:
            assert key.attribute, key.name
        else:
            assert key.note, key.name
        if key.own:
            assert re.fullmatch(r"[a-z0-9.]+\*?", key.name), key.name
        assert key.default is not None or key.default_text or key.action is Action.IGNORE, key.name


def test_every_attribute_of_the_table_is_one_of_the_configuration(tmp_path: Path) -> None:
    config = load(None, {"dataDir": str(tmp_path)})
    for key in keys.TABLE:
        if key.attribute:
            attrgetter(key.attribute)(config)


def test_secrets_never_show(tmp_path: Path) -> None:
    secret = [key for key in keys.TABLE if key.secret]
    assert secret
    config = load(None, {"dataDir": str(tmp_path), **{key.name: "s3cret" for key in secret}})
    assert "s3cret" not in repr(config)
    path = tmp_path / "zoo.cfg"
    lines = [f"{key.name}=s3cret" for key in secret] + ["plugin.x.password=s3cret"]
    path.write_text("\n".join([f"dataDir={tmp_path}", "clientPort=1", *lines]))
    for options in ([], ["--json"], ["--all"]):
        result = CliRunner().invoke(command, ["check", str(path), *options])
        assert result.exit_code == 0
        assert "s3cret" not in result.output


def test_unknown_names_find_their_nearest() -> None:
    assert keys.nearest("clientport") == "clientPort"
    assert keys.nearest("zookeeper.tickTme") == "tickTime"
    assert keys.nearest("qqqqqq") is None


def test_differences_from_the_reference_stand_in_one_place() -> None:
    assert {key.name for key in differences()} == {
        "autopurge.purgeInterval",
        "admin.serverAddress",
    }


def test_the_document_holds_the_table() -> None:
    """Mend it by: zkd config keys, between the two marks of docs/configuration.md."""
    text = DOCUMENT.read_text()
    begin, end = "<!-- keys: begin -->\n", "<!-- keys: end -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == markdown()


def test_the_sample_is_made_from_the_table() -> None:
    """Mend it by: zkd config sample > conf/standalone.cfg."""
    assert SAMPLE.read_text() == sample()


def test_the_sample_starts_a_standalone_server_and_shows_the_defaults(tmp_path: Path) -> None:
    config = load(SAMPLE, strict=True)
    assert config.warnings == ()
    assert config.standalone
    text = re.sub(r"(?m)^#(?=[\w.*-]+=\S)", "", SAMPLE.read_text())
    path = tmp_path / "standalone.cfg"
    path.write_text(text)
    everything = load(path, strict=True)
    left_out = {"raw", "source", "warnings"}
    for field in dataclasses.fields(Config):
        if field.name not in left_out:
            expected, found = getattr(config, field.name), getattr(everything, field.name)
            assert found == expected, field.name


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == status, result.output
    return result.output


def test_check_explains_what_is_set(tmp_path: Path) -> None:
    path = tmp_path / "zoo.cfg"
    path.write_text("dataDir=/var/lib/zkd\nclientPort=2181\ntickTime=2000\nsnpCount=1\n")
    output = run("check", str(path))
    for part in ("tickTime", "2s", "line 3", "unknown key snpCount", "did you mean snapCount?"):
        assert part in output
    assert "maxClientCnxns" not in output
    assert "maxClientCnxns" in run("check", str(path), "--all")
    assert "1 to be corrected" in run("check", str(path), "--strict", status=1)
    assert "3s" in run("check", str(path), "--set", "tickTime=3s")


def test_check_as_json(tmp_path: Path) -> None:
    path = tmp_path / "zoo.cfg"
    path.write_text("dataDir=/var/lib/zkd\nclientPort=x\n")
    report = json.loads(run("check", "--json", str(path), status=1))
    assert report["ok"] is False
    assert [key["key"] for key in report["keys"]] == ["clientPort", "dataDir"]
    [finding] = report["findings"]
    assert finding["level"] == "error"
    assert finding["where"] == f"{path}:2"


def test_check_knows_the_plugins(tmp_path: Path) -> None:
    path = tmp_path / "zoo.cfg"
    path.write_text("dataDir=/var/lib/zkd\nclientPort=1\nauthProvider.1=plugin:missing\n")
    assert "auth.missing" in run("check", str(path), status=1)


def test_the_classes_that_are_known_are_those_of_the_plugins() -> None:
    loader = pytest.importorskip("zkd.plugins.loader")
    assert set(loader.JAVA_PROVIDERS) == set(BUILT_IN_PROVIDERS)
