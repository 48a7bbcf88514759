/* zkbench: a load generator for servers that speak the ZooKeeper client protocol, which checks
 * every answer.
 *
 * One thread, one epoll, a closed loop: each of --conns sessions keeps --depth requests
 * outstanding and sends a new one for each reply. The work is a list of phases; a phase has two
 * functions, `make` (append one request to a connection) and `check` (judge one reply).
 *
 * What is checked:
 *   order    a reply's xid is that of the oldest request outstanding on its connection
 *   error    the error code is 0 (or one that the phase expects)
 *   zxid     a reply's zxid never goes back within a session, and a write's is new to it
 *   data     a read returns bytes that were written for that very key, whole
 *   stat     the stat agrees with the data and with itself
 *   path     a create answers the path that was asked for
 *   stale    (one server) a read shows every write that anybody was told of before it was sent
 *   conflict one mzxid means one version and one value, whoever reads it
 *   event    a watch fires once, with the right path, before the data it announces can be read
 *   closed   the server keeps the connection
 * Any of these is counted as bad, and bad results make the exit status 1.
 *
 * Wire format: Apache ZooKeeper, zookeeper-jute/src/main/resources/zookeeper.jute.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------------ constants of the protocol */

enum {
	OP_CREATE = 1, OP_DELETE = 2, OP_EXISTS = 3, OP_GET = 4, OP_SET = 5, OP_CHILDREN = 8,
	OP_CHILDREN2 = 12, OP_CHECK = 13, OP_MULTI = 14, OP_CLOSE = -11
};
enum { ERR_OK = 0, ERR_NONODE = -101, ERR_NODEEXISTS = -110 };
enum { XID_EVENT = -1, EVENT_CHANGED = 3, STATE_CONNECTED = 3 };
enum { STAT_BYTES = 68, PASSWORD_BYTES = 16, PATH_MAX_BYTES = 1024, SERVERS_MAX = 16 };
enum { PER_GROUP = 1000, LISTED_CHILDREN = 10, MULTI_SETS = 5, DRAIN_SECONDS = 30 };
#define FRAME_MAX (256u << 20)
#define NS 1000000000ull

enum bad { BAD_ORDER, BAD_ERROR, BAD_ZXID, BAD_DATA, BAD_STAT, BAD_PATH, BAD_STALE, BAD_CONFLICT,
	BAD_EVENT, BAD_CLOSED, BAD_FORMAT, BAD_KINDS };
static const char *const BAD_NAMES[BAD_KINDS] = { "order", "error", "zxid", "data", "stat", "path",
	"stale", "conflict", "event", "closed", "format" };

/* ---------------------------------------------------------------------------------- options */

static struct {
	const char *servers, *workload, *root, *pids, *label;
	int conns, depth, size, keys, batch, timeout_ms, opening;
	double seconds, warmup, reads;
	uint64_t seed;
	bool json, no_setup;
} opt = {
	.servers = "127.0.0.1:2181", .workload = "get", .root = "/zkbench", .pids = "", .label = "",
	.conns = 8, .depth = 1, .size = 100, .keys = 10000, .batch = 100, .timeout_ms = 30000,
	.opening = 40, .seconds = 5, .warmup = 1, .reads = 0.9, .seed = 1,
};

static uint64_t bad[BAD_KINDS];

static void die(const char *form, ...)
{
	va_list ap;
	va_start(ap, form);
	fputs("zkbench: ", stderr);
	vfprintf(stderr, form, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

static uint64_t bad_total(void)
{
	uint64_t sum = 0;
	for (int i = 0; i < BAD_KINDS; i++)
		sum += bad[i];
	return sum;
}

/* Count one wrong answer; the first twenty are described. */
static void wrong(enum bad kind, const char *form, ...)
{
	if (bad_total() < 20) {
		va_list ap;
		va_start(ap, form);
		fprintf(stderr, "zkbench: %s: ", BAD_NAMES[kind]);
		vfprintf(stderr, form, ap);
		fputc('\n', stderr);
		va_end(ap);
	}
	bad[kind]++;
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static uint64_t random_state;

static uint64_t random_u64(void)   /* xorshift64*; 2^64-1 values, never 0 as a state */
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545F4914F6CDD1Dull;
}

static uint32_t random_below(uint32_t n)
{
	return (uint32_t)(((random_u64() >> 32) * n) >> 32);
}

/* ---------------------------------------------------------------------------------- histogram */

/* Log-linear: 128 steps to each doubling, so a value is at most 0.8 % from its bucket's top. */
enum { STEP_BITS = 7, STEPS = 1 << STEP_BITS, BUCKETS = (64 - STEP_BITS) * STEPS };
static struct { uint64_t count[BUCKETS], total, sum, max; } lat;

static int bucket_of(uint64_t v)
{
	if (v < 2 * STEPS)
		return (int)v;
	int shift = 63 - __builtin_clzll(v) - STEP_BITS;
	return (shift << STEP_BITS) + (int)(v >> shift);
}

static uint64_t bucket_top(int b)
{
	if (b < 2 * STEPS)
		return (uint64_t)b;
	int shift = (b >> STEP_BITS) - 1;
	return (((uint64_t)(b - (shift << STEP_BITS)) + 1) << shift) - 1;
}

static void record(uint64_t v)
{
	int b = bucket_of(v);
	lat.count[b < BUCKETS ? b : BUCKETS - 1]++;
	lat.total++;
	lat.sum += v;
	if (v > lat.max)
		lat.max = v;
}

static double quantile_us(double q)
{
	uint64_t want = (uint64_t)(q * (double)lat.total), seen = 0;
	for (int b = 0; b < BUCKETS; b++) {
		seen += lat.count[b];
		if (lat.count[b] && seen > want) {
			uint64_t top = bucket_top(b);
			return (double)(top < lat.max ? top : lat.max) / 1e3;
		}
	}
	return (double)lat.max / 1e3;
}

/* ------------------------------------------------------------------- processes of the server */

struct usage { double cpu_s; uint64_t rss_kb, pss_kb; int processes; };
struct proc { int pid, parent; double cpu_s; bool ours; };

static bool read_proc(int pid, struct proc *p)
{
	char name[64], text[1024];
	snprintf(name, sizeof name, "/proc/%d/stat", pid);
	FILE *f = fopen(name, "r");
	if (!f)
		return false;
	size_t n = fread(text, 1, sizeof text - 1, f);
	fclose(f);
	text[n] = 0;
	char *rest = strrchr(text, ')');   /* the name before it may hold anything */
	long times[4];
	if (!rest || sscanf(rest + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld %ld %ld",
			&p->parent, &times[0], &times[1], &times[2], &times[3]) != 5)
		return false;
	p->pid = pid;
	p->ours = false;
	p->cpu_s = (double)(times[0] + times[1] + times[2] + times[3]) / (double)sysconf(_SC_CLK_TCK);
	return true;
}

static void add_memory(int pid, struct usage *u)
{
	char name[64], line[256];
	unsigned long kb;
	snprintf(name, sizeof name, "/proc/%d/smaps_rollup", pid);
	FILE *f = fopen(name, "r");
	if (!f)
		return;
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "Rss: %lu", &kb) == 1)
			u->rss_kb += kb;
		else if (sscanf(line, "Pss: %lu", &kb) == 1)
			u->pss_kb += kb;
	}
	fclose(f);
}

/* CPU (with that of children already waited for) and memory of --pids and their descendants. */
static struct usage server_usage(bool memory)
{
	struct usage u = { 0 };
	if (!*opt.pids)
		return u;
	size_t n = 0, room = 256;
	struct proc *all = malloc(room * sizeof *all);
	DIR *d = opendir("/proc");
	for (struct dirent *e; d && (e = readdir(d));) {
		int pid = atoi(e->d_name);
		if (n == room)
			all = realloc(all, (room *= 2) * sizeof *all);
		if (pid > 0 && read_proc(pid, &all[n]))
			n++;
	}
	if (d)
		closedir(d);
	char *copy = strdup(opt.pids), *save = NULL;
	for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save))
		for (size_t i = 0; i < n; i++)
			all[i].ours |= all[i].pid == atoi(t);
	free(copy);
	for (bool more = true; more;) {
		more = false;
		for (size_t i = 0; i < n; i++)
			for (size_t k = 0; k < n && !all[i].ours; k++)
				if (all[k].ours && all[k].pid == all[i].parent)
					all[i].ours = more = true;
	}
	for (size_t i = 0; i < n; i++) {
		if (!all[i].ours)
			continue;
		u.cpu_s += all[i].cpu_s;
		u.processes++;
		if (memory)
			add_memory(all[i].pid, &u);
	}
	free(all);
	return u;
}

static double own_cpu_s(void)
{
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
		(double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* ------------------------------------------------------------------------------------ buffers */

struct buf { uint8_t *p; size_t pos, len, room; };   /* unread: p[pos..len) */

static uint8_t *buf_space(struct buf *b, size_t want)
{
	if (b->pos == b->len)
		b->pos = b->len = 0;
	if (b->len + want > b->room) {
		if (b->pos) {
			memmove(b->p, b->p + b->pos, b->len - b->pos);
			b->len -= b->pos;
			b->pos = 0;
		}
		if (b->len + want > b->room) {
			b->room = (b->len + want) * 2;
			b->p = realloc(b->p, b->room);
			if (!b->p)
				die("out of memory");
		}
	}
	return b->p + b->len;
}

static void put_bytes(struct buf *b, const void *from, size_t n)
{
	memcpy(buf_space(b, n), from, n);
	b->len += n;
}

static void put_bool(struct buf *b, bool v)
{
	uint8_t byte = v;
	put_bytes(b, &byte, 1);
}

static void put_int(struct buf *b, int32_t v)
{
	uint32_t be = htonl((uint32_t)v);
	put_bytes(b, &be, 4);
}

static void put_long(struct buf *b, int64_t v)
{
	uint64_t be = __builtin_bswap64((uint64_t)v);
	put_bytes(b, &be, 8);
}

static void put_buffer(struct buf *b, const void *p, size_t n)
{
	put_int(b, (int32_t)n);
	put_bytes(b, p, n);
}

static void put_string(struct buf *b, const char *s)
{
	put_buffer(b, s, strlen(s));
}

/* A reply's body. Reading beyond its end sets `short_` and gives zeros. */
struct body { const uint8_t *p, *end; bool short_; };

static const uint8_t *take(struct body *b, size_t n)
{
	static const uint8_t zeros[PASSWORD_BYTES];
	if ((size_t)(b->end - b->p) < n) {
		b->short_ = true;
		b->p = b->end;
		return n <= sizeof zeros ? zeros : NULL;
	}
	b->p += n;
	return b->p - n;
}

static int32_t take_int(struct body *b)
{
	uint32_t v;
	memcpy(&v, take(b, 4), 4);
	return (int32_t)ntohl(v);
}

static int64_t take_long(struct body *b)
{
	uint64_t v;
	memcpy(&v, take(b, 8), 8);
	return (int64_t)__builtin_bswap64(v);
}

static const uint8_t *take_buffer(struct body *b, int32_t *n)   /* *n -1: null */
{
	*n = take_int(b);
	if (*n <= 0)
		return b->p;
	return take(b, (size_t)*n);
}

struct stat_ { int64_t czxid, mzxid, ctime, mtime; int32_t version, cversion, aversion;
	int64_t owner; int32_t length, children; int64_t pzxid; };

static struct stat_ take_stat(struct body *b)
{
	struct stat_ s;
	s.czxid = take_long(b);
	s.mzxid = take_long(b);
	s.ctime = take_long(b);
	s.mtime = take_long(b);
	s.version = take_int(b);
	s.cversion = take_int(b);
	s.aversion = take_int(b);
	s.owner = take_long(b);
	s.length = take_int(b);
	s.children = take_int(b);
	s.pzxid = take_long(b);
	return s;
}

/* -------------------------------------------------------------------------------- connections */

/* One request on its way. `floor` is the greatest mzxid of its key that anybody had been told
 * when it was sent; `stamp` is what a write writes. */
struct pend { int32_t xid, op; uint32_t key, count; uint64_t sent, stamp; int64_t floor; };

enum state { OFF, CONNECTING, GREETING, READY, CLOSING, DEAD };
struct conn {
	int fd, id;
	enum state state;
	bool want_out, closed_ok;
	struct buf in, out;
	struct pend *pend;          /* ring of `ring` entries, a power of two */
	uint32_t ring, head, tail;
	int32_t xid;
	int64_t zxid;               /* the greatest that this session was told */
	uint64_t began;             /* connect: when this round began */
	uint64_t made;              /* create workloads: own nodes asked for */
	int32_t seen;               /* watch: the version read last */
	bool armed, fired;          /* watch: a watch stands; the last write's event has come */
};

static struct sockaddr_storage addresses[SERVERS_MAX];
static socklen_t address_len[SERVERS_MAX];
static int server_count, epoll_fd;

static void resolve(void)
{
	char *copy = strdup(opt.servers), *save = NULL;
	for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
		char *colon = strrchr(t, ':');
		struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
		if (!colon || server_count == SERVERS_MAX)
			die("a server is HOST:PORT, and there are at most %d: %s", SERVERS_MAX, t);
		*colon = 0;
		if (getaddrinfo(t, colon + 1, &hints, &found))
			die("cannot resolve %s", t);
		memcpy(&addresses[server_count], found->ai_addr, found->ai_addrlen);
		address_len[server_count++] = found->ai_addrlen;
		freeaddrinfo(found);
	}
	free(copy);
}

static void watch_socket(struct conn *c, int how, bool out)
{
	struct epoll_event e = { .events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.ptr = c };
	if (epoll_ctl(epoll_fd, how, c->fd, &e))
		die("epoll_ctl: %s", strerror(errno));
	c->want_out = out;
}

static void conn_drop(struct conn *c, enum state state)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->state = state;
	c->in.pos = c->in.len = c->out.pos = c->out.len = 0;
}

static void conn_lost(struct conn *c, const char *why)
{
	wrong(BAD_CLOSED, "connection %d: %s, %u requests unanswered", c->id, why, c->tail - c->head);
	conn_drop(c, DEAD);
	c->head = c->tail;
}

static void flush(struct conn *c)
{
	struct buf *b = &c->out;
	while (b->pos < b->len) {
		ssize_t n = send(c->fd, b->p + b->pos, b->len - b->pos, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0) {
			conn_lost(c, strerror(errno));
			return;
		}
		b->pos += (size_t)n;
	}
	bool out = b->pos < b->len;
	if (out != c->want_out)
		watch_socket(c, EPOLL_CTL_MOD, out);
}

static size_t frame_start(struct conn *c)
{
	put_int(&c->out, 0);
	return c->out.len - c->out.pos;   /* relative: buf_space may move what is unread */
}

static void frame_end(struct conn *c, size_t start)
{
	uint32_t be = htonl((uint32_t)(c->out.len - c->out.pos - start));
	memcpy(c->out.p + c->out.pos + start - 4, &be, 4);
}

static void conn_open(struct conn *c)
{
	int server = c->id % server_count, one = 1;
	c->fd = socket(addresses[server].ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (connect(c->fd, (struct sockaddr *)&addresses[server], address_len[server]) &&
			errno != EINPROGRESS)
		die("connect to %s: %s", opt.servers, strerror(errno));
	c->state = CONNECTING;
	c->head = c->tail = 0;
	c->xid = 0;
	c->zxid = 0;
	c->closed_ok = false;
	size_t start = frame_start(c);
	uint8_t password[PASSWORD_BYTES] = { 0 };
	put_int(&c->out, 0);
	put_long(&c->out, 0);
	put_int(&c->out, opt.timeout_ms);
	put_long(&c->out, 0);
	put_buffer(&c->out, password, sizeof password);
	put_bool(&c->out, false);
	frame_end(c, start);
	watch_socket(c, EPOLL_CTL_ADD, true);
}

static struct conn *conns_new(int n, int depth)
{
	struct conn *all = calloc((size_t)n, sizeof *all);
	uint32_t ring = 4;
	while (ring < (uint32_t)depth + 2)
		ring *= 2;
	for (int i = 0; i < n; i++) {
		all[i].id = i;
		all[i].fd = -1;
		all[i].ring = ring;
		all[i].pend = calloc(ring, sizeof *all[i].pend);
	}
	return all;
}

static void conns_free(struct conn *all, int n)
{
	for (int i = 0; i < n; i++) {
		if (all[i].fd >= 0)
			close(all[i].fd);
		free(all[i].pend);
		free(all[i].in.p);
		free(all[i].out.p);
	}
	free(all);
}

/* --------------------------------------------------------------------------------------- data */

/* What the generator knows of a key: the newest state that anybody was told. */
struct key { int64_t mzxid; uint64_t stamp; int32_t version; bool missing, other; };
static struct key *keys;
static uint8_t *pattern;
enum { PATTERN_SHIFTS = 4096 };
static uint64_t next_stamp = 1;

static const uint8_t *pattern_of(uint32_t key, uint64_t stamp)
{
	return pattern + ((key * 2654435761u ^ (uint32_t)stamp * 40503u) & (PATTERN_SHIFTS - 1));
}

/* The value of a key: its number, the write's stamp, then a stretch of the pattern that both
 * select. With fewer than 16 bytes as much of that as fits. */
static void put_value(struct buf *b, uint32_t key, uint64_t stamp)
{
	uint8_t head[16];
	uint64_t k = __builtin_bswap64(key), s = __builtin_bswap64(stamp);
	size_t size = (size_t)opt.size;
	memcpy(head, &k, 8);
	memcpy(head + 8, &s, 8);
	put_int(b, opt.size);
	put_bytes(b, head, size < 16 ? size : 16);
	if (size > 16)
		put_bytes(b, pattern_of(key, stamp), size - 16);
}

static bool value_ok(const uint8_t *p, int32_t n, uint32_t key, uint64_t *stamp)
{
	uint64_t k = __builtin_bswap64(key), s;
	if (n != opt.size)
		return false;
	if (n < 16) {
		*stamp = 0;
		return n < 8 ? !memcmp(p, &k, (size_t)n) : !memcmp(p, &k, 8);
	}
	memcpy(&s, p + 8, 8);
	*stamp = __builtin_bswap64(s);
	return !memcmp(p, &k, 8) && !memcmp(p + 16, pattern_of(key, *stamp), (size_t)n - 16);
}

static char *put_digits(char *at, uint32_t v, int digits)
{
	for (int i = digits; i-- > 0; v /= 10)
		at[i] = (char)('0' + v % 10);
	return at + digits;
}

static const char *group_path(uint32_t group)
{
	static char text[PATH_MAX_BYTES];
	snprintf(text, sizeof text, "%s/keys/%05u", opt.root, group);
	return text;
}

static const char *key_path(uint32_t key)
{
	static char text[PATH_MAX_BYTES];
	static size_t prefix;
	if (!prefix)
		prefix = (size_t)snprintf(text, sizeof text, "%s/keys/", opt.root);
	char *at = put_digits(text + prefix, key / PER_GROUP, 5);
	*at++ = '/';
	*put_digits(at, key % PER_GROUP, 3) = 0;
	return text;
}

static const char *own_path(const struct conn *c, uint64_t n)
{
	static char text[PATH_MAX_BYTES];
	int used = snprintf(text, sizeof text, "%s/new/%05d/n", opt.root, c->id);
	*put_digits(text + used, (uint32_t)n, 9) = 0;
	return text;
}

/* ------------------------------------------------------------------------------------ requests */

static struct pend *begin(struct conn *c, int op, size_t *start)
{
	struct pend *p = &c->pend[c->tail & (c->ring - 1)];
	*p = (struct pend){ .xid = ++c->xid, .op = op };
	*start = frame_start(c);
	put_int(&c->out, p->xid);
	put_int(&c->out, op);
	return p;
}

static void end(struct conn *c, size_t start)
{
	frame_end(c, start);
	c->tail++;
}

static struct pend *ask_read(struct conn *c, int op, const char *path, bool watch)
{
	size_t start;
	struct pend *p = begin(c, op, &start);
	put_string(&c->out, path);
	put_bool(&c->out, watch);
	end(c, start);
	return p;
}

static void put_open_acl(struct buf *b)
{
	put_int(b, 1);
	put_int(b, 31);
	put_string(b, "world");
	put_string(b, "anyone");
}

static struct pend *ask_create(struct conn *c, const char *path, uint32_t key, int flags)
{
	size_t start;
	struct pend *p = begin(c, OP_CREATE, &start);
	p->key = key;
	put_string(&c->out, path);
	put_value(&c->out, key, 0);
	put_open_acl(&c->out);
	put_int(&c->out, flags);
	end(c, start);
	return p;
}

static struct pend *ask_delete(struct conn *c, const char *path)
{
	size_t start;
	struct pend *p = begin(c, OP_DELETE, &start);
	put_string(&c->out, path);
	put_int(&c->out, -1);
	end(c, start);
	return p;
}

static void put_set(struct conn *c, uint32_t key, uint64_t stamp)
{
	put_string(&c->out, key_path(key));
	put_value(&c->out, key, stamp);
	put_int(&c->out, -1);
}

static struct pend *ask_set(struct conn *c, uint32_t key)
{
	size_t start;
	struct pend *p = begin(c, OP_SET, &start);
	p->key = key;
	p->stamp = next_stamp++;
	put_set(c, key, p->stamp);
	end(c, start);
	return p;
}

static void put_multi_header(struct conn *c, int op, bool done)
{
	put_int(&c->out, op);
	put_bool(&c->out, done);
	put_int(&c->out, -1);
}

/* -------------------------------------------------------------------------------------- checks */

static bool stat_ok(const struct stat_ *s, int64_t zxid)
{
	return s->czxid > 0 && s->czxid <= s->mzxid && s->mzxid <= zxid && s->version >= 0 &&
		s->owner == 0 && s->length == opt.size && s->children == 0 && s->pzxid == s->czxid &&
		s->cversion == 0 && s->ctime > 0 && s->ctime <= s->mtime;
}

/* Hold a key's state against what is known of it, and learn it if it is newer. */
static void learn(uint32_t key, const struct stat_ *s, bool has_stamp, uint64_t stamp)
{
	struct key *k = &keys[key];
	if (s->mzxid == k->mzxid) {
		if (s->version != k->version || (has_stamp && k->stamp && opt.size >= 16 && stamp != k->stamp))
			wrong(BAD_CONFLICT, "%s: mzxid 0x%llx has version %d and %d", key_path(key),
				(unsigned long long)s->mzxid, k->version, s->version);
	} else if (s->mzxid > k->mzxid) {
		if (k->mzxid && s->version <= k->version)
			wrong(BAD_CONFLICT, "%s: version %d after %d", key_path(key), s->version, k->version);
		*k = (struct key){ .mzxid = s->mzxid, .version = s->version,
			.stamp = has_stamp ? stamp : 0 };
	}
}

static void check_read(const struct conn *c, const struct pend *p, struct body *b)
{
	uint64_t stamp = 0;
	bool data = p->op == OP_GET;
	if (data) {
		int32_t n;
		const uint8_t *at = take_buffer(b, &n);
		if (b->short_ || !value_ok(at, n, p->key, &stamp))
			wrong(BAD_DATA, "%s: not what was written (%d bytes)", key_path(p->key), n);
	}
	struct stat_ s = take_stat(b);
	if (!stat_ok(&s, c->zxid))
		wrong(BAD_STAT, "%s: czxid 0x%llx mzxid 0x%llx length %d zxid 0x%llx", key_path(p->key),
			(unsigned long long)s.czxid, (unsigned long long)s.mzxid, s.length,
			(unsigned long long)c->zxid);
	if (server_count == 1 && s.mzxid < p->floor)
		wrong(BAD_STALE, "%s: mzxid 0x%llx, but 0x%llx was told before", key_path(p->key),
			(unsigned long long)s.mzxid, (unsigned long long)p->floor);
	learn(p->key, &s, data, stamp);
}

static void check_set_stat(const struct conn *c, uint32_t key, uint64_t stamp, int64_t floor,
	struct body *b)
{
	struct stat_ s = take_stat(b);
	if (!stat_ok(&s, c->zxid) || s.mzxid <= floor)
		wrong(BAD_STAT, "set %s: mzxid 0x%llx length %d zxid 0x%llx", key_path(key),
			(unsigned long long)s.mzxid, s.length, (unsigned long long)c->zxid);
	learn(key, &s, true, stamp);
}

static void check_path(struct body *b, const char *want)
{
	int32_t n;
	const uint8_t *at = take_buffer(b, &n);
	if (b->short_ || n != (int32_t)strlen(want) || memcmp(at, want, (size_t)n))
		wrong(BAD_PATH, "created %.*s, not %s", b->short_ ? 0 : n, (const char *)at, want);
}

/* -------------------------------------------------------------------------------------- driver */

/* A phase of work. `make` appends one request (false: none now); `check` judges a reply whose
 * header was fine but for `err`. */
struct phase {
	bool (*make)(struct conn *);
	void (*check)(struct conn *, struct pend *, int32_t err, struct body *);
	void (*event)(struct conn *, struct body *);
	void (*idle)(void);          /* after each round of epoll */
	int depth;
	bool writes;                 /* each reply must bring a zxid that is new to the session */
	uint64_t warm, from, until;  /* count what is answered in [from, until); until 0: to the end */
};
static const struct phase *phase;
static struct conn *conns;
static int conn_count;
static bool stopping;
static uint64_t read_at;         /* when the bytes now being handled were read */

static void count_op(uint64_t sent)
{
	if (read_at >= phase->from && (!phase->until || read_at < phase->until))
		record(read_at - sent);
}

static void fill(struct conn *c)
{
	uint32_t first = c->tail;
	if (c->state != READY)
		return;
	while (!stopping && c->tail - c->head < (uint32_t)phase->depth && phase->make(c))
		;
	uint64_t now = first == c->tail ? 0 : now_ns();
	for (; first != c->tail; first++) {
		struct pend *p = &c->pend[first & (c->ring - 1)];
		p->sent = now;
		p->floor = p->key < (uint32_t)opt.keys ? keys[p->key].mzxid : 0;
	}
	if (c->out.pos < c->out.len && !c->want_out)
		flush(c);
}

static void handle_greeting(struct conn *c, struct body *b)
{
	take_int(b);
	int32_t timeout = take_int(b);
	int64_t session = take_long(b);
	int32_t n;
	take_buffer(b, &n);
	if (b->short_ || timeout <= 0 || !session || n != PASSWORD_BYTES)
		wrong(BAD_FORMAT, "connection %d: no session (timeout %d)", c->id, timeout);
	c->state = READY;
}

static void handle_reply(struct conn *c, struct body *b)
{
	int32_t xid = take_int(b);
	int64_t zxid = take_long(b);
	int32_t err = take_int(b);
	if (xid == XID_EVENT) {
		if (phase->event)
			phase->event(c, b);
		else
			wrong(BAD_EVENT, "connection %d: an event nobody asked for", c->id);
		return;
	}
	if (c->head == c->tail || c->pend[c->head & (c->ring - 1)].xid != xid) {
		wrong(BAD_ORDER, "connection %d: xid %d out of turn", c->id, xid);
		conn_drop(c, DEAD);   /* nothing that follows could be told apart */
		c->head = c->tail;
		return;
	}
	struct pend *p = &c->pend[c->head++ & (c->ring - 1)];
	bool write = phase->writes && p->op != OP_GET && p->op != OP_EXISTS && p->op != OP_CHILDREN2 &&
		p->op != OP_CHILDREN;
	if (zxid < c->zxid || (write && p->op != OP_CLOSE && zxid == c->zxid))
		wrong(BAD_ZXID, "connection %d: zxid 0x%llx after 0x%llx", c->id, (unsigned long long)zxid,
			(unsigned long long)c->zxid);
	else
		c->zxid = zxid;
	if (p->op == OP_CLOSE) {
		c->closed_ok = true;
		if (err)
			wrong(BAD_ERROR, "closeSession: %d", err);
		return;
	}
	phase->check(c, p, err, b);
	if (b->short_)
		wrong(BAD_FORMAT, "connection %d: reply to op %d is too short", c->id, p->op);
	else if (b->p != b->end && !err)
		wrong(BAD_FORMAT, "connection %d: reply to op %d is too long", c->id, p->op);
	if (!phase->event)   /* there, events are what is counted */
		count_op(p->sent);
}

static void handle_frames(struct conn *c)
{
	struct buf *b = &c->in;
	while (b->len - b->pos >= 4 && c->fd >= 0) {
		uint32_t n;
		memcpy(&n, b->p + b->pos, 4);
		n = ntohl(n);
		if (n > FRAME_MAX) {
			conn_lost(c, "a frame's length is absurd");
			return;
		}
		if (b->len - b->pos - 4 < n) {
			buf_space(b, n + 4);
			break;
		}
		struct body body = { b->p + b->pos + 4, b->p + b->pos + 4 + n, false };
		b->pos += 4 + n;
		if (c->state == GREETING)
			handle_greeting(c, &body);
		else
			handle_reply(c, &body);
	}
}

static void on_eof(struct conn *c, const char *why);

static void on_input(struct conn *c)
{
	for (;;) {
		size_t room = 64 << 10;
		uint8_t *at = buf_space(&c->in, room);
		room = c->in.room - c->in.len;
		ssize_t n = recv(c->fd, at, room, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n <= 0) {
			on_eof(c, n ? strerror(errno) : "closed by the server");
			return;
		}
		read_at = now_ns();
		c->in.len += (size_t)n;
		handle_frames(c);
		if ((size_t)n < room || c->fd < 0)
			return;
	}
}

static void on_output(struct conn *c)
{
	if (c->state == CONNECTING) {
		int err = 0;
		socklen_t n = sizeof err;
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &n);
		if (err)
			die("connect to %s: %s", opt.servers, strerror(err));
		c->state = GREETING;
	}
	flush(c);
}

static void poll_once(int timeout_ms)
{
	struct epoll_event events[256];
	int n = epoll_wait(epoll_fd, events, 256, timeout_ms);
	if (n < 0 && errno != EINTR)
		die("epoll_wait: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		struct conn *c = events[i].data.ptr;
		if (c->fd >= 0 && (events[i].events & EPOLLOUT))
			on_output(c);
		if (c->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
			on_input(c);
		if (phase)
			fill(c);
	}
}

/* Open sessions, at most --opening at a time: a listener's backlog is small. */
static void open_all(struct conn *all, int n)
{
	uint64_t limit = now_ns() + DRAIN_SECONDS * NS;
	int next = 0;
	phase = NULL;
	for (;;) {
		int ready = 0, busy = 0;
		for (int i = 0; i < n; i++) {
			ready += all[i].state >= READY;
			busy += all[i].state == CONNECTING || all[i].state == GREETING;
		}
		if (ready == n)
			break;
		for (; next < n && busy < opt.opening; busy++)
			conn_open(&all[next++]);
		poll_once(100);
		if (now_ns() > limit)
			die("%d of %d sessions opened within %d s", ready, n, DRAIN_SECONDS);
	}
	for (int i = 0; i < n; i++)
		if (all[i].state == DEAD)
			die("the server closed connection %d at its start", i);
}

static bool outstanding(void)
{
	for (int i = 0; i < conn_count; i++)
		if (conns[i].head != conns[i].tail)
			return true;
	return false;
}

static void pump(void)
{
	poll_once(10);
	if (phase->idle)
		phase->idle();
}

/* Answer what is still outstanding, or give it up after DRAIN_SECONDS. */
static void drain(void)
{
	uint64_t limit = now_ns() + DRAIN_SECONDS * NS;
	stopping = true;
	while (outstanding()) {
		pump();
		if (now_ns() > limit)
			for (int i = 0; i < conn_count; i++)
				if (conns[i].head != conns[i].tail)
					conn_lost(&conns[i], "no reply");
	}
}

/* Run a phase that ends by itself. */
static void run_to_end(struct phase *p)
{
	uint64_t heard = now_ns(), answers = 0;
	phase = p;
	stopping = false;
	for (int i = 0; i < conn_count; i++)
		fill(&conns[i]);
	while (outstanding()) {
		uint64_t sum = 0;
		pump();
		for (int i = 0; i < conn_count; i++)
			sum += conns[i].head;
		if (sum != answers) {
			answers = sum;
			heard = now_ns();
		} else if (now_ns() > heard + DRAIN_SECONDS * NS)
			die("%s: no reply for %d s", opt.workload, DRAIN_SECONDS);
	}
	stopping = true;
}

struct window { double seconds, server_cpu_s, own_cpu_s; struct usage after; };

/* Run a phase for --warmup and then --seconds; what is answered in the second part counts. */
static struct window run_timed(struct phase *p)
{
	struct window w = { 0 };
	uint64_t start = now_ns();
	p->from = start + (uint64_t)(opt.warmup * 1e9);
	p->until = p->from + (uint64_t)(opt.seconds * 1e9);
	phase = p;
	stopping = false;
	for (int i = 0; i < conn_count; i++)
		fill(&conns[i]);
	while (now_ns() < p->from)
		pump();
	struct usage before = server_usage(false);
	double own = own_cpu_s();
	p->from = now_ns();
	p->until = p->from + (uint64_t)(opt.seconds * 1e9);
	while (now_ns() < p->until)
		pump();
	w.seconds = (double)(p->until - p->from) / 1e9;
	w.after = server_usage(false);
	w.own_cpu_s = own_cpu_s() - own;
	w.server_cpu_s = w.after.cpu_s - before.cpu_s;
	w.after = server_usage(true);
	drain();
	return w;
}

static void ignore_event(struct conn *c, struct body *b)
{
	(void)c, (void)b;
}

static void close_all(struct conn *all, int n)
{
	uint64_t limit = now_ns() + 5 * NS;
	static struct phase nothing = { .event = ignore_event };   /* of the last write, perhaps */
	phase = &nothing;
	stopping = true;
	for (int i = 0; i < n; i++) {
		struct conn *c = &all[i];
		if (c->state != READY)
			continue;
		size_t start;
		begin(c, OP_CLOSE, &start);
		end(c, start);
		c->state = CLOSING;
		flush(c);
	}
	for (bool left = true; left && now_ns() < limit;) {
		left = false;
		poll_once(10);
		for (int i = 0; i < n; i++)
			left |= all[i].state == CLOSING;
	}
	phase = NULL;
}

/* -------------------------------------------------------------------------------------- set-up */

static uint32_t cursor, cursor_end;

static bool make_parent(struct conn *c)
{
	/* The fixed parents first, in order; then one node for each group of keys, then listed ones. */
	static const char *const fixed[] = { "", "/keys", "/new", "/list" };
	char path[PATH_MAX_BYTES];
	uint32_t groups = ((uint32_t)opt.keys + PER_GROUP - 1) / PER_GROUP, n = cursor;
	if (cursor == cursor_end)
		return false;
	cursor++;
	if (n < 4)
		snprintf(path, sizeof path, "%s%s", opt.root, fixed[n]);
	else if ((n -= 4) < groups)
		snprintf(path, sizeof path, "%s", group_path(n));
	else if ((n -= groups) < LISTED_CHILDREN)
		snprintf(path, sizeof path, "%s/list/child-%02u", opt.root, n);
	else
		snprintf(path, sizeof path, "%s/new/%05u", opt.root, n - LISTED_CHILDREN);
	ask_create(c, path, UINT32_MAX, 0);
	return true;
}

static void check_parent(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	int32_t n;
	(void)c, (void)p;
	if (!err)
		take_buffer(b, &n);
	else if (err != ERR_NODEEXISTS)
		wrong(BAD_ERROR, "create of a parent: %d", err);
}

static bool make_scan(struct conn *c)
{
	if (cursor == cursor_end)
		return false;
	ask_read(c, OP_EXISTS, key_path(cursor), false)->key = cursor;
	cursor++;
	return true;
}

static void check_scan(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	(void)c;
	struct key *k = &keys[p->key];
	*k = (struct key){ .missing = err == ERR_NONODE };
	if (err && err != ERR_NONODE)
		wrong(BAD_ERROR, "exists %s: %d", key_path(p->key), err);
	if (!err) {
		struct stat_ s = take_stat(b);
		k->mzxid = s.mzxid;
		k->version = s.version;
		k->other = s.length != opt.size;
	}
}

/* One multi that creates the next --batch keys that are missing. */
static bool make_batch(struct conn *c)
{
	while (cursor < cursor_end && !keys[cursor].missing)
		cursor++;
	if (cursor == cursor_end)
		return false;
	size_t start;
	struct pend *p = begin(c, OP_MULTI, &start);
	p->key = cursor;
	for (; cursor < cursor_end && p->count < (uint32_t)opt.batch; cursor++) {
		if (!keys[cursor].missing)
			continue;
		put_multi_header(c, OP_CREATE, false);
		put_string(&c->out, key_path(cursor));
		put_value(&c->out, cursor, 0);
		put_open_acl(&c->out);
		put_int(&c->out, 0);
		p->count++;
	}
	put_multi_header(c, -1, true);
	end(c, start);
	return true;
}

static bool multi_result(struct body *b, int op)   /* the header of one result; false: it failed */
{
	int32_t type = take_int(b), done = *take(b, 1), err = take_int(b);
	if (type == -1 && !done && !b->short_) {
		wrong(BAD_ERROR, "an operation of a multi: %d", err);
		take_int(b);
		return false;
	}
	if (type != op || done)
		wrong(BAD_FORMAT, "a multi's result has type %d, not %d", type, op);
	return type == op;
}

static void multi_end(struct body *b)
{
	if (take_int(b) != -1 || !*take(b, 1) || take_int(b) != -1)
		wrong(BAD_FORMAT, "a multi's results do not end");
}

static uint64_t batched;   /* nodes made or removed in the window by multis, beyond one each */

static void check_batch(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	(void)c;
	if (err) {
		wrong(BAD_ERROR, "multi of creates: %d", err);
		return;
	}
	uint32_t key = p->key;
	for (uint32_t i = 0; i < p->count; i++, key++) {
		while (!keys[key].missing)
			key++;
		if (multi_result(b, OP_CREATE)) {
			check_path(b, key_path(key));
			keys[key].missing = false;
		}
	}
	multi_end(b);
	batched += p->count;
}

static bool make_fix(struct conn *c)
{
	while (cursor < cursor_end && !keys[cursor].other)
		cursor++;
	if (cursor == cursor_end)
		return false;
	keys[cursor].other = false;
	ask_set(c, cursor++);
	return true;
}

static void check_set(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	if (err)
		wrong(BAD_ERROR, "set %s: %d", key_path(p->key), err);
	else
		check_set_stat(c, p->key, p->stamp, p->floor, b);
}

static void use(struct conn *all, int n)
{
	conns = all;
	conn_count = n;
}

static void run_over(struct phase *p, uint32_t from, uint32_t to)
{
	cursor = from;
	cursor_end = to;
	run_to_end(p);
}

/* Make the parents and look at every key; the caller has opened `conns`. */
static void prepare(void)
{
	struct phase parents = { .make = make_parent, .check = check_parent, .depth = 64 };
	struct phase scan = { .make = make_scan, .check = check_scan, .depth = 64 };
	uint32_t groups = ((uint32_t)opt.keys + PER_GROUP - 1) / PER_GROUP;
	int all = conn_count;
	conn_count = 1;    /* one session: a parent is made before its children */
	run_over(&parents, 0, 4 + groups + LISTED_CHILDREN + (uint32_t)opt.conns);
	conn_count = all;
	run_over(&scan, 0, (uint32_t)opt.keys);
}

static void make_keys(void)
{
	struct phase batch = { .make = make_batch, .check = check_batch, .depth = opt.depth < 8 ? opt.depth : 8 };
	struct phase fix = { .make = make_fix, .check = check_set, .depth = 16 };
	run_over(&batch, 0, (uint32_t)opt.keys);
	run_over(&fix, 0, (uint32_t)opt.keys);
	memset(&lat, 0, sizeof lat);
}

/* ------------------------------------------------------------------------------------- removal */

static struct { char **at; size_t n, room, next; } paths;   /* parents before their children */

static void path_add(const char *parent, const uint8_t *name, int32_t n)
{
	char *p;
	if (paths.n == paths.room)
		paths.at = realloc(paths.at, (paths.room = paths.room * 2 + 64) * sizeof *paths.at);
	if (asprintf(&p, "%s%s%.*s", parent, n ? "/" : "", (int)n, (const char *)name) < 0)
		die("out of memory");
	paths.at[paths.n++] = p;
}

static bool make_list(struct conn *c)
{
	if (paths.next == paths.n)
		return false;
	struct pend *p = ask_read(c, OP_CHILDREN, paths.at[paths.next], false);
	p->stamp = paths.next++;
	return true;
}

static void check_list(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	(void)c;
	if (err == ERR_NONODE) {
		free(paths.at[p->stamp]);
		paths.at[p->stamp] = NULL;
		return;
	}
	if (err) {
		wrong(BAD_ERROR, "getChildren: %d", err);
		return;
	}
	int32_t n = take_int(b), len;
	for (int32_t i = 0; i < n && !b->short_; i++) {
		const uint8_t *name = take_buffer(b, &len);
		if (!b->short_)
			path_add(paths.at[p->stamp], name, len);
	}
}

static bool make_removal(struct conn *c)
{
	while (paths.n && !paths.at[paths.n - 1])
		paths.n--;
	if (!paths.n)
		return false;
	size_t start;
	struct pend *p = begin(c, OP_MULTI, &start);
	while (paths.n && p->count < (uint32_t)opt.batch) {
		char *path = paths.at[--paths.n];
		if (!path)
			continue;
		put_multi_header(c, OP_DELETE, false);
		put_string(&c->out, path);
		put_int(&c->out, -1);
		p->count++;
		free(path);
	}
	put_multi_header(c, -1, true);
	end(c, start);
	return true;
}

static void check_removal(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	(void)c;
	if (err) {
		wrong(BAD_ERROR, "multi of deletes: %d", err);
		return;
	}
	for (uint32_t i = 0; i < p->count; i++)
		multi_result(b, OP_DELETE);
	multi_end(b);
	batched += p->count;
}

/* Remove a subtree, its top included, over one session: deletes are in the listing's reverse. */
static uint64_t remove_tree(const char *top)
{
	struct phase list = { .make = make_list, .check = check_list, .depth = 64 };
	struct phase removal = { .make = make_removal, .check = check_removal, .depth = 8 };
	struct conn *one = conns_new(1, 64);
	open_all(one, 1);
	use(one, 1);
	paths.n = paths.next = 0;
	path_add(top, NULL, 0);
	while (paths.next < paths.n)
		run_to_end(&list);
	memset(&lat, 0, sizeof lat);
	batched = 0;
	run_to_end(&removal);
	close_all(one, 1);
	conns_free(one, 1);
	return batched;
}

/* ----------------------------------------------------------------------------------- workloads */

static uint32_t any_key(void)
{
	return random_below((uint32_t)opt.keys);
}

static bool make_get(struct conn *c)
{
	uint32_t key = any_key();
	ask_read(c, OP_GET, key_path(key), false)->key = key;
	return true;
}

static bool make_exists(struct conn *c)
{
	uint32_t key = any_key();
	ask_read(c, OP_EXISTS, key_path(key), false)->key = key;
	return true;
}

static bool make_set(struct conn *c)
{
	ask_set(c, any_key());
	return true;
}

static bool make_mixed(struct conn *c)
{
	double dice = (double)(random_u64() >> 11) / 9007199254740992.0;
	return dice < opt.reads ? make_get(c) : make_set(c);
}

static void check_rw(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	if (p->op == OP_SET)
		check_set(c, p, err, b);
	else if (err)
		wrong(BAD_ERROR, "read %s: %d", key_path(p->key), err);
	else
		check_read(c, p, b);
}

static bool make_children(struct conn *c)
{
	char path[PATH_MAX_BYTES];
	snprintf(path, sizeof path, "%s/list", opt.root);
	ask_read(c, OP_CHILDREN2, path, false);
	return true;
}

static void check_children(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	(void)c, (void)p;
	unsigned seen = 0;
	if (err) {
		wrong(BAD_ERROR, "getChildren2: %d", err);
		return;
	}
	int32_t n = take_int(b), len;
	for (int32_t i = 0; i < n && !b->short_; i++) {
		const uint8_t *name = take_buffer(b, &len);
		if (!b->short_ && len == 8 && !memcmp(name, "child-0", 7) && name[7] >= '0' && name[7] <= '9')
			seen |= 1u << (name[7] - '0');
	}
	struct stat_ s = take_stat(b);
	if (n != LISTED_CHILDREN || seen != (1u << LISTED_CHILDREN) - 1)
		wrong(BAD_DATA, "getChildren2: %d children, set %x", n, seen);
	if (s.children != n || s.cversion < n || s.pzxid > c->zxid)
		wrong(BAD_STAT, "getChildren2: numChildren %d", s.children);
}

static int create_flags;
static bool deleting_too;

static bool make_create(struct conn *c)
{
	uint64_t n = c->made++;
	if (deleting_too && n % 2) {
		ask_delete(c, own_path(c, n / 2))->stamp = n / 2;
	} else {
		n = deleting_too ? n / 2 : n;
		ask_create(c, own_path(c, n), UINT32_MAX, create_flags)->stamp = n;
	}
	return true;
}

static void check_create(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	if (err)
		wrong(BAD_ERROR, "op %d of %s: %d", p->op, own_path(c, p->stamp), err);
	else if (p->op == OP_CREATE)
		check_path(b, own_path(c, p->stamp));
}

static bool make_multi(struct conn *c)
{
	uint32_t key = any_key();
	size_t start;
	struct pend *p = begin(c, OP_MULTI, &start);
	p->key = key;
	p->stamp = next_stamp++;
	put_multi_header(c, OP_CHECK, false);
	put_string(&c->out, key_path(key));
	put_int(&c->out, -1);
	for (uint32_t i = 0; i < MULTI_SETS; i++) {
		put_multi_header(c, OP_SET, false);
		put_set(c, (key + i) % (uint32_t)opt.keys, p->stamp);
	}
	put_multi_header(c, -1, true);
	end(c, start);
	return true;
}

static void check_multi(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	if (err) {
		wrong(BAD_ERROR, "multi: %d", err);
		return;
	}
	multi_result(b, OP_CHECK);
	for (uint32_t i = 0; i < MULTI_SETS; i++)
		if (multi_result(b, OP_SET))
			check_set_stat(c, (p->key + i) % (uint32_t)opt.keys, p->stamp, 0, b);
	multi_end(b);
}

/* watch: connection 0 writes key 0, all others watch it. The next write goes out when everybody
 * has had the event and has read the new value, with a new watch. */
static uint64_t written_at;

static bool make_watch(struct conn *c)
{
	if (c->id == 0) {
		for (int i = 1; i < conn_count; i++)
			if (conns[i].state == READY && !(conns[i].armed && (conns[i].fired || !written_at)))
				return false;
		for (int i = 1; i < conn_count; i++)
			conns[i].fired = false;
		ask_set(c, 0);
		written_at = now_ns();
		return true;
	}
	if (c->armed)
		return false;
	ask_read(c, OP_GET, key_path(0), true)->key = 0;
	return true;
}

static void check_watch(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	if (p->op == OP_SET) {
		check_set(c, p, err, b);
		return;
	}
	struct body stat = { b->end - STAT_BYTES, b->end, false };
	if (err || b->end - b->p < STAT_BYTES) {
		wrong(BAD_ERROR, "watched read: %d", err);
		return;
	}
	check_read(c, p, b);
	int32_t version = take_stat(&stat).version;
	if (c->fired && version <= c->seen)
		wrong(BAD_EVENT, "connection %d: version %d, though the event came", c->id, version);
	c->seen = version;
	c->armed = true;
}

static void event_watch(struct conn *c, struct body *b)
{
	int32_t type = take_int(b), state = take_int(b), n;
	const uint8_t *at = take_buffer(b, &n);
	const char *want = key_path(0);
	if (b->short_ || type != EVENT_CHANGED || state != STATE_CONNECTED ||
			n != (int32_t)strlen(want) || memcmp(at, want, (size_t)n))
		wrong(BAD_EVENT, "connection %d: type %d state %d", c->id, type, state);
	if (!c->armed || c->fired)
		wrong(BAD_EVENT, "connection %d: an event without a watch", c->id);
	c->armed = false;
	c->fired = true;
	count_op(written_at);
}

static void idle_watch(void)
{
	fill(&conns[0]);
}

static void count_nothing(struct conn *c, struct pend *p, int32_t err, struct body *b)
{
	(void)c, (void)p, (void)err, (void)b;
}

/* connect: connect, open a session, close it, see the server close the connection; again. */
static bool cycling;

static bool make_connect(struct conn *c)
{
	size_t start;
	begin(c, OP_CLOSE, &start);
	end(c, start);
	c->state = CLOSING;
	return true;
}

static void restart_connect(struct conn *c)
{
	c->began = now_ns();
	conn_open(c);
}

static void on_eof(struct conn *c, const char *why)
{
	if (c->state != CLOSING || !c->closed_ok) {
		conn_lost(c, why);
		return;
	}
	conn_drop(c, OFF);
	if (cycling) {
		read_at = now_ns();
		count_op(c->began);
		if (!stopping)
			restart_connect(c);
	}
}

static struct window run_connect(struct phase *p)
{
	struct window w;
	phase = p;
	cycling = true;
	for (int i = 0; i < conn_count; i++)
		restart_connect(&conns[i]);
	w = run_timed(p);
	uint64_t limit = now_ns() + 5 * NS;
	for (bool left = true; left && now_ns() < limit;) {
		left = false;
		stopping = false;   /* a session that opens now is still to be closed */
		cycling = false;
		pump();
		for (int i = 0; i < conn_count; i++)
			fill(&conns[i]);
		for (int i = 0; i < conn_count; i++)
			left |= conns[i].state != OFF && conns[i].state != DEAD;
	}
	cycling = false;
	return w;
}

/* --------------------------------------------------------------------------------------- report */

static void report(const struct window *w, uint64_t ops)
{
	double rate = w->seconds > 0 ? (double)ops / w->seconds : 0;
	double per = ops && *opt.pids ? w->server_cpu_s * 1e5 / (double)ops : 0;
	double share = w->seconds > 0 ? w->own_cpu_s / w->seconds : 0;
	double mean = lat.total ? (double)lat.sum / (double)lat.total / 1e3 : 0;
	if (opt.json) {
		printf("{\"label\": \"%s\", \"workload\": \"%s\", \"conns\": %d, \"depth\": %d, \"size\": %d, "
			"\"keys\": %d, \"seconds\": %.3f, \"ops\": %llu, \"ops_per_s\": %.1f, \"mean_us\": %.1f, "
			"\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
			"\"max_us\": %.1f, \"generator_share\": %.3f", opt.label, opt.workload, opt.conns,
			opt.depth, opt.size, opt.keys, w->seconds, (unsigned long long)ops, rate, mean,
			quantile_us(0.5), quantile_us(0.9), quantile_us(0.99), quantile_us(0.999),
			(double)lat.max / 1e3, share);
		if (*opt.pids)
			printf(", \"server_processes\": %d, \"server_cpu_s\": %.3f, \"server_cpu_share\": %.3f, "
				"\"server_cpu_s_per_100k\": %.4f, \"server_rss_kb\": %llu, \"server_pss_kb\": %llu",
				w->after.processes, w->server_cpu_s,
				w->seconds > 0 ? w->server_cpu_s / w->seconds : 0, per,
				(unsigned long long)w->after.rss_kb, (unsigned long long)w->after.pss_kb);
		printf(", \"bad\": %llu, \"bad_kinds\": {", (unsigned long long)bad_total());
		for (int i = 0, first = 1; i < BAD_KINDS; i++)
			if (bad[i]) {
				printf("%s\"%s\": %llu", first ? "" : ", ", BAD_NAMES[i], (unsigned long long)bad[i]);
				first = 0;
			}
		puts("}}");
		return;
	}
	printf("%s, %d connections x %d, %d bytes, %d keys: %llu in %.2f s\n", opt.workload, opt.conns,
		opt.depth, opt.size, opt.keys, (unsigned long long)ops, w->seconds);
	printf("  %.0f ops/s   generator used %.0f %% of a core%s\n", rate, share * 100,
		share > 0.9 ? ": IT WAS THE LIMIT, not the server" : "");
	printf("  latency us: p50 %.0f  p90 %.0f  p99 %.0f  p99.9 %.0f  max %.0f\n", quantile_us(0.5),
		quantile_us(0.9), quantile_us(0.99), quantile_us(0.999), (double)lat.max / 1e3);
	if (*opt.pids)
		printf("  server: %d processes, %.2f cores, %.2f CPU-s/100k, RSS %.1f MB, PSS %.1f MB\n",
			w->after.processes, w->server_cpu_s / w->seconds, per,
			(double)w->after.rss_kb / 1024, (double)w->after.pss_kb / 1024);
	printf("  bad answers: %llu\n", (unsigned long long)bad_total());
}

static const char USAGE[] =
	"usage: zkbench [--servers HOST:PORT[,...]] [--workload NAME] [options]\n"
	"workloads: get exists children set create create-delete mixed ephemeral multi watch\n"
	"           connect populate cleanup\n"
	"  --conns N      sessions, in turn over the servers (8); watch: one more, which writes\n"
	"  --depth N      requests that each keeps outstanding (1)\n"
	"  --size BYTES   length of a node's data (100)\n"
	"  --keys N       nodes that are read and written (10000)\n"
	"  --seconds S    measured time (5)        --warmup S   time before it (1)\n"
	"  --reads R      mixed: share of getData (0.9)\n"
	"  --batch N      populate, cleanup: nodes in one multi (100)\n"
	"  --root PATH    where the nodes live (/zkbench)\n"
	"  --pids P,...   the server's processes, for CPU and memory; descendants are included\n"
	"  --timeout MS   session timeout asked for (30000)\n"
	"  --opening N    sessions being opened at a time (40)\n"
	"  --no-setup     the nodes are there already: do not look\n"
	"  --seed N       for the choice of keys (1)\n"
	"  --label TEXT   copied into the JSON line\n"
	"  --json         print one JSON line\n"
	"exit status: 0 good, 1 wrong answers were counted, 2 could not run\n";

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "servers", 1, 0, 's' }, { "workload", 1, 0, 'w' }, { "conns", 1, 0, 'c' },
		{ "depth", 1, 0, 'd' }, { "size", 1, 0, 'z' }, { "keys", 1, 0, 'k' },
		{ "seconds", 1, 0, 't' }, { "warmup", 1, 0, 'u' }, { "reads", 1, 0, 'r' },
		{ "batch", 1, 0, 'b' }, { "root", 1, 0, 'p' }, { "pids", 1, 0, 'P' },
		{ "timeout", 1, 0, 'T' }, { "opening", 1, 0, 'o' }, { "no-setup", 0, 0, 'n' },
		{ "seed", 1, 0, 'S' }, { "label", 1, 0, 'l' }, { "json", 0, 0, 'j' },
		{ "help", 0, 0, 'h' }, { 0, 0, 0, 0 },
	};
	for (int o; (o = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
		switch (o) {
		case 's': opt.servers = optarg; break;
		case 'w': opt.workload = optarg; break;
		case 'c': opt.conns = atoi(optarg); break;
		case 'd': opt.depth = atoi(optarg); break;
		case 'z': opt.size = atoi(optarg); break;
		case 'k': opt.keys = atoi(optarg); break;
		case 't': opt.seconds = atof(optarg); break;
		case 'u': opt.warmup = atof(optarg); break;
		case 'r': opt.reads = atof(optarg); break;
		case 'b': opt.batch = atoi(optarg); break;
		case 'p': opt.root = optarg; break;
		case 'P': opt.pids = optarg; break;
		case 'T': opt.timeout_ms = atoi(optarg); break;
		case 'o': opt.opening = atoi(optarg); break;
		case 'n': opt.no_setup = true; break;
		case 'S': opt.seed = strtoull(optarg, NULL, 0); break;
		case 'l': opt.label = optarg; break;
		case 'j': opt.json = true; break;
		case 'h': fputs(USAGE, stdout); exit(0);
		default: fputs(USAGE, stderr); exit(2);
		}
	}
	if (optind != argc || opt.conns < 1 || opt.depth < 1 || opt.size < 0 || opt.size > 1000000 ||
			opt.keys <= MULTI_SETS || opt.keys > 99999 * PER_GROUP || opt.batch < 1 ||
			opt.opening < 1 || opt.seconds <= 0 || opt.warmup < 0 || strlen(opt.root) > 256) {
		fputs(USAGE, stderr);
		exit(2);
	}
}

/* What a workload's name stands for; false: there is no such workload. */
static bool choose(struct phase *p)
{
	const char *w = opt.workload;
	*p = (struct phase){ .depth = opt.depth, .check = check_rw };
	if (!strcmp(w, "get"))
		p->make = make_get;
	else if (!strcmp(w, "exists"))
		p->make = make_exists;
	else if (!strcmp(w, "set"))
		p->make = make_set, p->writes = true;
	else if (!strcmp(w, "mixed"))
		p->make = make_mixed, p->writes = true;
	else if (!strcmp(w, "children"))
		p->make = make_children, p->check = check_children;
	else if (!strcmp(w, "multi"))
		p->make = make_multi, p->check = check_multi, p->writes = true;
	else if (!strcmp(w, "create") || !strcmp(w, "create-delete") || !strcmp(w, "ephemeral")) {
		p->make = make_create, p->check = check_create, p->writes = true;
		deleting_too = strcmp(w, "create") != 0;
		create_flags = !strcmp(w, "ephemeral");
	} else if (!strcmp(w, "watch")) {
		*p = (struct phase){ .make = make_watch, .check = check_watch, .event = event_watch,
			.idle = idle_watch, .depth = 1, .writes = true };
	} else if (!strcmp(w, "connect"))
		*p = (struct phase){ .make = make_connect, .check = count_nothing, .depth = 1 };
	else
		return false;
	return true;
}

static int run_bulk(bool populate)
{
	struct window w = { 0 };
	struct usage before;
	uint64_t ops;
	if (populate) {
		struct phase batch = { .make = make_batch, .check = check_batch, .depth = opt.depth };
		struct conn *all = conns_new(opt.conns, 64 > opt.depth ? 64 : opt.depth);
		open_all(all, opt.conns);
		use(all, opt.conns);
		prepare();
		memset(&lat, 0, sizeof lat);
		before = server_usage(false);
		double own = own_cpu_s();
		uint64_t start = now_ns();
		batched = 0;
		run_over(&batch, 0, (uint32_t)opt.keys);
		w.seconds = (double)(now_ns() - start) / 1e9;
		w.own_cpu_s = own_cpu_s() - own;
		ops = batched;
		w.after = server_usage(true);
		close_all(all, opt.conns);
		conns_free(all, opt.conns);
	} else {
		before = server_usage(false);
		double own = own_cpu_s();
		uint64_t start = now_ns();
		ops = remove_tree(opt.root);
		w.seconds = (double)(now_ns() - start) / 1e9;
		w.own_cpu_s = own_cpu_s() - own;
		w.after = server_usage(true);
	}
	w.server_cpu_s = w.after.cpu_s - before.cpu_s;
	report(&w, ops);
	return bad_total() ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct phase p;
	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	random_state = opt.seed * 0x9E3779B97F4A7C15ull | 1;
	pattern = malloc((size_t)opt.size + PATTERN_SHIFTS);
	for (int i = 0; i < opt.size + PATTERN_SHIFTS; i++)
		pattern[i] = (uint8_t)random_u64();
	keys = calloc((size_t)opt.keys, sizeof *keys);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0 || !keys || !pattern)
		die("cannot start: %s", strerror(errno));
	resolve();
	if (!strcmp(opt.workload, "populate") || !strcmp(opt.workload, "cleanup"))
		return run_bulk(opt.workload[0] == 'p');
	if (!choose(&p))
		die("no workload is called %s; --help lists them", opt.workload);
	bool watching = !strcmp(opt.workload, "watch"), connecting = !strcmp(opt.workload, "connect");
	int n = opt.conns + (watching ? 1 : 0);
	if (!opt.no_setup) {
		struct conn *some = conns_new(4, 64);
		open_all(some, 4);
		use(some, 4);
		prepare();
		make_keys();
		close_all(some, 4);
		conns_free(some, 4);
	}
	memset(&lat, 0, sizeof lat);
	struct conn *all = conns_new(n, opt.depth);
	use(all, n);
	struct window w;
	if (connecting) {
		w = run_connect(&p);
	} else {
		open_all(all, n);
		w = run_timed(&p);
	}
	uint64_t ops = lat.total;
	close_all(all, n);
	conns_free(all, n);
	if (p.make == make_create) {
		typeof(lat) kept = lat;
		char top[PATH_MAX_BYTES];
		snprintf(top, sizeof top, "%s/new", opt.root);
		remove_tree(top);
		lat = kept;
	}
	report(&w, ops);
	return bad_total() ? 1 : 0;
}
