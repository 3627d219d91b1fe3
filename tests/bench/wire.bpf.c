/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A wire for frames that the other end receives as from a NIC: each in a buffer of its own with room for XDP, not as the
 * sender's socket buffer, which XDP on a veth would have to copy first.
 */
#include "bpf.h"

struct {
	UINT(type, MAP_DEVMAP);
	UINT(max_entries, 1);
	UINT(key_size, 4);
	UINT(value_size, 4);
} FAR SEC(".maps");

SEC("xdp")
int carry(struct xdp_md *ctx)
{
	return redirect_map(&FAR, 0, XDP_DROP);
}
