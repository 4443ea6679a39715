// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/pattern.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <span>
#include <string>

namespace {

using ncat::Pattern;

/// What `yes $(echo -e \\x01...) | tr \\n \\0 | head -c` writes.
std::string yes(unsigned period, std::size_t bytes)
{
    std::string line;
    for (unsigned i = 1; i < period; ++i)
        line += static_cast<char>(i);
    line += '\0';
    std::string text;
    while (text.size() < bytes)
        text += line;
    text.resize(bytes);
    return text;
}

std::vector<Pattern::Mismatch> check(Pattern& pattern, const std::string& text)
{
    return pattern.check(std::as_bytes(std::span(text)));
}

TEST(Pattern, AcceptsWhatYesWritesHoweverItIsCut)
{
    std::mt19937 random(7);
    for (const unsigned period : {2u, 3u, 7u, 255u, 256u}) {
        const std::string text = yes(period, 300'000);
        Pattern pattern(period);
        for (std::size_t at = 0; at < text.size();) {
            const std::size_t size = std::min<std::size_t>(text.size() - at, random() % 20'000);
            EXPECT_TRUE(check(pattern, text.substr(at, size)).empty());
            at += size;
        }
        EXPECT_EQ(pattern.errors(), 0u) << period;
    }
}

TEST(Pattern, NamesTheByteThatIsWrong)
{
    std::string text = yes(7, 100'000);
    text[77'777] = 'x';
    Pattern pattern(7);
    EXPECT_TRUE(check(pattern, text.substr(0, 70'000)).empty());
    const auto wrong = check(pattern, text.substr(70'000));
    ASSERT_EQ(wrong.size(), 1u);
    EXPECT_EQ(wrong[0].offset, 77'777u);
    EXPECT_EQ(wrong[0].got, std::byte{'x'});
    EXPECT_EQ(wrong[0].expected, std::byte{77'778 % 7});
}

TEST(Pattern, ALostByteShowsAndStopsAfterTwenty)
{
    std::string text = yes(7, 50'000);
    text.erase(25'000, 1);
    Pattern pattern(7);
    const auto wrong = check(pattern, text);
    EXPECT_EQ(wrong.size(), 20u);
    EXPECT_EQ(wrong[0].offset, 25'000u);
    EXPECT_EQ(pattern.errors(), Pattern::kMaxErrors);
    EXPECT_TRUE(check(pattern, text).empty());
}

} // namespace
