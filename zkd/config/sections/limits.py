"""Keys that hold clients back: connections, requests in flight, throttles (spec section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from zkd.config.key import setting
from zkd.config.kinds import BYTES, FLAG, INT, MIB, MS, REAL, YES_NO, YES_UNLESS_NO


@dataclass(frozen=True, init=False, repr=False, eq=False)
class LimitSettings:
    """Limits and throttles; they count over all front-ends of the server."""

    max_client_cnxns: int = setting(
        "maxClientCnxns",
        INT,
        60,
        "Most connections from one address; 0: no limit.",
        reloadable=True,
    )
    max_cnxns: int = setting(
        "maxCnxns",
        INT,
        0,
        "Most connections in all, TLS counted apart; 0: no limit.",
        minimum=0,
        clamp=True,
        reloadable=True,
    )
    global_outstanding_limit: int = setting(
        "globalOutstandingLimit",
        INT,
        1000,
        "Requests in flight above which the server stops reading from busy connections.",
        minimum=1,
        reloadable=True,
    )
    request_throttle_max_requests: int = setting(
        "request_throttle_max_requests",
        INT,
        0,
        "Requests in flight above which new ones are stalled; 0: no stalling.",
        aliases=("requestThrottleLimit",),
        minimum=0,
        reloadable=True,
    )
    request_throttle_stall_time: int = setting(
        "request_throttle_stall_time",
        MS,
        100,
        "Longest pause before a stalled request is seen to again.",
        aliases=("requestThrottleStallTime",),
        minimum=1,
        reloadable=True,
    )
    request_throttle_drop_stale: bool = setting(
        "request_throttle_drop_stale",
        FLAG,
        True,
        "Drop stalled requests that are stale.",
        aliases=("requestThrottleDropStale",),
        reloadable=True,
    )
    request_stale_latency_check: bool = setting(
        "request_stale_latency_check",
        FLAG,
        False,
        "A request older than its session's timeout is stale.",
        aliases=("requestStaleLatencyCheck",),
        reloadable=True,
    )
    request_stale_connection_check: bool = setting(
        "request_stale_connection_check",
        FLAG,
        True,
        "A request whose connection is closed is stale.",
        aliases=("requestStaleConnectionCheck",),
        reloadable=True,
    )
    request_throttler_shutdown_timeout: int = setting(
        "request_throttler.shutdownTimeout",
        MS,
        10_000,
        "How long stalled requests are still served when the server stops.",
        minimum=0,
        note="At most 300 ms: the whole server stops within 2 s.",
    )
    throttled_op_wait_time: int = setting(
        "throttled_op_wait_time",
        MS,
        0,
        "A request that waited longer is refused with THROTTLEDOP; 0: none is.",
        aliases=("throttledOpWaitTime",),
        minimum=0,
        reloadable=True,
    )
    large_request_threshold: int = setting(
        "largeRequestThreshold",
        BYTES,
        -1,
        "Size above which a request counts as large; -1: none.",
        minimum=1,
        special=-1,
        clamp=True,
        reloadable=True,
    )
    large_request_max_bytes: int = setting(
        "largeRequestMaxBytes",
        BYTES,
        100 * MIB,
        "Most bytes of large requests in flight.",
        minimum=1,
        reloadable=True,
    )
    connection_throttle_tokens: int = setting(
        "connection_throttle_tokens",
        INT,
        0,
        "Size of the bucket of tokens that new sessions take; 0: no throttle.",
        aliases=("connectionMaxTokens",),
        minimum=0,
        reloadable=True,
    )
    connection_throttle_fill_time: int = setting(
        "connection_throttle_fill_time",
        MS,
        1,
        "Time between two fillings of the bucket.",
        aliases=("connectionTokenFillTime",),
        minimum=1,
        reloadable=True,
    )
    connection_throttle_fill_count: int = setting(
        "connection_throttle_fill_count",
        INT,
        1,
        "Tokens of one filling.",
        aliases=("connectionTokenFillCount",),
        minimum=1,
        reloadable=True,
    )
    connection_throttle_freeze_time: int = setting(
        "connection_throttle_freeze_time",
        MS,
        -1,
        "Time between two changes of the drop probability; -1: no random drops.",
        aliases=("connectionFreezeTime",),
        minimum=0,
        special=-1,
        reloadable=True,
    )
    connection_throttle_drop_increase: float = setting(
        "connection_throttle_drop_increase",
        REAL,
        0.02,
        "What an empty bucket adds to the drop probability.",
        aliases=("connectionDropIncrease",),
        minimum=0,
        maximum=1,
        reloadable=True,
    )
    connection_throttle_drop_decrease: float = setting(
        "connection_throttle_drop_decrease",
        REAL,
        0.002,
        "What a full enough bucket takes from the drop probability.",
        aliases=("connectionDropDecrease",),
        minimum=0,
        maximum=1,
        reloadable=True,
    )
    connection_throttle_decrease_ratio: float = setting(
        "connection_throttle_decrease_ratio",
        REAL,
        0.0,
        "Share of the bucket that may be missing for the drop probability to fall.",
        aliases=("connectionDecreaseRatio",),
        minimum=0,
        maximum=1,
        reloadable=True,
    )
    connection_throttle_weight_enabled: bool = setting(
        "connection_throttle_weight_enabled",
        FLAG,
        False,
        "Let kinds of sessions take different numbers of tokens.",
        reloadable=True,
    )
    connection_throttle_global_session_weight: int = setting(
        "connection_throttle_global_session_weight",
        INT,
        3,
        "Tokens of a new global session.",
        reloadable=True,
    )
    connection_throttle_local_session_weight: int = setting(
        "connection_throttle_local_session_weight",
        INT,
        1,
        "Tokens of a new local session.",
        reloadable=True,
    )
    connection_throttle_renew_session_weight: int = setting(
        "connection_throttle_renew_session_weight",
        INT,
        2,
        "Tokens of a session that comes back.",
        reloadable=True,
    )
    max_response_cache_size: int = setting(
        "maxResponseCacheSize",
        INT,
        400,
        "Replies of getData that are kept encoded; 0: none.",
        note="The bound is cache.bytes; 0 or less switches this cache off.",
    )
    max_get_children_response_cache_size: int = setting(
        "maxGetChildrenResponseCacheSize",
        INT,
        400,
        "Replies of getChildren that are kept encoded; 0: none.",
        note="The bound is cache.bytes; 0 or less switches this cache off.",
    )
    skip_acl: bool = setting(
        "skipACL",
        YES_NO,
        False,
        "Check no ACLs at all: everybody may do everything.",
    )
    leader_serves: bool = setting(
        "leaderServes",
        YES_UNLESS_NO,
        True,
        "Let the leader accept clients.",
    )
