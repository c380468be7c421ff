const std = @import("std");
const plugin = @import("sdk/zig/pipeline_plugin.zig");

pub const schema =
    \\{ "type": "object", "additionalProperties": false, "properties": {
    \\    "tag": { "type": "string", "pattern": "^[a-z]+$", "description": "what the answer stands in; answer" } } }
;
pub const Config = struct { tag: []const u8 = "answer" };

/// Right if the last <answer>..</answer> of the completion holds the reference.
pub fn verify(config: Config, _: *const plugin.Context, group: *const plugin.Group, completion: *const plugin.Completion) !plugin.Verdict {
    const reference = group.reference.get() orelse return plugin.undecided("the prompt has no reference");
    const open = try plugin.concat(&.{ "<", config.tag, ">" });
    const close = try plugin.concat(&.{ "</", config.tag, ">" });

    const answer = between(completion.text.items(), open, close) orelse
        return plugin.decided(.{ .score = 0.0, .note = plugin.some(try plugin.concat(&.{ "there is no ", open })) });
    const wanted = plugin.trim(reference);
    if (std.mem.eql(u8, answer, wanted)) return plugin.decided(.{ .score = 1.0, .answer = plugin.some(answer) });
    const note = try plugin.concat(&.{ "expected ", wanted });
    return plugin.decided(.{ .score = 0.0, .answer = plugin.some(answer), .note = plugin.some(note) });
}

fn between(text: []const u8, open: []const u8, close: []const u8) ?[]const u8 {
    const begin = (std.mem.lastIndexOf(u8, text, open) orelse return null) + open.len;
    const end = std.mem.indexOfPos(u8, text, begin, close) orelse return null;
    return plugin.trim(text[begin..end]);
}

// What a compiled plugin needs besides.
pub const panic = plugin.panic;
comptime {
    plugin.verifier(@This());
}
