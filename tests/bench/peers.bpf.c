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
