"""Keys of the Java server's inside: accepted, told once, without effect (spec section 8)."""

from __future__ import annotations

from zkd.config.key import Key, ignored

_THREADS = "zkd has a process for each task: see frontends."
_ASYNC = "zkd's sockets never block."
_WATCHES = "there is one kind of watch manager, bounded by watch.limit.connection and .path."
_CLIENT = "a setting of client libraries; servers never read it."
_LOGS = "zkd's log is set up in the file that log.config names."
_JMX = "there is no JMX; metrics come from the admin server and the metrics port."
_JVM = "there is no Java machine; memory is set by cache.bytes."
_KERBEROS = "Kerberos needs a GSSAPI plugin, which has its own settings."

INTERNALS: tuple[Key, ...] = tuple(
    ignored(name, "Inside of the Java server", note)
    for name, note in (
        ("serverCnxnFactory", _THREADS),
        ("nio.numSelectorThreads", _THREADS),
        ("nio.numWorkerThreads", _THREADS),
        ("nio.directBufferBytes", _THREADS),
        ("nio.shutdownTimeout", _THREADS),
        ("commitProcessor.numWorkerThreads", _THREADS),
        ("commitProcessor.maxReadBatchSize", _THREADS),
        ("commitProcessor.maxCommitBatchSize", _THREADS),
        ("commitProcessor.shutdownTimeout", _THREADS),
        ("quorum.cnxn.threads.size", _THREADS),
        ("metricsProvider.numWorkerThreads", _THREADS),
        ("metricsProvider.maxQueueSize", _THREADS),
        ("metricsProvider.workerShutdownTimeoutMs", _THREADS),
        ("metricsProvider.exportJvmInfo", "there is no Java machine to export."),
        ("metricsProvider.httpVersion", "HTTP/1.1 is spoken."),
        ("admin.httpVersion", "HTTP/1.1 is spoken."),
        ("intBufferStartingSizeBytes", "buffers grow as they must."),
        ("leader.closeSocketAsync", _ASYNC),
        ("learner.closeSocketAsync", _ASYNC),
        ("learner.asyncSending", _ASYNC),
        ("leader.ackLoggingFrequency", "acknowledgements are counted as metrics."),
        ("forward_learner_requests_to_commit_processor_disabled", _THREADS),
        ("follower.skipLearnerRequestToNextProcessor", _THREADS),
        ("watchManagerName", _WATCHES),
        ("watcherCleanThreadsNum", _WATCHES),
        ("watcherCleanThreshold", _WATCHES),
        ("watcherCleanIntervalInSeconds", _WATCHES),
        ("maxInProcessingDeadWatchers", _WATCHES),
        ("bitHashCacheSize", _WATCHES),
        ("ssl.sslProvider", "TLS is OpenSSL's."),
        ("netty.advancedFlowControl.enabled", "zkd always stops reading from a slow client."),
        ("kinit", _KERBEROS),
        ("kerberos.minReLoginTimeMs", _KERBEROS),
        ("requireKerberosConfig", _KERBEROS),
        ("server.principal", _KERBEROS),
        ("server.realm", _KERBEROS),
        ("client.secure", _CLIENT),
        ("clientCnxnSocket", _CLIENT),
        ("request.timeout", _CLIENT),
        ("disableAutoWatchReset", _CLIENT),
        ("shuffleDnsResponse", _CLIENT),
        ("sasl.client", _CLIENT),
        ("sasl.client*", _CLIENT),
        ("hostProvider.*", _CLIENT),
        ("jmx.*", _JMX),
        ("JMX*", _JMX),
        ("log.dir", _LOGS),
        ("log.file", _LOGS),
        ("log.threshold", _LOGS),
        ("root.logger", _LOGS),
        ("console.threshold", _LOGS),
        ("log4j.*", _LOGS),
        ("logback.*", _LOGS),
        ("java.*", _JVM),
        ("javax.*", _JVM),
        ("sun.*", _JVM),
        ("com.sun.*", _JVM),
        ("JVMFLAGS", _JVM),
        ("SERVER_JVMFLAGS", _JVM),
        ("CLIENT_JVMFLAGS", _JVM),
        ("ZK_SERVER_HEAP", _JVM),
        ("ZK_CLIENT_HEAP", _JVM),
    )
)
