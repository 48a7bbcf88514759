/* Drives a server through Apache's C client (libzookeeper_mt) and checks every answer.
 *
 *   client HOST:PORT PATH
 *
 * PATH does not exist and is made. One line "ok WHAT" is printed for each part. At "restart" the
 * program waits for a line on standard input, which says that the server has been restarted, and
 * goes on with the same session. Exit status 0 if everything was as it should be. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zookeeper/zookeeper.h>

#define WITHIN_S 30

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int connected, expired, events;
static int last_type;
static char last_path[512];
static char base[256];

static void fail(int line, const char *what, int code) {
    fprintf(stderr, "client.c:%d: %s: %d (%s)\n", line, what, code, zerror(code));
    exit(1);
}

#define EXPECT(call, code)                                  \
    do {                                                    \
        int got_ = (call);                                  \
        if (got_ != (code)) fail(__LINE__, #call, got_);    \
    } while (0)
#define CHECK(condition)                                    \
    do {                                                    \
        if (!(condition)) fail(__LINE__, #condition, 0);    \
    } while (0)

static void session_watcher(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh, (void)path, (void)context;
    if (type != ZOO_SESSION_EVENT) return;
    pthread_mutex_lock(&guard);
    connected = state == ZOO_CONNECTED_STATE;
    expired |= state == ZOO_EXPIRED_SESSION_STATE;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&guard);
}

static void node_watcher(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh, (void)state, (void)context;
    if (type == ZOO_SESSION_EVENT) return;
    pthread_mutex_lock(&guard);
    events++;
    last_type = type;
    snprintf(last_path, sizeof last_path, "%s", path);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&guard);
}

/* Wait until *value is at least `least`; the lock is taken and given back. */
static void await(int *value, int least, int line) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += WITHIN_S;
    pthread_mutex_lock(&guard);
    while (*value < least)
        if (pthread_cond_timedwait(&changed, &guard, &end)) fail(line, "nothing happened", 0);
    pthread_mutex_unlock(&guard);
}

static void expect_event(int number, int type, const char *path, int line) {
    await(&events, number, line);
    pthread_mutex_lock(&guard);
    if (last_type != type || strcmp(last_path, path)) fail(line, last_path, last_type);
    pthread_mutex_unlock(&guard);
}

static char *below(const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s%s", base, name);
    return path;
}

static void ok(const char *what) {
    printf("ok %s\n", what);
    fflush(stdout);
}

static void nodes(zhandle_t *zh) {
    char made[512], data[64];
    int length = sizeof data;
    struct Stat stat;
    struct ACL_vector *open = &ZOO_OPEN_ACL_UNSAFE;
    EXPECT(zoo_create(zh, base, "x", 1, open, 0, made, sizeof made), ZOK);
    CHECK(!strcmp(made, base));
    EXPECT(zoo_create(zh, base, "x", 1, open, 0, NULL, 0), ZNODEEXISTS);
    EXPECT(zoo_create(zh, below("/no/parent"), "x", 1, open, 0, NULL, 0), ZNONODE);
    EXPECT(zoo_create2(zh, below("/a"), "12345", 5, open, 0, made, sizeof made, &stat), ZOK);
    CHECK(stat.version == 0 && stat.dataLength == 5 && stat.czxid == stat.mzxid);
    EXPECT(zoo_create2(zh, below("/null"), NULL, -1, open, 0, NULL, 0, &stat), ZOK);
    EXPECT(zoo_get(zh, below("/null"), 0, data, &length, &stat), ZOK);
    CHECK(length == -1 && stat.dataLength == 0);
    length = sizeof data;
    EXPECT(zoo_get(zh, below("/a"), 0, data, &length, &stat), ZOK);
    CHECK(length == 5 && !memcmp(data, "12345", 5));
    EXPECT(zoo_set2(zh, below("/a"), "67", 2, 0, &stat), ZOK);
    CHECK(stat.version == 1 && stat.dataLength == 2 && stat.mzxid > stat.czxid);
    EXPECT(zoo_set(zh, below("/a"), "no", 2, 0), ZBADVERSION);
    EXPECT(zoo_exists(zh, below("/a"), 0, &stat), ZOK);
    EXPECT(zoo_exists(zh, below("/b"), 0, &stat), ZNONODE);
    EXPECT(zoo_delete(zh, base, -1), ZNOTEMPTY);
    EXPECT(zoo_delete(zh, below("/null"), 3), ZBADVERSION);
    EXPECT(zoo_delete(zh, below("/null"), 0), ZOK);
    ok("nodes");
}

static void kinds(zhandle_t *zh) {
    char made[512];
    struct Stat stat;
    struct String_vector children;
    struct ACL_vector *open = &ZOO_OPEN_ACL_UNSAFE;
    EXPECT(zoo_create(zh, below("/s"), "", 0, open, 0, NULL, 0), ZOK);
    EXPECT(zoo_create(zh, below("/s/n-"), "", 0, open, ZOO_PERSISTENT_SEQUENTIAL, made,
                      sizeof made), ZOK);
    CHECK(!strcmp(made, below("/s/n-0000000000")));
    EXPECT(zoo_create(zh, below("/s/n-"), "", 0, open, ZOO_EPHEMERAL_SEQUENTIAL, made,
                      sizeof made), ZOK);
    CHECK(!strcmp(made, below("/s/n-0000000001")));
    EXPECT(zoo_exists(zh, made, 0, &stat), ZOK);
    CHECK(stat.ephemeralOwner == zoo_client_id(zh)->client_id);
    EXPECT(zoo_create(zh, below("/s/n-0000000001/c"), "", 0, open, 0, NULL, 0),
           ZNOCHILDRENFOREPHEMERALS);
    EXPECT(zoo_create(zh, below("/c"), "", 0, open, ZOO_CONTAINER, NULL, 0), ZOK);
    EXPECT(zoo_create_ttl(zh, below("/t"), "", 0, open, ZOO_PERSISTENT_WITH_TTL, 1000000, NULL, 0),
           ZOK);
    EXPECT(zoo_exists(zh, below("/t"), 0, &stat), ZOK);
    CHECK(stat.ephemeralOwner == 0);
    EXPECT(zoo_get_children2(zh, below("/s"), 0, &children, &stat), ZOK);
    CHECK(children.count == 2 && stat.numChildren == 2 && stat.cversion == 2);
    deallocate_String_vector(&children);
    ok("kinds");
}

static void watches(zhandle_t *zh) {
    char data[8];
    int length = sizeof data;
    struct Stat stat;
    struct String_vector children;
    struct ACL_vector *open = &ZOO_OPEN_ACL_UNSAFE;
    EXPECT(zoo_wexists(zh, below("/w"), node_watcher, NULL, &stat), ZNONODE);
    EXPECT(zoo_create(zh, below("/w"), "", 0, open, 0, NULL, 0), ZOK);
    expect_event(1, ZOO_CREATED_EVENT, below("/w"), __LINE__);
    EXPECT(zoo_wget(zh, below("/w"), node_watcher, NULL, data, &length, &stat), ZOK);
    EXPECT(zoo_set(zh, below("/w"), "1", 1, -1), ZOK);
    expect_event(2, ZOO_CHANGED_EVENT, below("/w"), __LINE__);
    EXPECT(zoo_set(zh, below("/w"), "2", 1, -1), ZOK);
    EXPECT(zoo_wget_children(zh, below("/w"), node_watcher, NULL, &children), ZOK);
    deallocate_String_vector(&children);
    EXPECT(zoo_create(zh, below("/w/c"), "", 0, open, 0, NULL, 0), ZOK);
    expect_event(3, ZOO_CHILD_EVENT, below("/w"), __LINE__);
    EXPECT(zoo_wexists(zh, below("/w/c"), node_watcher, NULL, &stat), ZOK);
    EXPECT(zoo_remove_watches(zh, below("/w/c"), ZWATCHTYPE_DATA, node_watcher, NULL, 0), ZOK);
    EXPECT(zoo_delete(zh, below("/w/c"), -1), ZOK);
    EXPECT(zoo_wexists(zh, below("/w"), node_watcher, NULL, &stat), ZOK);
    EXPECT(zoo_delete(zh, below("/w"), -1), ZOK);
    await(&events, 4, __LINE__);
    ok("watches");
}

static void transactions(zhandle_t *zh) {
    zoo_op_t ops[4];
    zoo_op_result_t results[4];
    char made[512];
    struct Stat stat;
    struct ACL_vector *open = &ZOO_OPEN_ACL_UNSAFE;
    zoo_create_op_init(&ops[0], below("/m"), "1", 1, open, 0, made, sizeof made);
    zoo_check_op_init(&ops[1], below("/m"), 0);
    zoo_set_op_init(&ops[2], below("/m"), "22", 2, 0, &stat);
    zoo_create_op_init(&ops[3], below("/m/c"), "", 0, open, 0, NULL, 0);
    EXPECT(zoo_multi(zh, 4, ops, results), ZOK);
    CHECK(stat.version == 1 && stat.dataLength == 2 && !strcmp(made, below("/m")));
    zoo_delete_op_init(&ops[0], below("/m/c"), -1);
    zoo_check_op_init(&ops[1], below("/m"), 9);
    zoo_delete_op_init(&ops[2], below("/m"), -1);
    EXPECT(zoo_multi(zh, 3, ops, results), ZBADVERSION);
    CHECK(results[0].err == ZOK && results[1].err == ZBADVERSION);
    CHECK(results[2].err == ZRUNTIMEINCONSISTENCY);
    EXPECT(zoo_exists(zh, below("/m/c"), 0, &stat), ZOK);
    ok("transactions");
}

static int auth_code = 1;

static void authenticated(int code, const void *context) {
    (void)context;
    pthread_mutex_lock(&guard);
    auth_code = code == ZOK ? 2 : 0;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&guard);
}

static void permissions(zhandle_t *zh, const char *hosts) {
    struct ACL_vector acl;
    struct Stat stat;
    char data[8];
    int length = sizeof data;
    EXPECT(zoo_create(zh, below("/p"), "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), ZINVALIDACL);
    EXPECT(zoo_add_auth(zh, "digest", "ann:one", 7, authenticated, NULL), ZOK);
    await(&auth_code, 2, __LINE__);
    EXPECT(zoo_create(zh, below("/p"), "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), ZOK);
    EXPECT(zoo_get_acl(zh, below("/p"), &acl, &stat), ZOK);
    CHECK(acl.count == 1 && !strcmp(acl.data[0].id.scheme, "digest"));
    deallocate_ACL_vector(&acl);
    zhandle_t *other = zookeeper_init(hosts, NULL, 10000, NULL, NULL, 0);
    CHECK(other);
    EXPECT(zoo_get(other, below("/p"), 0, data, &length, &stat), ZNOAUTH);
    EXPECT(zookeeper_close(other), ZOK);
    EXPECT(zoo_set_acl(zh, below("/p"), 0, &ZOO_OPEN_ACL_UNSAFE), ZOK);
    ok("permissions");
}

/* The server goes away and comes back: same session, same ephemeral, watches set again. */
static void reconnection(zhandle_t *zh) {
    char line[16], data[8];
    int length = sizeof data, before = events;
    struct Stat stat;
    int64_t session = zoo_client_id(zh)->client_id;
    struct ACL_vector *open = &ZOO_OPEN_ACL_UNSAFE;
    EXPECT(zoo_create(zh, below("/e"), "", 0, open, ZOO_EPHEMERAL, NULL, 0), ZOK);
    EXPECT(zoo_wget(zh, below("/a"), node_watcher, NULL, data, &length, &stat), ZOK);
    ok("restart");
    CHECK(fgets(line, sizeof line, stdin));
    int code;
    do {
        await(&connected, 1, __LINE__);
        code = zoo_exists(zh, below("/e"), 0, &stat);
    } while (code == ZCONNECTIONLOSS || code == ZOPERATIONTIMEOUT);
    EXPECT(code, ZOK);
    CHECK(stat.ephemeralOwner == session && zoo_client_id(zh)->client_id == session && !expired);
    EXPECT(zoo_set(zh, below("/a"), "new", 3, -1), ZOK);
    expect_event(before + 1, ZOO_CHANGED_EVENT, below("/a"), __LINE__);
    ok("reconnection");
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    snprintf(base, sizeof base, "%s", arguments[2]);
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    zhandle_t *zh = zookeeper_init(arguments[1], session_watcher, 10000, NULL, NULL, 0);
    CHECK(zh);
    await(&connected, 1, __LINE__);
    nodes(zh);
    kinds(zh);
    watches(zh);
    transactions(zh);
    permissions(zh, arguments[1]);
    reconnection(zh);
    EXPECT(zookeeper_close(zh), ZOK);
    ok("end");
    return 0;
}
