//! The world `verifier` of pipeline:plugin 0.1.0 for Zig. The structs have the layout of the canonical ABI on wasm32: what the
//! host wrote is read in place. Nothing need be freed: an instance lives for one call.
const std = @import("std");

pub const allocator = std.heap.wasm_allocator;

/// A list as the canonical ABI has it.
pub fn List(comptime T: type) type {
    return extern struct {
        ptr: [*]const T = undefined,
        len: usize = 0,

        pub fn items(self: @This()) []const T {
            return self.ptr[0..self.len];
        }
        pub fn of(list: []const T) @This() {
            return .{ .ptr = list.ptr, .len = list.len };
        }
    };
}

/// UTF-8.
pub const String = List(u8);

pub const Option = extern struct {
    is_some: bool = false,
    value: String = .{},

    pub fn get(self: Option) ?[]const u8 {
        return if (self.is_some) self.value.items() else null;
    }
};

pub fn some(text: []const u8) Option {
    return .{ .is_some = true, .value = String.of(text) };
}

pub const Message = extern struct { role: String, content: String };
pub const Field = extern struct { name: String, value: String };
pub const Metric = extern struct { name: String, value: f64 };
pub const Finish = enum(u8) { stop, length, aborted };
pub const Completion = extern struct { id: u64, text: String, tokens: u32, finish: Finish };
pub const Context = extern struct { step: u64, seed: u64, max_tokens: u32, evaluating: bool };

/// A prompt and its completions. What is no string among the fields is JSON.
pub const Group = extern struct {
    prompt_id: u64,
    source: String,
    prompt: List(Message),
    reference: Option,
    fields: List(Field),
    completions: List(Completion),
};

/// 1 is fully right, 0 is wrong. `answer` is the extracted answer, `note` is for whoever looks at the verdict.
pub const Finding = extern struct {
    score: f64,
    answer: Option = .{},
    metrics: List(Metric) = .{},
    note: Option = .{},
};

pub const Verdict = extern struct {
    kind: enum(u8) { decided, undecided, not_applicable },
    as: extern union { finding: Finding, reason: String, nothing: u8 },
};

pub fn decided(finding: Finding) Verdict {
    return .{ .kind = .decided, .as = .{ .finding = finding } };
}
pub fn undecided(reason: []const u8) Verdict {
    return .{ .kind = .undecided, .as = .{ .reason = String.of(reason) } };
}
pub fn notApplicable() Verdict {
    return .{ .kind = .not_applicable, .as = .{ .nothing = 0 } };
}

pub fn concat(parts: []const []const u8) ![]const u8 {
    return std.mem.concat(allocator, u8, parts);
}

/// Without white space at both ends.
pub fn trim(text: []const u8) []const u8 {
    return std.mem.trim(u8, text, &std.ascii.whitespace);
}

extern "pipeline:plugin/log@0.1.0" fn emit(level: u32, message: [*]const u8, len: usize) void;

pub const Level = enum(u32) { debug, info, warn };
pub fn log(level: Level, message: []const u8) void {
    emit(@intFromEnum(level), message.ptr, message.len);
}

const AssetResult = extern struct { is_error: bool, value: String };
extern "pipeline:plugin/assets@0.1.0" fn read(name: [*]const u8, len: usize, offset: u64, length: u32, result: *AssetResult) void;

/// At most `length` bytes of a granted asset from `offset` on, fewer at its end.
pub fn readAsset(name: []const u8, offset: u64, length: u32) error{NotGranted}![]const u8 {
    var result: AssetResult = undefined;
    read(name.ptr, name.len, offset, length, &result);
    return if (result.is_error) error.NotGranted else result.value.items();
}

/// What a panic says becomes the reason why the completion is undecided.
pub const panic = std.debug.FullPanic(struct {
    fn panic(message: []const u8, _: ?usize) noreturn {
        log(.warn, message);
        @trap();
    }
}.panic);

fn realloc(old: ?[*]u8, old_size: usize, alignment: usize, size: usize) callconv(.c) [*]u8 {
    if (size == 0) return @ptrFromInt(alignment);
    // No record needs more than 8.
    const memory = allocator.alignedAlloc(u8, .@"8", size) catch @trap();
    if (old) |bytes| @memcpy(memory[0..old_size], bytes[0..old_size]);
    return memory.ptr;
}

/// Makes a plugin of `Plugin`: its `schema`, its `Config`, and its function
/// `verify(Config, *const Context, *const Group, *const Completion) !Verdict`.
pub fn verifier(comptime Plugin: type) void {
    const glue = struct {
        var config: Plugin.Config = undefined;

        fn schema() callconv(.c) *const String {
            const static = struct {
                const text = String.of(Plugin.schema);
            };
            return &static.text;
        }

        const Refusal = extern struct { path: String, message: String };
        fn configure(json: [*]const u8, len: usize) callconv(.c) *const anyopaque {
            const static = struct {
                var refusal: Refusal = undefined;
                var result: extern struct { is_error: bool, refusals: List(Refusal) } = .{ .is_error = false, .refusals = .{} };
            };
            config = std.json.parseFromSliceLeaky(Plugin.Config, allocator, json[0..len], .{}) catch |err| {
                static.refusal = .{ .path = String.of(""), .message = String.of(@errorName(err)) };
                static.result = .{ .is_error = true, .refusals = List(Refusal).of((&static.refusal)[0..1]) };
                return &static.result;
            };
            return &static.result;
        }

        // 16 flat parameters: the context's four and the group's twelve.
        fn verify(
            step: u64,
            seed: u64,
            max_tokens: u32,
            evaluating: u32,
            prompt_id: u64,
            source: [*]const u8,
            source_len: usize,
            prompt: [*]const Message,
            prompt_len: usize,
            has_reference: u32,
            reference: [*]const u8,
            reference_len: usize,
            fields: [*]const Field,
            fields_len: usize,
            completions: [*]const Completion,
            completions_len: usize,
        ) callconv(.c) *const anyopaque {
            const static = struct {
                var result: extern struct { is_error: bool, verdicts: List(Verdict) } = .{ .is_error = false, .verdicts = .{} };
            };
            const context: Context = .{ .step = step, .seed = seed, .max_tokens = max_tokens, .evaluating = evaluating != 0 };
            const group: Group = .{
                .prompt_id = prompt_id,
                .source = .{ .ptr = source, .len = source_len },
                .prompt = .{ .ptr = prompt, .len = prompt_len },
                .reference = .{ .is_some = has_reference != 0, .value = .{ .ptr = reference, .len = reference_len } },
                .fields = .{ .ptr = fields, .len = fields_len },
                .completions = .{ .ptr = completions, .len = completions_len },
            };
            const verdicts = allocator.alloc(Verdict, completions_len) catch @trap();
            for (group.completions.items(), verdicts) |*completion, *verdict| {
                verdict.* = Plugin.verify(config, &context, &group, completion) catch |err| undecided(@errorName(err));
            }
            static.result.verdicts = List(Verdict).of(verdicts);
            return &static.result;
        }
    };
    @export(&realloc, .{ .name = "cabi_realloc" });
    @export(&glue.schema, .{ .name = "pipeline:plugin/config@0.1.0#schema" });
    @export(&glue.configure, .{ .name = "pipeline:plugin/config@0.1.0#configure" });
    @export(&glue.verify, .{ .name = "pipeline:plugin/verify@0.1.0#verify" });
}
