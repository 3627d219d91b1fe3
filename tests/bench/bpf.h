/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the benchmark's programs need of the kernel's interface, and nothing else, so that they are built with clang alone.
 * Numbers and layouts are those of linux/bpf.h and linux/pkt_cls.h, which are stable.
 */
#ifndef VIP_BENCH_BPF_H
#define VIP_BENCH_BPF_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline
#define NULL ((void *)0)

/* The BTF description of a map, as libbpf and aya read it. */
#define UINT(name, value) int (*name)[value]
#define TYPE(name, type) type *name

enum {
	MAP_HASH = 1,
	MAP_ARRAY = 2,
	MAP_PROG_ARRAY = 3,
	MAP_PERCPU_ARRAY = 6,
	MAP_DEVMAP = 14,
};

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };
/* Of adjust_room: room behind the Ethernet header, for IPv4, UDP and a whole frame of which the Ethernet header has 14 bytes. */
enum { ADJ_ROOM_MAC = 1 };
#define ADJ_ROOM_VXLAN (1ull << 0 | 1ull << 1 | 1ull << 4 | 1ull << 6 | 14ull << 56)
enum { TC_ACT_UNSPEC = -1, TC_ACT_OK = 0, TC_ACT_SHOT = 2, TC_ACT_REDIRECT = 7 };

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
	u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid;
	u32 data;
	u32 data_end;
};

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*tail_call)(void *ctx, void *map, u32 index) = (void *)12;
static long (*redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*adjust_head)(void *ctx, int bytes) = (void *)44;
static long (*adjust_room)(void *ctx, int bytes, u32 mode, u64 flags) = (void *)50;
static long (*redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

/* Only little-endian hosts are served, as by the forwarder itself. */
#define swap16(value) __builtin_bswap16(value)
#define swap32(value) __builtin_bswap32(value)

struct ethernet {
	u8 destination[6];
	u8 source[6];
	u16 type;
} __attribute__((packed));

struct ipv4 {
	u8 version_length;
	u8 tos;
	u16 total_length;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
} __attribute__((packed));

struct udp {
	u16 source;
	u16 destination;
	u16 length;
	u16 checksum;
};

struct vxlan {
	u8 flags;
	u8 reserved[3];
	/* The upper 24 bits, in network order. */
	u32 vni;
};

/* What stands before a frame between hosts (RFC 7348). */
struct outer {
	struct ethernet ethernet;
	struct ipv4 ip;
	struct udp udp;
	struct vxlan vxlan;
} __attribute__((packed));

#define VXLAN_PORT 4789

/* A sum of 16-bit words in one's complement arithmetic (RFC 1071), folded to 16 bits. */
INLINE u32 fold(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

char _license[] SEC("license") = "Dual MIT/GPL";

#endif
