// SPDX-License-Identifier: BSD-3-Clause
#include "test/conformance/script.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace devmem::conformance {

namespace {

struct SyntaxError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What is left of a line.
class Cursor {
public:
    explicit Cursor(std::string_view text) : rest_(text) {}

    void skip_space()
    {
        while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_[0])))
            rest_.remove_prefix(1);
    }
    bool at_end()
    {
        skip_space();
        return rest_.empty();
    }
    std::string_view rest() const { return rest_; }

    /// The next characters are these: pass over them.
    bool take(std::string_view token)
    {
        skip_space();
        if (!rest_.starts_with(token))
            return false;
        rest_.remove_prefix(token.size());
        return true;
    }
    void expect(std::string_view token)
    {
        if (!take(token))
            throw SyntaxError("'" + std::string(token) + "' expected before '" +
                              std::string(rest_) + "'");
    }
    template <class Predicate>
    std::string_view take_while(Predicate predicate)
    {
        skip_space();
        std::size_t n = 0;
        while (n < rest_.size() && predicate(rest_[n]))
            n++;
        const std::string_view taken = rest_.substr(0, n);
        rest_.remove_prefix(n);
        return taken;
    }
    std::uint32_t number(std::uint32_t most = UINT32_MAX)
    {
        skip_space();
        std::uint32_t value = 0;
        const auto [end, status] =
            std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
        if (status != std::errc() || value > most)
            throw SyntaxError("number expected before '" + std::string(rest_) + "'");
        rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
        return value;
    }
    /// A time in seconds.
    Micros time()
    {
        skip_space();
        double value = 0;
        const auto [end, status] =
            std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
        if (status != std::errc())
            throw SyntaxError("time expected before '" + std::string(rest_) + "'");
        rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
        return std::llround(value * 1e6);
    }

private:
    std::string_view rest_;
};

When parse_when(Cursor& in)
{
    When when;
    if (in.take("*")) {
        when.any = true;
        return when;
    }
    when.relative = in.take("+");
    when.least = when.most = in.time();
    if (in.take("~")) {
        if (in.take("+") != when.relative)
            throw SyntaxError("both ends of a range are relative, or neither");
        when.most = in.time();
    }
    if (when.most < when.least)
        throw SyntaxError("the range ends before it begins");
    return when;
}

Option with_length(std::uint8_t kind, std::size_t value_bytes)
{
    Option option(2 + value_bytes);
    option[0] = kind;
    option[1] = static_cast<std::uint8_t>(option.size());
    return option;
}

Option parse_raw(Cursor& in)
{
    in.skip_space();
    const auto hex =
        in.take_while([](char c) { return std::isxdigit(static_cast<unsigned char>(c)); });
    if (hex.empty() || hex.size() % 2 != 0)
        throw SyntaxError("raw takes pairs of hexadecimal digits");
    Option option;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
        std::uint8_t byte = 0;
        std::from_chars(hex.data() + i, hex.data() + i + 2, byte, 16);
        option.push_back(byte);
    }
    return option;
}

Option parse_option(Cursor& in)
{
    if (in.take("nop"))
        return {kNop};
    if (in.take("eol"))
        return {kEol};
    if (in.take("sackOK"))
        return with_length(kSackPermitted, 0);
    if (in.take("mss")) {
        Option option = with_length(kMss, 2);
        const std::uint32_t mss = in.number(UINT16_MAX);
        option[2] = static_cast<std::uint8_t>(mss >> 8);
        option[3] = static_cast<std::uint8_t>(mss);
        return option;
    }
    if (in.take("wscale")) {
        Option option = with_length(kWindowScale, 1);
        option[2] = static_cast<std::uint8_t>(in.number(UINT8_MAX));
        return option;
    }
    if (in.take("TS val")) {
        Option option = with_length(kTimestamps, 8);
        store32(option.data() + 2, in.number());
        in.expect("ecr");
        store32(option.data() + 6, in.number());
        return option;
    }
    if (in.take("sack")) {
        Option option = with_length(kSack, 0);
        while (!in.at_end() && std::isdigit(static_cast<unsigned char>(in.rest()[0]))) {
            std::uint8_t block[8];
            store32(block, in.number());
            in.expect(":");
            store32(block + 4, in.number());
            option.insert(option.end(), block, block + 8);
        }
        option[1] = static_cast<std::uint8_t>(option.size());
        return option;
    }
    if (in.take("raw"))
        return parse_raw(in);
    throw SyntaxError("unknown option '" + std::string(in.rest()) + "'");
}

void parse_options(Cursor& in, Packet& packet)
{
    if (in.take("...")) {
        packet.any_options = true;
        in.expect(">");
        return;
    }
    std::size_t bytes = 0;
    do {
        packet.options.push_back(parse_option(in));
        bytes += packet.options.back().size();
    } while (in.take(","));
    in.expect(">");
    if (bytes % 4 != 0 || bytes > 40)
        throw SyntaxError(std::to_string(bytes) +
                          " bytes of options: a multiple of 4 up to 40 is possible (pad with nop)");
}

/// `first:last(length)`.
void parse_range(Cursor& in, Packet& packet)
{
    packet.seq = in.number();
    in.expect(":");
    const std::uint32_t end = in.number();
    in.expect("(");
    packet.len = in.number(UINT16_MAX);
    in.expect(")");
    if (end - packet.seq != packet.len)
        throw SyntaxError("the length is not the difference of the sequence numbers");
}

/// `unreachable NAME [first:last(length)]`, of what it quotes.
Packet parse_icmp(Cursor& in)
{
    Packet packet;
    in.expect("unreachable");
    packet.icmp = in.take_while([](char c) { return c != ' ' && c != '['; });
    if (!is_icmp(packet.icmp))
        throw SyntaxError("no such ICMP error: " + packet.icmp);
    in.expect("[");
    parse_range(in, packet);
    in.expect("]");
    return packet;
}

/// What is left of `[NAME]`.
std::uint8_t parse_ecn(Cursor& in)
{
    const auto name = in.take_while([](char c) { return c != ']'; });
    const auto found = std::find(kEcnNames.begin(), kEcnNames.end(), name);
    if (found == kEcnNames.end())
        throw SyntaxError("no such codepoint: " + std::string(name));
    in.expect("]");
    return static_cast<std::uint8_t>(found - kEcnNames.begin());
}

Packet parse_packet(Cursor& in)
{
    if (in.take("icmp"))
        return parse_icmp(in);
    Packet packet;
    if (in.take("["))
        packet.ecn = parse_ecn(in);
    for (const char c : in.take_while([](char each) { return each != ' '; })) {
        switch (c) {
        case 'F':
            packet.flags |= kFin;
            break;
        case 'S':
            packet.flags |= kSyn;
            break;
        case 'R':
            packet.flags |= kRst;
            break;
        case 'P':
            packet.flags |= kPsh;
            break;
        case '.':
            packet.flags |= kAck;
            break;
        case 'U':
            packet.flags |= kUrg;
            break;
        case 'E':
            packet.flags |= kEce;
            break;
        case 'W':
            packet.flags |= kCwr;
            break;
        case '-':
            break;
        default:
            throw SyntaxError(std::string("unknown flag '") + c + "'");
        }
    }
    parse_range(in, packet);
    const bool has_ack = in.take("ack");
    if (has_ack)
        packet.ack = in.number();
    if (has_ack != ((packet.flags & kAck) != 0))
        throw SyntaxError("'.' and 'ack N' go together");
    if (in.take("win"))
        packet.window = static_cast<std::uint16_t>(in.number(UINT16_MAX));
    if (in.take("urg"))
        packet.urgent = static_cast<std::uint16_t>(in.number(UINT16_MAX));
    if (in.take("<"))
        parse_options(in, packet);
    return packet;
}

/// What stands between two commas that are not inside brackets.
Call parse_call(Cursor& in)
{
    const auto is_name = [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
    };
    Call call;
    call.name = in.take_while(is_name);
    in.expect("(");
    int depth = 0;
    std::string argument;
    for (bool done = false; !done;) {
        const std::string_view rest = in.rest();
        if (rest.empty())
            throw SyntaxError("')' expected");
        const char c = rest[0];
        if (depth == 0 && (c == ',' || c == ')')) {
            if (c == ',' || !argument.empty())
                call.arguments.push_back(argument);
            argument.clear();
            done = c == ')';
        } else {
            depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
            argument += c;
        }
        in.take(std::string_view(&c, 1));
        in.skip_space();
    }
    in.expect("=");
    const bool negative = in.take("-");
    call.result = static_cast<long>(in.number());
    if (negative) {
        call.result = -call.result;
        call.error = in.take_while(is_name);
        if (in.take("(")) // packetdrill's "(strerror text)"
            in.take_while([](char each) { return each != ')'; }), in.expect(")");
    }
    return call;
}

void parse_sysctl(Cursor& in, Script& script)
{
    in.expect("sysctl");
    in.take("-q");
    const auto name = in.take_while([](char c) { return c != '='; });
    in.expect("=");
    in.take("\"");
    const auto value = in.take_while([](char c) { return c != '`' && c != '"'; });
    in.take("\"");
    in.expect("`");
    script.sysctls.emplace_back(name, value);
}

void parse_line(std::string_view line, int number, std::string& differs, Script& script)
{
    Cursor in(line);
    if (in.take("# linux:")) {
        if (in.take("not played:"))
            script.linux_not_played = in.rest();
        else
            in.skip_space(), differs = in.rest();
        return;
    }
    const std::size_t comment = line.find("//");
    in = Cursor(line.substr(0, comment));
    if (in.at_end() || in.take("#"))
        return;
    if (in.take("--tolerance_usecs=")) {
        script.tolerance = in.number();
        return;
    }
    if (in.take("--ip_version=ipv")) {
        script.family = in.number();
        return;
    }
    if (in.take("`")) {
        parse_sysctl(in, script);
        return;
    }

    Event event{};
    event.line = number;
    event.text = in.rest();
    event.text.erase(event.text.find_last_not_of(" \t") + 1);
    event.when = parse_when(in);
    if (in.take("<")) {
        event.kind = Event::Kind::kInbound;
        event.packet = parse_packet(in);
        if (event.packet.any_options)
            throw SyntaxError("<...> says nothing about what to send");
    } else if (in.take(">")) {
        event.kind = Event::Kind::kOutbound;
        event.packet = parse_packet(in);
        if (!event.packet.icmp.empty())
            throw SyntaxError("ICMP errors only come in");
    } else {
        event.kind = Event::Kind::kCall;
        event.call = parse_call(in);
    }
    if (!in.at_end())
        throw SyntaxError("'" + std::string(in.rest()) + "' is left over");
    if (event.kind != Event::Kind::kOutbound && event.when.range())
        throw SyntaxError("what the script does itself happens at one time");
    event.linux_differs = std::exchange(differs, {});
    script.events.push_back(std::move(event));
}

} // namespace

std::optional<Script> parse_script(const std::string& path, std::string* error)
{
    std::ifstream file(path);
    if (!file) {
        *error = path + ": cannot be read";
        return {};
    }
    Script script;
    script.path = path;
    std::string line, differs;
    for (int number = 1; std::getline(file, line); number++) {
        try {
            parse_line(line, number, differs, script);
        } catch (const SyntaxError& syntax) {
            *error = path + ":" + std::to_string(number) + ": " + syntax.what();
            return {};
        }
    }
    if (script.events.empty() || !differs.empty()) {
        *error = path + (script.events.empty() ? ": does nothing" : ": a '# linux:' line is last");
        return {};
    }
    return script;
}

} // namespace devmem::conformance
