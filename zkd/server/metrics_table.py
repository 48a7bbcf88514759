"""Every metric of zkd: its name, what it is, which process feeds it, how processes add up.

One table; `mntr`, the AdminServer's `monitor`, exporters and the docs come from it. Apache
ZooKeeper's names come first, in the order in which its 3.9.5 prints them (that of its hash maps:
scripts have come to rely on it), then those of 3.10, then zkd's own, which begin with `zkd_`.

Sources: `ServerMetrics.java`, `ZooKeeperServer.registerMetrics`, `QuorumZooKeeperServer`,
`LeaderZooKeeperServer`, `DefaultMetricsProvider.dump`; client protocol section 17.

Feeders: f front-end, p peer, s storage, a admin, - none (a name that a server of one thread a
stage has no use for: always 0, as with Apache ZooKeeper where the stage is not in use).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal


class Kind(Enum):
    """How a metric is fed and shown."""

    GAUGE = "gauge"  # a callable, read when asked
    TALLY = "tally"  # fed as a counter, shown as a gauge, reset by srst
    COUNTER = "counter"
    BASIC = "basic"  # summary: avg min max cnt sum
    ADVANCED = "advanced"  # and p50 p95 p99 p999
    SIZES = "sizes"  # last, min, max; -1 before the first
    HISTOGRAM = "histogram"  # of seconds; zkd's own only
    DERIVED = "derived"  # a gauge computed from a field of another metric
    GAUGE_SET = "gauge set"
    COUNTER_SET = "counter set"
    BASIC_SET = "basic set"
    ADVANCED_SET = "advanced set"


SUMMARIES: Final = (Kind.BASIC, Kind.ADVANCED)
SUMMARY_SETS: Final = (Kind.BASIC_SET, Kind.ADVANCED_SET)
SETS: Final = (Kind.GAUGE_SET, Kind.COUNTER_SET, *SUMMARY_SETS)

Merge = Literal["sum", "max", "min"]


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric.

    `merge`: how the values of several processes become one (counters and summaries: always their
    sum). `default`: what a gauge shows if no process has it, None: it is left out. `source`: of
    DERIVED: (metric, field). `label`: of a set. `hidden`: feeds a DERIVED one, shown by itself
    nowhere.
    """

    name: str
    kind: Kind
    feeds: str
    help: str
    merge: Merge = "sum"
    default: int | float | None = None
    label: str = ""
    source: tuple[str, str] = ("", "")
    hidden: bool = False

    @property
    def own(self) -> bool:
        """zkd's, not Apache ZooKeeper's."""
        return self.name.startswith("zkd_")


SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the buckets of all histograms, in seconds."""

_GAUGES: Final = """
ephemerals_count p
num_alive_connections f
avg_latency <latency.avg
min_proposal_size <proposal_size.min
outstanding_requests f
znode_count p max
global_sessions p
non_mtls_remote_conn_count f tally
last_client_response_size <client_response_size.last
packets_sent f tally
packets_received f tally
max_proposal_size <proposal_size.max
max_client_response_size <client_response_size.max
synced_followers p
connection_drop_probability f max 0.0
watch_count f
synced_non_voting_followers p
synced_observers p
auth_failed_count f tally
min_latency <latency.min
max_file_descriptor_count fpsa max
approximate_data_size p max
open_file_descriptor_count fpsa
last_proposal_size <proposal_size.last
pending_syncs p
leader_uptime p max
local_sessions p sum 0
uptime p max
max_latency <latency.max
outstanding_tls_handshake f sum 0
learners p
min_client_response_size <client_response_size.min
non_mtls_local_conn_count f tally
quorum_size p
"""

_GAUGE_SETS: Final = """
quota_count_limit_per_namespace p
quota_bytes_limit_per_namespace p
quota_count_usage_per_namespace p
quota_bytes_usage_per_namespace p
"""

_COUNTERS: Final = """
watch_bytes f
stale_requests_dropped f
throttled_ops f
insecure_admin_count a
connection_rejected f
sessionless_connections_expired f
dead_watchers_queued -
stale_requests f
connection_drop_count f
response_packet_cache_hits f
bytes_received_count f
add_dead_watcher_stall_time -
request_throttle_wait_count f
requests_not_forwarded_to_commit_processor -
response_packet_cache_misses f
prep_processor_request_queued p
stale_replies f
response_bytes f
ensemble_auth_fail f
diff_count p
connection_revalidate_count p
quit_leading_due_to_disloyal_voter p
unrecoverable_error_count fpsa
unsuccessful_handshake f
commit_count p
outstanding_changes_queued p
request_commit_queued -
ensemble_auth_skip f
skip_learner_request_to_next_processor_count -
proposal_count p
large_requests_rejected f
outstanding_changes_removed p
restore_error_count a
cnxn_closed_without_zk_server_running f
looking_count p
snapshot_rate_limited_count a
learner_proposal_received_count p
digest_mismatches_count p
dead_watchers_cleared -
ensemble_auth_success f
learner_commit_received_count p
snapshot_error_count s
connection_request_count f
response_packet_get_children_cache_misses f
snap_count p
stale_sessions_expired p
restore_rate_limited_count a
response_packet_get_children_cache_hits f
sync_processor_request_queued s
tls_handshake_exceeded f
revalidate_count p
"""

_COUNTERS_3_10: Final = """
ttl_node_created_count p
ttl_node_deleted_count p
op_count_total f
op_count_add_watch f
op_count_check f
op_count_check_watches f
op_count_close_session f
op_count_create f
op_count_create_session f
op_count_delete f
op_count_exists f
op_count_get_acl f
op_count_get_all_children_number f
op_count_get_children f
op_count_get_data f
op_count_get_ephemerals f
op_count_multi f
op_count_multi_read f
op_count_ping f
op_count_reconfig f
op_count_remove_watches f
op_count_set_acl f
op_count_set_data f
op_count_set_watches f
op_count_sync f
op_count_who_am_i f
"""

_COUNTER_SETS: Final = """
quota_exceeded_error_per_namespace p
"""

_BASIC: Final = """
socket_closing_time f
proposal_process_time p
leader_unavailable_time p
node_created_watch_count f
session_queues_drained -
write_commit_proc_req_queued -
connection_token_deficit f
read_commit_proc_req_queued -
node_deleted_watch_count f
startup_txns_load_time s
sync_processor_queue_size s
follower_sync_time p
prep_processor_queue_size p
fsynctime s
inflight_snap_count p
reads_issued_from_session_queue -
restore_time a
learner_request_processor_queue_size -
snapshottime s
unavailable_time p
startup_txns_loaded s
reads_after_write_in_session_queue -
requests_in_session_queue -
write_commit_proc_issued -
prep_process_time p
pending_session_queue_size -
time_waiting_empty_pool_in_commit_processor_read_ms -
commit_process_time -
dbinittime p
inflight_diff_count p
netty_queued_buffer_capacity -
election_time p
commit_commit_proc_req_queued -
sync_processor_batch_size s
node_children_watch_count f
write_batch_time_in_commit_processor -
read_commit_proc_issued -
concurrent_request_processing_in_commit_processor -
observer_sync_time p
node_changed_watch_count f
sync_process_time s
startup_snap_load_time p
"""

_ADVANCED: Final = """
prep_processor_queue_time_ms p
jvm_pause_time_ms fpsa
close_session_prep_time p
read_commitproc_time_ms -
updatelatency f
local_write_committed_time_ms f
request_throttle_queue_time_ms f
readlatency f
quorum_ack_latency p
om_commit_process_time_ms p
read_final_proc_time_ms f
commit_propagation_latency p
dead_watchers_cleaner_latency -
write_final_proc_time_ms f
proposal_ack_creation_latency p
proposal_latency p
om_proposal_process_time_ms p
sync_processor_queue_and_flush_time_ms s
propagation_latency s
server_write_committed_time_ms f
sync_processor_queue_time_ms s
sync_processor_queue_flush_time_ms s
write_commitproc_time_ms -
"""

_BASIC_SETS: Final = """
learner_handler_qp_size p
read_per_namespace f
write_per_namespace s
"""

_ADVANCED_SETS: Final = """
learner_handler_qp_time_ms p
ack_latency p
"""

_HIDDEN: Final = (
    Spec("latency", Kind.BASIC, "f", "of all requests, in ms", hidden=True),
    Spec("client_response_size", Kind.SIZES, "f", "of replies, in bytes", default=-1, hidden=True),
    Spec("proposal_size", Kind.SIZES, "p", "of proposals, in bytes (a leader)", hidden=True),
)

_OWN: Final = (
    Spec("zkd_read_latency_seconds", Kind.HISTOGRAM, "f", "from a read's arrival to its reply"),
    Spec("zkd_write_latency_seconds", Kind.HISTOGRAM, "f", "from a write's arrival to its reply"),
    Spec("zkd_watch_delivery_seconds", Kind.HISTOGRAM, "f", "from commit to the event's sending"),
    Spec("zkd_loop_stall_seconds", Kind.HISTOGRAM, "fpsa", "turns of an event loop over 5 ms"),
    Spec("zkd_fsync_seconds", Kind.HISTOGRAM, "s", "commits of the log, with their fsync"),
    Spec("zkd_tree_flush_seconds", Kind.HISTOGRAM, "s", "flushes of the tree, in slices"),
    Spec("zkd_election_seconds", Kind.HISTOGRAM, "p", "from losing a leader to having one"),
    Spec("zkd_ephemerals_created_total", Kind.COUNTER, "p", "ephemeral znodes created"),
    Spec("zkd_ephemerals_deleted_total", Kind.COUNTER, "p", "ephemeral znodes deleted"),
    Spec("zkd_watch_events_total", Kind.COUNTER, "f", "watch events sent"),
    Spec("zkd_leaderless_seconds_total", Kind.COUNTER, "p", "time without a leader"),
    Spec("zkd_stall_returned_seconds_total", Kind.COUNTER, "p", "own stalls given to sessions"),
    Spec("zkd_cache_hits_total", Kind.COUNTER, "fp", "znodes found in a process's cache"),
    Spec("zkd_cache_misses_total", Kind.COUNTER, "fp", "znodes read from the tree's file"),
    Spec("zkd_watches_refused_total", Kind.COUNTER, "f", "watches beyond watch.limit.*"),
    Spec("zkd_connections_shed_total", Kind.COUNTER, "f", "connections closed by `zkd shed`"),
    Spec("zkd_tree_damage_total", Kind.COUNTER, "fp", "reads of what is damaged in the tree"),
    Spec("zkd_sessions_expired_total", Kind.COUNTER_SET, "p", "sessions ended", label="reason"),
    Spec("zkd_acl_denied_total", Kind.COUNTER_SET, "fp", "requests denied by ACL", label="op"),
    Spec("zkd_auth_failed_total", Kind.COUNTER_SET, "f", "failed auth packets", label="scheme"),
    Spec("zkd_requests_refused_total", Kind.COUNTER_SET, "f", "refused input", label="reason"),
    Spec("zkd_plugin_faults_total", Kind.COUNTER_SET, "fpsa", "faults", label="plugin"),
    Spec("zkd_audit_dropped_total", Kind.COUNTER_SET, "f", "audit events lost", label="sink"),
    Spec("zkd_process_cpu_seconds_total", Kind.COUNTER_SET, "fpsa", "CPU used", label="process"),
    Spec("zkd_process_starts_total", Kind.COUNTER_SET, "a", "starts, kept on disk",
         label="process"),
    Spec("zkd_process_resident_bytes", Kind.GAUGE_SET, "fpsa", "memory", label="process"),
    Spec("zkd_cache_bytes", Kind.GAUGE_SET, "fp", "size of a process's cache", label="process"),
    Spec("zkd_pinned_bytes", Kind.GAUGE_SET, "fp", "changes not yet in the tree's file",
         label="process"),
    Spec("zkd_disk_free_bytes", Kind.GAUGE_SET, "s", "free where the server writes", merge="min",
         label="directory"),
    Spec("zkd_disk_full_seconds", Kind.GAUGE_SET, "s", "until full, at the last hour's rate",
         merge="min", label="directory"),
    Spec("zkd_sequence_counter", Kind.GAUGE_SET, "s", "highest counter of sequential names",
         label="path"),
    Spec("zkd_log_bytes", Kind.GAUGE, "s", "size of log.db with its WAL"),
    Spec("zkd_tree_bytes", Kind.GAUGE, "s", "size of tree.db with its WAL"),
    Spec("zkd_log_backlog_txns", Kind.GAUGE, "s", "transactions not yet in the tree's file"),
    Spec("zkd_follower_lag_txns", Kind.GAUGE_SET, "p", "behind the leader", label="sid"),
    Spec("zkd_follower_lag_bytes", Kind.GAUGE_SET, "p", "behind the leader", label="sid"),
    Spec("zkd_observer_lag_txns", Kind.GAUGE_SET, "a", "committed, not yet observed",
         label="observer"),
)  # fmt: skip


def _apache(text: str, kind: Kind, label: str = "") -> Iterator[Spec]:
    for line in text.split("\n"):
        words = line.split()
        if not words:
            continue
        name = words[0]
        told = "as in Apache ZooKeeper"
        if words[1].startswith("<"):
            metric, _, part = words[1][1:].partition(".")
            yield Spec(name, Kind.DERIVED, "-", told, source=(metric, part))
        elif words[2:] == ["tally"]:
            yield Spec(name, Kind.TALLY, words[1], told)
        else:
            merge: Merge = "max" if "max" in words[2:] else "sum"
            default = None
            if len(words) == 4:
                default = float(words[3]) if "." in words[3] else int(words[3])
            yield Spec(name, kind, words[1], told, merge=merge, default=default, label=label)


TABLE: Final[tuple[Spec, ...]] = (
    *_apache(_GAUGES, Kind.GAUGE),
    *_apache(_GAUGE_SETS, Kind.GAUGE_SET, "key"),
    *_apache(_COUNTERS, Kind.COUNTER),
    *_apache(_COUNTERS_3_10, Kind.COUNTER),
    *_apache(_COUNTER_SETS, Kind.COUNTER_SET, "key"),
    *_apache(_BASIC, Kind.BASIC),
    *_apache(_ADVANCED, Kind.ADVANCED),
    *_apache(_BASIC_SETS, Kind.BASIC_SET, "key"),
    *_apache(_ADVANCED_SETS, Kind.ADVANCED_SET, "key"),
    *_HIDDEN,
    *_OWN,
)
"""All metrics, in the order in which mntr prints them."""

BY_NAME: Final[dict[str, Spec]] = {spec.name: spec for spec in TABLE}
