/* The yardstick of `make bench`: what C needs for the work that netlink/ does in Python.
 *
 * Raw generic netlink, libc and the kernel's headers, nothing clever: the same attributes in the same batches with the
 * same one acknowledgement, and a dump of everything into structs. Values are made before the clock starts and the
 * process, its socket and the family look-up are not timed, as they are not where Python is measured. Prints one line
 * for each measured time: a word and milliseconds. `shapes.py` has the same formulas for what is in the table.
 *
 *   baseline load N M RUN BATCH             add N virtual servers with M real servers each
 *   baseline weights N M RUN SHIFT BATCH    change every weight
 *   baseline dump COUNT                     read everything, COUNT times on one socket
 *   baseline change N M RUN COUNT BLOCK     change one weight at a time; one line for each BLOCK changes, per change
 *   baseline wait N M RUN SHIFT MS SECONDS  look every MS at the last real server until it has its weight
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/ip_vs.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DATAGRAM 65536
#define MESSAGE 512 /* more than any request has */

struct counters {
    uint64_t connections, in_packets, out_packets, in_bytes, out_bytes;
    uint64_t connection_rate, in_packet_rate, out_packet_rate, in_byte_rate, out_byte_rate;
};

struct service {
    uint16_t family, protocol, port;
    uint8_t address[16];
    uint32_t mark, flags, timeout, netmask;
    char scheduler[IP_VS_SCHEDNAME_MAXLEN], engine[IP_VS_PENAME_MAXLEN];
    struct counters counters;
    size_t first, count; /* its destinations in table.destinations */
};

struct destination {
    uint16_t family, port, tunnel_port, tunnel_flags;
    uint8_t tunnel_type, address[16];
    uint32_t forwarding, weight, upper, lower, active, inactive, persistent;
    struct counters counters;
};

struct table {
    struct service *services;
    struct destination *destinations;
    size_t service_count, service_room, destination_count, destination_room;
};

static int sock;
static uint16_t family_id;
static uint32_t sequence;
static uint8_t received[DATAGRAM];

static void die(const char *what)
{
    fprintf(stderr, "baseline: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* ---- values: the formulas of shapes.py */

static struct service service_of(unsigned index, unsigned run)
{
    struct service made = {.family = AF_INET, .protocol = IPPROTO_TCP, .netmask = 0xffffffff, .scheduler = "wlc"};
    uint32_t address = htonl((10u << 24) + ((64 + run % 64) << 16) + index + 1);
    memcpy(made.address, &address, 4);
    made.port = (uint16_t)(80 + index % 7);
    return made;
}

static struct destination destination_of(unsigned index, unsigned run, unsigned shift)
{
    struct destination made = {.family = AF_INET, .forwarding = IP_VS_CONN_F_MASQ};
    uint32_t address = htonl((10u << 24) + ((128 + run % 64) << 16) + index + 1);
    memcpy(made.address, &address, 4);
    made.port = (uint16_t)(8000 + index % 1000);
    made.weight = 1 + index % 100 + shift;
    return made;
}

/* ---- writing */

static uint8_t *attribute(uint8_t *at, uint16_t type, const void *payload, size_t length)
{
    struct nlattr header = {.nla_len = (uint16_t)(NLA_HDRLEN + length), .nla_type = type};
    memcpy(at, &header, sizeof header);
    memcpy(at + NLA_HDRLEN, payload, length);
    memset(at + NLA_HDRLEN + length, 0, NLA_ALIGN(length) - length);
    return at + NLA_HDRLEN + NLA_ALIGN(length);
}

static uint8_t *u8(uint8_t *at, uint16_t type, uint8_t value) { return attribute(at, type, &value, 1); }
static uint8_t *u16(uint8_t *at, uint16_t type, uint16_t value) { return attribute(at, type, &value, 2); }
static uint8_t *be16(uint8_t *at, uint16_t type, uint16_t value) { return u16(at, type, htons(value)); }
static uint8_t *u32(uint8_t *at, uint16_t type, uint32_t value) { return attribute(at, type, &value, 4); }

static void end_nested(uint8_t *nested, const uint8_t *at)
{
    struct nlattr header = {.nla_len = (uint16_t)(at - nested)};
    memcpy(&header.nla_type, nested + 2, 2);
    memcpy(nested, &header, sizeof header);
}

static uint8_t *put_service(uint8_t *nested, const struct service *s, int whole)
{
    uint8_t *at = attribute(nested, IPVS_CMD_ATTR_SERVICE | NLA_F_NESTED, "", 0);
    at = u16(at, IPVS_SVC_ATTR_AF, s->family);
    at = u16(at, IPVS_SVC_ATTR_PROTOCOL, s->protocol);
    at = attribute(at, IPVS_SVC_ATTR_ADDR, s->address, 16);
    at = be16(at, IPVS_SVC_ATTR_PORT, s->port);
    if (whole) {
        struct ip_vs_flags flags = {.flags = s->flags, .mask = ~0u};
        at = attribute(at, IPVS_SVC_ATTR_SCHED_NAME, s->scheduler, strlen(s->scheduler) + 1);
        at = attribute(at, IPVS_SVC_ATTR_FLAGS, &flags, sizeof flags);
        at = u32(at, IPVS_SVC_ATTR_TIMEOUT, s->timeout);
        at = u32(at, IPVS_SVC_ATTR_NETMASK, s->netmask);
    }
    end_nested(nested, at);
    return at;
}

static uint8_t *put_destination(uint8_t *nested, const struct destination *d)
{
    uint8_t *at = attribute(nested, IPVS_CMD_ATTR_DEST | NLA_F_NESTED, "", 0);
    at = u16(at, IPVS_DEST_ATTR_ADDR_FAMILY, d->family);
    at = attribute(at, IPVS_DEST_ATTR_ADDR, d->address, 16);
    at = be16(at, IPVS_DEST_ATTR_PORT, d->port);
    at = u32(at, IPVS_DEST_ATTR_FWD_METHOD, d->forwarding);
    at = u32(at, IPVS_DEST_ATTR_WEIGHT, d->weight);
    at = u32(at, IPVS_DEST_ATTR_U_THRESH, d->upper);
    at = u32(at, IPVS_DEST_ATTR_L_THRESH, d->lower);
    at = u8(at, IPVS_DEST_ATTR_TUN_TYPE, d->tunnel_type);
    at = be16(at, IPVS_DEST_ATTR_TUN_PORT, d->tunnel_port);
    at = u16(at, IPVS_DEST_ATTR_TUN_FLAGS, d->tunnel_flags);
    end_nested(nested, at);
    return at;
}

static uint8_t *begin(uint8_t *at, uint16_t family, uint8_t command, uint8_t version, uint16_t flags)
{
    struct nlmsghdr header = {.nlmsg_type = family, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = ++sequence};
    struct genlmsghdr generic = {.cmd = command, .version = version};
    memcpy(at, &header, sizeof header);
    memcpy(at + NLMSG_HDRLEN, &generic, sizeof generic);
    return at + NLMSG_HDRLEN + GENL_HDRLEN;
}

static void end(uint8_t *message, const uint8_t *at)
{
    uint32_t length = (uint32_t)(at - message);
    memcpy(message, &length, sizeof length);
}

static void send_bytes(const uint8_t *bytes, size_t length)
{
    if (send(sock, bytes, length, 0) != (ssize_t)length)
        die("send");
}

static size_t receive(void)
{
    ssize_t length = recv(sock, received, sizeof received, 0);
    if (length < 0)
        die("recv");
    return (size_t)length;
}

/* Wait for the acknowledgement of the last message; any error before it ends the program. */
static void acknowledged(void)
{
    for (;;) {
        size_t left = receive();
        for (struct nlmsghdr *m = (struct nlmsghdr *)received; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
            struct nlmsgerr *answer = NLMSG_DATA(m);
            if (m->nlmsg_type != NLMSG_ERROR)
                continue;
            if (answer->error) {
                errno = -answer->error;
                die("refused");
            }
            if (m->nlmsg_seq == sequence)
                return;
        }
    }
}

/* ---- batches */

static uint8_t *batch_bytes, *batch_at;
static unsigned batch_size, batch_count;

static void open_batches(unsigned size)
{
    batch_size = size;
    batch_at = batch_bytes = malloc((size_t)size * MESSAGE);
    if (!batch_bytes)
        die("malloc");
}

static void flush_batch(void)
{
    if (!batch_count)
        return;
    send_bytes(batch_bytes, (size_t)(batch_at - batch_bytes));
    acknowledged();
    batch_at = batch_bytes;
    batch_count = 0;
}

static void request(uint8_t command, const struct service *s, const struct destination *d, int last)
{
    uint16_t flags = last || batch_count + 1 == batch_size ? NLM_F_ACK : 0;
    uint8_t *at = begin(batch_at, family_id, command, IPVS_GENL_VERSION, flags);
    at = put_service(at, s, !d);
    if (d)
        at = put_destination(at, d);
    end(batch_at, at);
    batch_at = at;
    if (++batch_count == batch_size || last)
        flush_batch();
}

/* ---- reading */

static uint64_t number(const struct nlattr *a)
{
    const uint8_t *payload = (const uint8_t *)a + NLA_HDRLEN;
    uint64_t eight = 0;
    uint32_t four = 0;
    uint16_t two = 0;
    switch (a->nla_len - NLA_HDRLEN) {
    case 8: memcpy(&eight, payload, 8); return eight;
    case 4: memcpy(&four, payload, 4); return four;
    case 2: memcpy(&two, payload, 2); return two;
    case 1: return *payload;
    default: errno = EPROTO; die("a number's length"); return 0;
    }
}

static void copy(void *into, size_t room, const struct nlattr *a)
{
    size_t length = (size_t)a->nla_len - NLA_HDRLEN;
    memcpy(into, (const uint8_t *)a + NLA_HDRLEN, length < room ? length : room);
}

#define FOR_EACH_ATTRIBUTE(a, start, stop)                                                                           \
    for (const struct nlattr *a = (const struct nlattr *)(start);                                                    \
         (const uint8_t *)a + NLA_HDRLEN <= (stop) && a->nla_len >= NLA_HDRLEN && (const uint8_t *)a + a->nla_len <= (stop); \
         a = (const struct nlattr *)((const uint8_t *)a + NLA_ALIGN(a->nla_len)))
#define INSIDE(a) ((const uint8_t *)(a) + NLA_HDRLEN), ((const uint8_t *)(a) + (a)->nla_len)
#define KIND(a) ((a)->nla_type & NLA_TYPE_MASK)

static void get_counters(struct counters *c, const uint8_t *start, const uint8_t *stop)
{
    FOR_EACH_ATTRIBUTE(a, start, stop) {
        switch (KIND(a)) {
        case IPVS_STATS_ATTR_CONNS: c->connections = number(a); break;
        case IPVS_STATS_ATTR_INPKTS: c->in_packets = number(a); break;
        case IPVS_STATS_ATTR_OUTPKTS: c->out_packets = number(a); break;
        case IPVS_STATS_ATTR_INBYTES: c->in_bytes = number(a); break;
        case IPVS_STATS_ATTR_OUTBYTES: c->out_bytes = number(a); break;
        case IPVS_STATS_ATTR_CPS: c->connection_rate = number(a); break;
        case IPVS_STATS_ATTR_INPPS: c->in_packet_rate = number(a); break;
        case IPVS_STATS_ATTR_OUTPPS: c->out_packet_rate = number(a); break;
        case IPVS_STATS_ATTR_INBPS: c->in_byte_rate = number(a); break;
        case IPVS_STATS_ATTR_OUTBPS: c->out_byte_rate = number(a); break;
        }
    }
}

static void get_service(struct service *s, const uint8_t *start, const uint8_t *stop)
{
    FOR_EACH_ATTRIBUTE(a, start, stop) {
        switch (KIND(a)) {
        case IPVS_SVC_ATTR_AF: s->family = (uint16_t)number(a); break;
        case IPVS_SVC_ATTR_PROTOCOL: s->protocol = (uint16_t)number(a); break;
        case IPVS_SVC_ATTR_ADDR: copy(s->address, sizeof s->address, a); break;
        case IPVS_SVC_ATTR_PORT: s->port = ntohs((uint16_t)number(a)); break;
        case IPVS_SVC_ATTR_FWMARK: s->mark = (uint32_t)number(a); break;
        case IPVS_SVC_ATTR_SCHED_NAME: copy(s->scheduler, sizeof s->scheduler, a); break;
        case IPVS_SVC_ATTR_PE_NAME: copy(s->engine, sizeof s->engine, a); break;
        case IPVS_SVC_ATTR_FLAGS: copy(&s->flags, sizeof s->flags, a); break;
        case IPVS_SVC_ATTR_TIMEOUT: s->timeout = (uint32_t)number(a); break;
        case IPVS_SVC_ATTR_NETMASK: s->netmask = (uint32_t)number(a); break;
        case IPVS_SVC_ATTR_STATS64: get_counters(&s->counters, INSIDE(a)); break;
        }
    }
}

static void get_destination(struct destination *d, const uint8_t *start, const uint8_t *stop)
{
    FOR_EACH_ATTRIBUTE(a, start, stop) {
        switch (KIND(a)) {
        case IPVS_DEST_ATTR_ADDR_FAMILY: d->family = (uint16_t)number(a); break;
        case IPVS_DEST_ATTR_ADDR: copy(d->address, sizeof d->address, a); break;
        case IPVS_DEST_ATTR_PORT: d->port = ntohs((uint16_t)number(a)); break;
        case IPVS_DEST_ATTR_FWD_METHOD: d->forwarding = (uint32_t)number(a); break;
        case IPVS_DEST_ATTR_WEIGHT: d->weight = (uint32_t)number(a); break;
        case IPVS_DEST_ATTR_U_THRESH: d->upper = (uint32_t)number(a); break;
        case IPVS_DEST_ATTR_L_THRESH: d->lower = (uint32_t)number(a); break;
        case IPVS_DEST_ATTR_ACTIVE_CONNS: d->active = (uint32_t)number(a); break;
        case IPVS_DEST_ATTR_INACT_CONNS: d->inactive = (uint32_t)number(a); break;
        case IPVS_DEST_ATTR_PERSIST_CONNS: d->persistent = (uint32_t)number(a); break;
        case IPVS_DEST_ATTR_TUN_TYPE: d->tunnel_type = (uint8_t)number(a); break;
        case IPVS_DEST_ATTR_TUN_PORT: d->tunnel_port = ntohs((uint16_t)number(a)); break;
        case IPVS_DEST_ATTR_TUN_FLAGS: d->tunnel_flags = (uint16_t)number(a); break;
        case IPVS_DEST_ATTR_STATS64: get_counters(&d->counters, INSIDE(a)); break;
        }
    }
}

static void *grown(void *items, size_t *room, size_t count, size_t size)
{
    if (count < *room)
        return items;
    *room = *room ? *room * 2 : 256;
    items = realloc(items, *room * size);
    if (!items)
        die("realloc");
    return items;
}

/* Add one message of a dump to the table. */
static void add(struct table *t, const uint8_t *start, const uint8_t *stop)
{
    FOR_EACH_ATTRIBUTE(a, start, stop) {
        if (KIND(a) == IPVS_CMD_ATTR_SERVICE) {
            t->services = grown(t->services, &t->service_room, t->service_count, sizeof *t->services);
            struct service *s = &t->services[t->service_count++];
            memset(s, 0, sizeof *s);
            get_service(s, INSIDE(a));
        } else if (KIND(a) == IPVS_CMD_ATTR_DEST) {
            t->destinations =
                grown(t->destinations, &t->destination_room, t->destination_count, sizeof *t->destinations);
            struct destination *d = &t->destinations[t->destination_count++];
            memset(d, 0, sizeof *d);
            get_destination(d, INSIDE(a));
        }
    }
}

static void dump(struct table *t, uint8_t command, const struct service *of)
{
    uint8_t message[MESSAGE], *at = begin(message, family_id, command, IPVS_GENL_VERSION, NLM_F_DUMP);
    if (of)
        at = put_service(at, of, 0);
    end(message, at);
    send_bytes(message, (size_t)(at - message));
    for (;;) {
        size_t left = receive();
        for (struct nlmsghdr *m = (struct nlmsghdr *)received; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
            if (m->nlmsg_type == NLMSG_DONE)
                return;
            if (m->nlmsg_type == NLMSG_ERROR) {
                errno = -((struct nlmsgerr *)NLMSG_DATA(m))->error;
                die("dump");
            }
            add(t, (const uint8_t *)m + NLMSG_HDRLEN + GENL_HDRLEN, (const uint8_t *)m + m->nlmsg_len);
        }
    }
}

static void dump_all(struct table *t)
{
    dump(t, IPVS_CMD_GET_SERVICE, NULL);
    for (size_t i = 0; i < t->service_count; i++) {
        t->services[i].first = t->destination_count;
        dump(t, IPVS_CMD_GET_DEST, &t->services[i]);
        t->services[i].count = t->destination_count - t->services[i].first;
    }
}

/* Empty the table and keep its memory for the next dump. */
static void clear(struct table *t) { t->service_count = t->destination_count = 0; }

/* ---- opening */

static void open_socket(void)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    int room = 1 << 20, one = 1;
    uint8_t message[MESSAGE], *at;
    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
    if (sock < 0 || connect(sock, (struct sockaddr *)&kernel, sizeof kernel))
        die("netlink socket");
    setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    setsockopt(sock, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
    at = begin(message, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, 0);
    at = attribute(at, CTRL_ATTR_FAMILY_NAME, IPVS_GENL_NAME, sizeof IPVS_GENL_NAME);
    end(message, at);
    send_bytes(message, (size_t)(at - message));
    receive();
    struct nlmsghdr *m = (struct nlmsghdr *)received;
    if (m->nlmsg_type != GENL_ID_CTRL) {
        errno = ENOENT;
        die("family IPVS");
    }
    FOR_EACH_ATTRIBUTE(a, received + NLMSG_HDRLEN + GENL_HDRLEN, received + m->nlmsg_len) {
        if (KIND(a) == CTRL_ATTR_FAMILY_ID)
            family_id = (uint16_t)number(a);
    }
}

/* ---- what is measured */

static void load(unsigned services, unsigned each, unsigned run)
{
    struct service *s = calloc(services, sizeof *s);
    struct destination *d = calloc((size_t)services * each, sizeof *d);
    if (!s || !d)
        die("calloc");
    for (unsigned i = 0; i < services; i++)
        s[i] = service_of(i, run);
    for (unsigned i = 0; i < services * each; i++)
        d[i] = destination_of(i, run, 0);
    double before = now_ms();
    for (unsigned i = 0; i < services; i++) {
        request(IPVS_CMD_NEW_SERVICE, &s[i], NULL, 0);
        for (unsigned j = 0; j < each; j++)
            request(IPVS_CMD_NEW_DEST, &s[i], &d[i * each + j], i + 1 == services && j + 1 == each);
    }
    printf("load %.6f\n", now_ms() - before);
}

static void weights(unsigned services, unsigned each, unsigned run, unsigned shift)
{
    struct service *s = calloc(services, sizeof *s);
    struct destination *d = calloc((size_t)services * each, sizeof *d);
    if (!s || !d)
        die("calloc");
    for (unsigned i = 0; i < services; i++)
        s[i] = service_of(i, run);
    for (unsigned i = 0; i < services * each; i++)
        d[i] = destination_of(i, run, shift);
    double before = now_ms();
    for (unsigned i = 0; i < services * each; i++)
        request(IPVS_CMD_SET_DEST, &s[i / each], &d[i], i + 1 == services * each);
    printf("weights %.6f\n", now_ms() - before);
}

static void dumps(unsigned count)
{
    struct table t = {0};
    for (unsigned i = 0; i < count; i++) {
        clear(&t);
        double before = now_ms();
        dump_all(&t);
        printf("dump %.6f\n", now_ms() - before);
    }
    printf("services %zu\ndestinations %zu\n", t.service_count, t.destination_count);
}

static void change(unsigned services, unsigned each, unsigned run, unsigned count, unsigned block)
{
    unsigned index = services * each / 2;
    struct service s = service_of(index / each, run);
    struct destination d = destination_of(index, run, 0);
    open_batches(1);
    for (unsigned i = 0; i < count + 1; i++) { /* the first block warms up */
        double before = now_ms();
        for (unsigned j = 0; j < block; j++) {
            d.weight = 1 + (i * block + j) % 60000;
            request(IPVS_CMD_SET_DEST, &s, &d, 1);
        }
        if (i)
            printf("change %.6f\n", (now_ms() - before) / block);
    }
}

/* Print the time at which the last real server had its weight: one small dump at a time, so that who loads the table on
 * the only processor loses little to it. */
static void wait_for(unsigned services, unsigned each, unsigned run, unsigned shift, unsigned ms, unsigned seconds)
{
    struct service s = service_of(services - 1, run);
    struct destination wanted = destination_of(services * each - 1, run, shift);
    struct timespec pause = {.tv_nsec = (long)ms * 1000000};
    struct table t = {0};
    double deadline = now_ms() + seconds * 1e3;
    printf("ready 0\n");
    fflush(stdout);
    while (now_ms() < deadline) {
        clear(&t);
        dump(&t, IPVS_CMD_GET_DEST, &s);
        for (size_t i = 0; i < t.destination_count; i++) {
            struct destination *d = &t.destinations[i];
            if (!memcmp(d->address, wanted.address, 4) && d->port == wanted.port && d->weight == wanted.weight) {
                printf("at %.6f\n", now_ms());
                return;
            }
        }
        nanosleep(&pause, NULL);
    }
    errno = ETIMEDOUT;
    die("wait");
}

int main(int argc, char **argv)
{
    unsigned n[6] = {0};
    int given = argc > 2 ? argc - 2 : 0;
    for (int i = 0; i < given && i < 6; i++)
        n[i] = (unsigned)strtoul(argv[i + 2], NULL, 10);
    const char *mode = argc > 1 ? argv[1] : "";
    open_socket();
    if (!strcmp(mode, "load") && given == 4) {
        open_batches(n[3]);
        load(n[0], n[1], n[2]);
    } else if (!strcmp(mode, "weights") && given == 5) {
        open_batches(n[4]);
        weights(n[0], n[1], n[2], n[3]);
    } else if (!strcmp(mode, "dump") && given == 1) {
        dumps(n[0]);
    } else if (!strcmp(mode, "change") && given == 5) {
        change(n[0], n[1], n[2], n[3], n[4]);
    } else if (!strcmp(mode, "wait") && given == 6) {
        wait_for(n[0], n[1], n[2], n[3], n[4], n[5]);
    } else {
        fprintf(stderr, "baseline: unknown arguments, see baseline.c\n");
        return 2;
    }
    return 0;
}
