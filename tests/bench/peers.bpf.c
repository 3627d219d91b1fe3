/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the forwarder is compared with: the floor, and the least that a hand-written program with hash tables can do for the
 * same job. No counters, no owners, no checks of VPCs, one table entry made beforehand for each EIP.
 */
#include "bpf.h"

/* All that a packet to an EIP needs, found in one look-up. */
struct whole {
	u32 vni;
	u32 inner;
	u32 port;
	u8 mac[6];
	u8 gateway_mac[6];
};

/* The same, taken apart: EIP to VPC and address, those to the port. */
struct place {
	u32 vni;
	u32 inner;
};

struct receiver {
	u32 port;
	u8 mac[6];
	u8 gateway_mac[6];
};

/* The agents of such programs size their tables when they load them; so does the benchmark, exactly. */
struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct whole);
} WHOLE SEC(".maps");

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct place);
} PLACES SEC(".maps");

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1);
	TYPE(key, struct place);
	TYPE(value, struct receiver);
} RECEIVERS SEC(".maps");

struct {
	UINT(type, MAP_DEVMAP);
	UINT(max_entries, 128);
	UINT(key_size, 4);
	UINT(value_size, 4);
} DEVICES SEC(".maps");

/* EIPs whose receivers are on other hosts: `port` is an index in HOSTS. */
struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct whole);
} FAR SEC(".maps");

/* Addresses of the VPC whose receivers are on other hosts: an index in HOSTS. */
struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1);
	TYPE(key, struct place);
	TYPE(value, u32);
} FAR_RECEIVERS SEC(".maps");

/* A host: the headers of what goes there, ready but for the lengths, which are 0, and the source port. */
struct host {
	struct outer outer;
	u8 unused[2];
};

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 64);
	TYPE(key, u32);
	TYPE(value, struct host);
} HOSTS SEC(".maps");

struct headers {
	struct ethernet ethernet;
	struct ipv4 ip;
	struct udp udp;
} __attribute__((packed));

SEC("xdp.frags")
int xdp_empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("classifier")
int tc_empty(struct __sk_buff *ctx)
{
	return TC_ACT_UNSPEC;
}

SEC("xdp.frags")
int xdp_redirect(struct xdp_md *ctx)
{
	return redirect_map(&DEVICES, 1, XDP_DROP);
}

/* To its own interface: the verdict's cost is the same whichever it names. */
SEC("classifier")
int tc_redirect(struct __sk_buff *ctx)
{
	return redirect(ctx->ifindex, 0);
}

/* A header without options, a UDP datagram, whole or a first fragment, and time to live. */
INLINE struct headers *parse(struct xdp_md *ctx)
{
	void *end = (void *)(u64)ctx->data_end;
	struct headers *headers = (void *)(u64)ctx->data;

	if ((void *)(headers + 1) > end)
		return NULL;
	if (headers->ethernet.type != swap16(0x0800) || headers->ip.version_length != 0x45)
		return NULL;
	if (headers->ip.protocol != 17 || headers->ip.fragment & swap16(0x1fff))
		return NULL;
	if (headers->ip.ttl <= 1)
		return NULL;
	return headers;
}

/* Changes the destination, mends both checksums (RFC 1624), takes one from the time to live. */
INLINE void translate(struct headers *headers, u32 inner, const u8 *mac, const u8 *gateway_mac)
{
	u32 eip = headers->ip.destination;
	u32 sum = (~eip & 0xffff) + (~eip >> 16) + (inner & 0xffff) + (inner >> 16);

	if (headers->udp.checksum) {
		u16 checksum = ~fold((u16)~headers->udp.checksum + sum);

		headers->udp.checksum = checksum ? checksum : 0xffff;
	}
	/* The word of time to live and protocol is less by 0x0100 in network order: 0x0001 as stored. */
	headers->ip.checksum = ~fold((u16)~headers->ip.checksum + sum + (u16)~1);
	headers->ip.ttl--;
	headers->ip.destination = inner;
	__builtin_memcpy(headers->ethernet.destination, mac, 6);
	__builtin_memcpy(headers->ethernet.source, gateway_mac, 6);
}

SEC("xdp.frags")
int one_hash(struct xdp_md *ctx)
{
	struct headers *headers = parse(ctx);
	struct whole *whole;
	u32 eip;

	if (!headers)
		return XDP_PASS;
	eip = headers->ip.destination;
	whole = map_lookup(&WHOLE, &eip);
	if (!whole)
		return XDP_PASS;
	translate(headers, whole->inner, whole->mac, whole->gateway_mac);
	return redirect_map(&DEVICES, whole->port, XDP_DROP);
}

SEC("xdp.frags")
int two_hashes(struct xdp_md *ctx)
{
	struct headers *headers = parse(ctx);
	struct receiver *receiver;
	struct place *place, key;
	u32 eip;

	if (!headers)
		return XDP_PASS;
	eip = headers->ip.destination;
	place = map_lookup(&PLACES, &eip);
	if (!place)
		return XDP_PASS;
	key = *place;
	receiver = map_lookup(&RECEIVERS, &key);
	if (!receiver)
		return XDP_PASS;
	translate(headers, key.inner, receiver->mac, receiver->gateway_mac);
	return redirect_map(&DEVICES, receiver->port, XDP_DROP);
}

/* The VPC that the guest under test is in: a program has it from its interface. */
#define GUEST_VNI 4001

/* Of the dynamic range (RFC 7348, section 5), the same for all packets of a flow. */
INLINE u16 source_port(struct headers *headers)
{
	u32 ports = (u32)headers->udp.source << 16 | headers->udp.destination;
	u32 hash = headers->ip.source ^ (headers->ip.destination << 16 | headers->ip.destination >> 16) ^ ports;

	return swap16(49152 | (hash * 0x9e3779b1) >> 18);
}

/* The headers of a frame of so many bytes. */
INLINE void put_outer(struct outer *outer, const struct host *host, u32 length, u16 port)
{
	u16 total = swap16(length + sizeof(*outer) - sizeof(struct ethernet));

	*outer = host->outer;
	outer->ip.total_length = total;
	outer->ip.checksum = ~fold((u16)~outer->ip.checksum + total);
	outer->udp.source = port;
	outer->udp.length = swap16(length + sizeof(struct udp) + sizeof(struct vxlan));
}

/* To an EIP whose receiver is on another host: translated, and into VXLAN. */
SEC("xdp.frags")
int far_eip(struct xdp_md *ctx)
{
	struct headers *headers = parse(ctx);
	u32 length = (void *)(u64)ctx->data_end - (void *)(u64)ctx->data;
	struct outer *outer;
	struct whole *whole;
	struct host *host;
	u16 port;
	u32 eip;

	if (!headers)
		return XDP_PASS;
	eip = headers->ip.destination;
	whole = map_lookup(&FAR, &eip);
	if (!whole)
		return XDP_PASS;
	host = map_lookup(&HOSTS, &whole->port);
	if (!host)
		return XDP_DROP;
	translate(headers, whole->inner, whole->mac, whole->gateway_mac);
	port = source_port(headers);
	if (adjust_head(ctx, -(int)sizeof(*outer)))
		return XDP_DROP;
	outer = (void *)(u64)ctx->data;
	if ((void *)(outer + 1) > (void *)(u64)ctx->data_end)
		return XDP_DROP;
	put_outer(outer, host, length, port);
	return XDP_TX;
}

struct tunnelled {
	struct outer outer;
	struct headers inner;
} __attribute__((packed));

/* VXLAN with a datagram inside. */
INLINE struct tunnelled *parse_tunnelled(struct xdp_md *ctx)
{
	void *end = (void *)(u64)ctx->data_end;
	struct tunnelled *frame = (void *)(u64)ctx->data;

	if ((void *)(frame + 1) > end)
		return NULL;
	if (frame->outer.ethernet.type != swap16(0x0800) || frame->outer.ip.version_length != 0x45)
		return NULL;
	if (frame->outer.ip.protocol != 17 || frame->outer.udp.destination != swap16(VXLAN_PORT))
		return NULL;
	if (frame->inner.ethernet.type != swap16(0x0800))
		return NULL;
	return frame;
}

/* VXLAN to a receiver here: unpacked. */
SEC("xdp.frags")
int from_far(struct xdp_md *ctx)
{
	struct tunnelled *frame = parse_tunnelled(ctx);
	struct receiver *receiver;
	struct ethernet *ethernet;
	struct place key;

	if (!frame)
		return XDP_PASS;
	key.vni = swap32(frame->outer.vxlan.vni) >> 8;
	key.inner = frame->inner.ip.destination;
	receiver = map_lookup(&RECEIVERS, &key);
	if (!receiver)
		return XDP_DROP;
	if (adjust_head(ctx, sizeof(struct outer)))
		return XDP_DROP;
	ethernet = (void *)(u64)ctx->data;
	if ((void *)(ethernet + 1) > (void *)(u64)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(ethernet->destination, receiver->mac, 6);
	return redirect_map(&DEVICES, receiver->port, XDP_DROP);
}

/* VXLAN to a receiver that has moved on: to its host, marked by the range of its source port. */
SEC("xdp.frags")
int onward(struct xdp_md *ctx)
{
	struct tunnelled *frame = parse_tunnelled(ctx);
	struct place key;
	struct host *host;
	u16 port;
	u32 *index;

	if (!frame)
		return XDP_PASS;
	port = swap16(frame->outer.udp.source);
	if (port >> 14 == 1)
		return XDP_DROP;
	key.vni = swap32(frame->outer.vxlan.vni) >> 8;
	key.inner = frame->inner.ip.destination;
	index = map_lookup(&FAR_RECEIVERS, &key);
	if (!index)
		return XDP_DROP;
	host = map_lookup(&HOSTS, index);
	if (!host)
		return XDP_DROP;
	put_outer(&frame->outer, host, swap16(frame->outer.ip.total_length) + sizeof(struct ethernet) - sizeof(struct outer),
		  swap16((port & 0x3fff) | 0x4000));
	return XDP_TX;
}

/* A guest's frame to a receiver on another host: into VXLAN. */
SEC("classifier")
int tc_to_far(struct __sk_buff *ctx)
{
	struct headers *headers = (void *)(u64)ctx->data;
	struct place key = { .vni = GUEST_VNI };
	u32 length = ctx->len;
	struct tunnelled *frame;
	struct ethernet inner;
	struct host *host;
	u32 *index;
	u16 port;

	if ((void *)(headers + 1) > (void *)(u64)ctx->data_end)
		return TC_ACT_UNSPEC;
	if (headers->ethernet.type != swap16(0x0800) || headers->ip.version_length != 0x45 || headers->ip.protocol != 17)
		return TC_ACT_UNSPEC;
	key.inner = headers->ip.destination;
	index = map_lookup(&FAR_RECEIVERS, &key);
	if (!index)
		return TC_ACT_UNSPEC;
	host = map_lookup(&HOSTS, index);
	if (!host)
		return TC_ACT_SHOT;
	port = source_port(headers);
	inner = headers->ethernet;
	if (adjust_room(ctx, sizeof(struct outer), ADJ_ROOM_MAC, ADJ_ROOM_VXLAN))
		return TC_ACT_SHOT;
	frame = (void *)(u64)ctx->data;
	if ((void *)(frame + 1) > (void *)(u64)ctx->data_end)
		return TC_ACT_SHOT;
	/* The room is behind the Ethernet header, which the headers' own takes the place of. */
	frame->inner.ethernet = inner;
	put_outer(&frame->outer, host, length, port);
	return redirect(ctx->ifindex, 0);
}

/* What the sink saw. */
struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, 4);
	TYPE(key, u32);
	TYPE(value, u64);
} SEEN SEC(".maps");

enum seen {
	/* A good header, to an inner address, one hop older. */
	ROUTED,
	/* A good header, not changed on the way. */
	UNCHANGED,
	/* A packet of the benchmark with a wrong header checksum, or changed in another way. */
	WRONG,
	/* Not of the benchmark: whatever a kernel says by itself. */
	FOREIGN,
};

#define FIRST_TTL 64

INLINE enum seen classify(struct headers *headers)
{
	const u16 *word = (const u16 *)&headers->ip;
	u32 destination, sum = 0;

	if (headers->ethernet.type != swap16(0x0800) || headers->ip.version_length != 0x45 ||
	    headers->ip.protocol != 17)
		return FOREIGN;
#pragma unroll
	for (int n = 0; n < 10; n++)
		sum += word[n];
	if (fold(sum) != 0xffff)
		return WRONG;
	destination = swap32(headers->ip.destination) >> 24;
	if (destination == 10 && headers->ip.ttl == FIRST_TTL - 1)
		return ROUTED;
	if (destination == 100 && headers->ip.ttl == FIRST_TTL)
		return UNCHANGED;
	return WRONG;
}

/* The end of the way: looks at each frame, counts it, drops it. */
SEC("xdp.frags")
int sink(struct xdp_md *ctx)
{
	void *end = (void *)(u64)ctx->data_end;
	struct headers *headers = (void *)(u64)ctx->data;
	u32 seen = FOREIGN;
	u64 *count;

	if ((void *)(headers + 1) <= end)
		seen = classify(headers);
	count = map_lookup(&SEEN, &seen);
	if (count)
		*count += 1;
	return XDP_DROP;
}
