"""Files as they are found in the wild are read unchanged (M361).

Each text is written here in the manner of its origin: the file that comes with Apache ZooKeeper and
with Debian, what the container images and charts generate, what other products' manuals advise.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from zkd.config import Config, Level, examine

SHIPPED = """\
# The number of milliseconds of each tick
tickTime=2000
# ticks of the first synchronisation
initLimit=10
# ticks between a request and its acknowledgement
syncLimit=5
# where snapshots are kept; not for real use
dataDir={data}
# clients connect here
clientPort=2181
# more clients need more
#maxClientCnxns=60
#autopurge.snapRetainCount=3
#autopurge.purgeInterval=1

## Metrics Providers
#metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider
#metricsProvider.httpHost=0.0.0.0
#metricsProvider.httpPort=7000
#metricsProvider.exportJvmInfo=true

"""

OLD_DEBIAN = """\
# http://hadoop.apache.org/zookeeper/docs/current/zookeeperAdmin.html

# The number of milliseconds of each tick
tickTime=2000
initLimit=10
syncLimit=5
dataDir={data}
# Place the dataLogDir to a separate physical disc for better performance
# dataLogDir=/disk2/zookeeper

# the port at which the clients will connect
clientPort=2181

# specify all zookeeper servers
# The fist port is used by followers to connect to the leader
# The second one is used for leader election
#server.1=zookeeper1:2888:3888
#server.2=zookeeper2:2888:3888

# To avoid seeks ZooKeeper allocates space in the transaction log file in
# blocks of preAllocSize kilobytes.
#preAllocSize=65536
#snapCount=1000
#traceFile=trace.txt
#leaderServes=yes
"""

IMAGE = """\
dataDir={data}
dataLogDir={data}/log
tickTime=2000
initLimit=5
syncLimit=2
autopurge.snapRetainCount=3
autopurge.purgeInterval=0
maxClientCnxns=60
standaloneEnabled=true
admin.enableServer=true
server.1=zoo1:2888:3888;2181
server.2=zoo2:2888:3888;2181
server.3=zoo3:2888:3888;2181
4lw.commands.whitelist=srvr, mntr, ruok
"""

CHART = """\
# The number of milliseconds of each tick
tickTime=2000
initLimit=10
syncLimit=5

dataDir={data}
clientPort=2181
maxClientCnxns=60
autopurge.snapRetainCount=10
autopurge.purgeInterval=1
## Metrics Providers
metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider
metricsProvider.httpPort=9141
metricsProvider.exportJvmInfo=true
maxCnxns=0
reconfigEnabled=false
quorumListenOnAllIPs=false
maxSessionTimeout=40000
admin.serverPort=8080
admin.enableServer=true
server.1=z-0.z-headless.default.svc.cluster.local:2888:3888;2181
server.2=z-1.z-headless.default.svc.cluster.local:2888:3888;2181
server.3=z-2.z-headless.default.svc.cluster.local:2888:3888;2181
4lw.commands.whitelist=srvr, mntr, ruok
preAllocSize=65536
snapCount=100000
maxClientCnxns=60
"""

ANALYTICS = """\
# http://zookeeper.apache.org/doc/current/zookeeperAdmin.html

tickTime=2000
# 60 seconds
initLimit=300
syncLimit=10
maxClientCnxns=2000

# It is the maximum value that client may request and the server will accept.
# It is Ok to have high maxSessionTimeout on server to allow clients to work with high session
# timeout if they want. But we request session timeout of 30 seconds by default
maxSessionTimeout=60000000
dataDir={data}
# Place the dataLogDir to a separate physical disc for better performance
dataLogDir={data}/logs

autopurge.snapRetainCount=10
autopurge.purgeInterval=1

# To avoid seeks
preAllocSize=131072
# the number of requests logged between snapshots
snapCount=3000000

leaderServes=yes
standaloneEnabled=false
dynamicConfigFile={data}/zoo.cfg.dynamic
"""

TLS = """\
dataDir {data}
clientPort 2181
secureClientPort = 2281
serverCnxnFactory = org.apache.zookeeper.server.NettyServerCnxnFactory
authProvider.x509 : org.apache.zookeeper.server.auth.X509AuthenticationProvider
ssl.keyStore.location=/etc/zk/server.jks
ssl.keyStore.password=changeit
ssl.trustStore.location=/etc/zk/trust.jks
ssl.trustStore.password=changeit
authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider
requireClientAuthScheme=sasl
jaasLoginRenew=3600000
"""


def read(folder: Path, text: str) -> Config:
    data = folder / "data"
    data.mkdir()
    (data / "myid").write_text("1\n")
    (data / "zoo.cfg.dynamic").write_text(
        "server.1=c1:2888:3888:participant;2181\nserver.2=c2:2888:3888:participant;2181\n"
        "server.3=c3:2888:3888:participant;2181\n"
    )
    path = folder / "zoo.cfg"
    path.write_text(text.replace("{data}", str(data)))
    examined = examine(path)
    assert examined.config is not None, examined.errors
    return examined.config


@pytest.mark.parametrize("text", [SHIPPED, OLD_DEBIAN, IMAGE, CHART, ANALYTICS, TLS])
def test_a_sample_of_the_wild_is_read_unchanged(tmp_path: Path, text: str) -> None:
    config = read(tmp_path, text)
    assert config.listen_port == 2181
    assert not any(warning.level is Level.DANGER for warning in config.warnings)


def test_the_file_of_the_image(tmp_path: Path) -> None:
    config = read(tmp_path, IMAGE)
    assert config.distributed
    assert (config.init_limit, config.sync_limit) == (5, 2)
    assert not config.purge
    assert config.four_letter_whitelist == {"srvr", "mntr", "ruok"}
    assert str(config.servers[1].client) == "0.0.0.0:2181"


def test_the_file_of_the_chart(tmp_path: Path) -> None:
    config = read(tmp_path, CHART)
    assert config.metrics_provider == "prometheus"
    assert config.metrics_http_port == 9141
    assert config.max_session_timeout == 40_000
    assert any("set twice" in warning.what for warning in config.warnings)


def test_the_file_of_an_analytics_database(tmp_path: Path) -> None:
    config = read(tmp_path, ANALYTICS)
    assert config.distributed
    assert config.max_client_cnxns == 2000
    assert config.max_session_timeout == 60_000_000
    assert config.data_log_dir.name == "logs"
    assert list(config.servers) == [1, 2, 3]


def test_the_file_with_tls_and_sasl(tmp_path: Path) -> None:
    config = read(tmp_path, TLS)
    assert config.secure_listen_port == 2281
    assert set(config.auth_providers) == {"x509", "1"}
    unknown = {warning.key for warning in config.warnings if "unknown key" in warning.what}
    assert unknown == {"requireClientAuthScheme", "jaasLoginRenew"}


def test_the_metrics_port_of_the_prometheus_provider(tmp_path: Path) -> None:
    text = SHIPPED.replace("#metricsProvider.className", "metricsProvider.className")
    assert read(tmp_path, text).metrics_http_port == 7000


@pytest.mark.apache
def test_the_file_that_debians_package_installs() -> None:
    installed = Path("/etc/zookeeper/conf/zoo.cfg")
    if not installed.exists():
        pytest.skip("Debian's package is not installed")
    examined = examine(installed)
    assert examined.config is not None, examined.errors
    assert examined.config.listen_port == 2181
