//! A sample policy for orchctl: keep one replica busy before the next, and keep batch out of a queue that fills up.
//!
//! ABI 1. The module has no imports and exports `memory`, `alloc(len) -> ptr` and `decide(ptr, len) -> i64`, which gets a
//! JSON snapshot and gives where its JSON decision lies: the address in the upper 32 bits, the length in the lower. It
//! runs in a fresh instance each time, so nothing is remembered: the same snapshot gives the same decision.

const std = @import("std");

const Candidate = struct { pool_id: []const u8, slots: u32, load: u32, is_warm: bool };
const Queue = struct { waiting: u32, capacity: u32 };
const Task = struct { priority: []const u8 };
const Snapshot = struct {
    abi: u32,
    kind: []const u8,
    task: Task,
    candidates: []const Candidate = &.{},
    queue: Queue = .{ .waiting = 0, .capacity = 1 },
};

var heap: [1 << 20]u8 = undefined;
var arena = std.heap.FixedBufferAllocator.init(&heap);

export fn alloc(len: u32) u32 {
    const room = arena.allocator().alloc(u8, len) catch return 0;
    return @intCast(@intFromPtr(room.ptr));
}

export fn decide(ptr: u32, len: u32) i64 {
    const text = @as([*]const u8, @ptrFromInt(ptr))[0..len];
    const options: std.json.ParseOptions = .{ .ignore_unknown_fields = true };
    const read = std.json.parseFromSliceLeaky;
    const snapshot = read(Snapshot, arena.allocator(), text, options) catch return give("{\"abi\":1}");
    if (std.mem.eql(u8, snapshot.kind, "place")) return place(snapshot);
    return admit(snapshot);
}

/// The fullest candidate, a warm one before all others: the rest stays empty for tasks that need a worker alone.
fn place(snapshot: Snapshot) i64 {
    var best: ?Candidate = null;
    for (snapshot.candidates) |each| {
        if (best == null or isBetter(each, best.?)) best = each;
    }
    const chosen = best orelse return give("{\"abi\":1}");
    const room = arena.allocator().alloc(u8, chosen.pool_id.len + 32) catch return give("{\"abi\":1}");
    return give(std.fmt.bufPrint(room, "{{\"abi\":1,\"pool_id\":\"{s}\"}}", .{chosen.pool_id}) catch unreachable);
}

fn isBetter(one: Candidate, other: Candidate) bool {
    if (one.is_warm != other.is_warm) return one.is_warm;
    return one.load * other.slots > other.load * one.slots;
}

/// Batch waits outside while half of the queue is taken.
fn admit(snapshot: Snapshot) i64 {
    const is_batch = std.mem.eql(u8, snapshot.task.priority, "batch");
    if (is_batch and snapshot.queue.waiting * 2 >= snapshot.queue.capacity)
        return give("{\"abi\":1,\"admit\":false,\"retry_after_ms\":2000}");
    return give("{\"abi\":1,\"admit\":true}");
}

fn give(text: []const u8) i64 {
    return (@as(i64, @intCast(@intFromPtr(text.ptr))) << 32) | @as(i64, @intCast(text.len));
}
