/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The harness of the per-packet measurement.
 *
 * BPF_PROG_TEST_RUN with `repeat` gives a program its own output as the next packet: a program that rewrites would measure
 * its early exit from the second run on. So each run begins here: the frame is written anew, whole, with an address that was
 * chosen at random among all entries, its checksums right for it, and only then the program under test is entered, by a
 * tail call. What this costs is measured with an empty program in its place.
 *
 * Addresses are computed, not looked up: a table of them would push the measured program's own tables out of the caches.
 */
#include "bpf.h"

/* Bytes of a frame: 64 on the wire, of which the NIC keeps the last four (FCS). */
#define FRAME 60
/* Bytes that VXLAN puts before it. */
#define OUTER 50

struct state {
	/* State of the random number generator (xorshift64, Marsaglia 2003); never 0. */
	u64 random;
	/* Tail calls that did not take place: then nothing was measured. */
	u64 failed;
	/* Entry n of `count` has the number offset + step * n. */
	u32 count;
	u32 offset;
	u32 step;
	/* An entry's address, host order: first + (number * multiplier & mask). */
	u32 first;
	u32 multiplier;
	u32 mask;
	/* The next n of the programs that take all entries in turn, and the way from one to the next, prime to `count`. */
	u32 next;
	u32 stride;
	/* Sums of the IPv4 header and of the transport's pseudo-header and data, without the address, as stored 16-bit words. */
	u32 ip_sum;
	u32 transport_sum;
	/* The frame, with 0 for address and checksums. */
	u64 frame[14];
};

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct state);
} STATE SEC(".maps");

struct {
	UINT(type, MAP_PROG_ARRAY);
	UINT(max_entries, 1);
	UINT(key_size, 4);
	UINT(value_size, 4);
} UNDER_TEST SEC(".maps");

/* Where the chosen address stands. */
enum place {
	/* IPv4 destination, of a UDP datagram. */
	TO,
	/* IPv4 destination, and in the last four bytes of the Ethernet destination: a VIP by its constant MAC. */
	TO_BY_MAC,
	/* IPv4 source, of a UDP datagram. */
	FROM,
	/* ARP target. */
	ASKED,
	/* ARP sender and target: a claim. Entries in turn, not at random: one claim each. */
	CLAIMED,
	/* As TO_BY_MAC, of the frame inside VXLAN. */
	INSIDE,
};

#define ETHERNET_TAIL 2
#define IP_CHECKSUM 24
#define IP_SOURCE 26
#define IP_DESTINATION 30
#define UDP_CHECKSUM 40
#define ARP_SENDER 28
#define ARP_TARGET 38

#define FIELD(data, offset, type) (*(type *)((u8 *)(data) + (offset)))

/* Bytes before the frame that has the address, and of all. */
#define BEFORE(place) ((place) == INSIDE ? OUTER : 0)
#define LENGTH(place) (BEFORE(place) + FRAME)

INLINE u32 choose(struct state *state, enum place place)
{
	u32 number;

	if (place == CLAIMED) {
		number = state->next;
		state->next = number + state->stride;
		if (state->next >= state->count)
			state->next -= state->count;
	} else {
		u64 random = state->random;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		state->random = random;
		number = (random >> 32) * state->count >> 32;
	}
	number = state->offset + state->step * number;
	return swap32(state->first + (number * state->multiplier & state->mask));
}

/*
 * Writes the frame in words. By bytes, each wider load of the program under test would wait until all of them have left the
 * processor's store buffer, which no load from a received frame does.
 */
INLINE void copy(void *to, const u64 *from, int length)
{
#pragma unroll
	for (int word = 0; word < length / 8; word++)
		((u64 *)to)[word] = from[word];
	if (length % 8 >= 4)
		FIELD(to, length & ~7, u32) = from[length / 8];
	if (length % 4)
		FIELD(to, length & ~3, u16) = FIELD(from, length & ~3, u16);
}

/* Writes the frame; says whether there is room for it. */
INLINE int restore(void *data, void *end, struct state *state, enum place place)
{
	u32 address, sum;

	if (data + LENGTH(place) > end)
		return 0;
	address = choose(state, place);
	copy(data, state->frame, LENGTH(place));
	data += BEFORE(place);
	if (place == ASKED || place == CLAIMED) {
		if (place == CLAIMED)
			FIELD(data, ARP_SENDER, u32) = address;
		FIELD(data, ARP_TARGET, u32) = address;
		return 1;
	}
	sum = (address & 0xffff) + (address >> 16);
	FIELD(data, IP_CHECKSUM, u16) = ~fold(state->ip_sum + sum);
	FIELD(data, UDP_CHECKSUM, u16) = ~fold(state->transport_sum + sum);
	if (place == FROM)
		FIELD(data, IP_SOURCE, u32) = address;
	else
		FIELD(data, IP_DESTINATION, u32) = address;
	if (place == TO_BY_MAC || place == INSIDE)
		FIELD(data, ETHERNET_TAIL, u32) = address;
	return 1;
}

#define HARNESS(kind, name, context, place, aborted)                                      \
	SEC(kind)                                                                         \
	int name(struct context *ctx)                                                     \
	{                                                                                 \
		u32 first = 0;                                                            \
		struct state *state = map_lookup(&STATE, &first);                         \
                                                                                          \
		if (!state)                                                               \
			return aborted;                                                   \
		if (restore((void *)(u64)ctx->data, (void *)(u64)ctx->data_end, state, place)) \
			tail_call(ctx, &UNDER_TEST, 0);                                   \
		state->failed++;                                                          \
		return aborted;                                                           \
	}

/* The table of programs under test takes those only that are like the harness: here, that take frames in several buffers. */
HARNESS("xdp.frags", xdp_to, xdp_md, TO, XDP_ABORTED)
HARNESS("xdp.frags", xdp_asked, xdp_md, ASKED, XDP_ABORTED)
HARNESS("classifier", tc_to, __sk_buff, TO, TC_ACT_SHOT)
HARNESS("classifier", tc_to_by_mac, __sk_buff, TO_BY_MAC, TC_ACT_SHOT)
HARNESS("classifier", tc_from, __sk_buff, FROM, TC_ACT_SHOT)
HARNESS("classifier", tc_asked, __sk_buff, ASKED, TC_ACT_SHOT)
HARNESS("classifier", tc_claimed, __sk_buff, CLAIMED, TC_ACT_SHOT)

/*
 * For programs that put headers before the frame or take them: the next run finds its start where the last one has left it, so it
 * is moved back first, by nothing where nothing has moved, so that this costs the same for all programs.
 */
#define MOVING(name, place)                                                                                        \
	SEC("xdp.frags")                                                                                           \
	int name(struct xdp_md *ctx)                                                                               \
	{                                                                                                          \
		u32 first = 0;                                                                                     \
		struct state *state = map_lookup(&STATE, &first);                                                  \
		int length = (void *)(u64)ctx->data_end - (void *)(u64)ctx->data;                                  \
                                                                                                                   \
		if (!state)                                                                                        \
			return XDP_ABORTED;                                                                        \
		if (!adjust_head(ctx, length - LENGTH(place)) &&                                                   \
		    restore((void *)(u64)ctx->data, (void *)(u64)ctx->data_end, state, place))                     \
			tail_call(ctx, &UNDER_TEST, 0);                                                            \
		state->failed++;                                                                                   \
		return XDP_ABORTED;                                                                                \
	}

MOVING(xdp_to_far, TO)
MOVING(xdp_inside, INSIDE)

/*
 * Generators: no harness, but they make frames in the same way. Run on live frames, they send each out of the interface that
 * the frame is said to have come in by.
 */
#define GENERATOR(name, place)                                                                                \
	SEC("xdp")                                                                                            \
	int name(struct xdp_md *ctx)                                                                          \
	{                                                                                                     \
		u32 first = 0;                                                                                \
		struct state *state = map_lookup(&STATE, &first);                                             \
                                                                                                              \
		if (state && restore((void *)(u64)ctx->data, (void *)(u64)ctx->data_end, state, place))       \
			return XDP_TX;                                                                        \
		return XDP_ABORTED;                                                                           \
	}

GENERATOR(send_to, TO)
GENERATOR(send_claimed, CLAIMED)
