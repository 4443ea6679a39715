// SPDX-License-Identifier: BSD-3-Clause
#include "test/unit/wire/frames.h"
#include "test/unit/wire/guarded.h"
#include "test/unit/wire/model.h"

#include <gtest/gtest.h>

#include <random>

namespace devmem::wire {
namespace {

// The example of RFC 1071 3: words 0001 f203 f4f5 f6f7 sum to ddf2.
TEST(Checksum, ExampleOfRfc1071)
{
    const std::uint8_t bytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    EXPECT_EQ(checksum_fold(checksum_add(0, bytes)), static_cast<std::uint16_t>(~0xddf2));
}

TEST(Checksum, EveryLengthAndAlignmentAgreesWithTheModel)
{
    std::mt19937 random(1);
    Guarded guarded(256);
    for (std::size_t length = 0; length <= 130; ++length) {
        std::vector<std::uint8_t> bytes(length);
        for (auto& byte : bytes)
            byte = static_cast<std::uint8_t>(random());
        const auto view = guarded.copy(bytes);
        EXPECT_EQ(checksum_fold(checksum_add(0, view)),
                  static_cast<std::uint16_t>(~model::ones_complement_sum(bytes)))
            << length;
    }
}

// All ones is the largest sum there is: 64 KiB of it, many times over, must not overflow.
TEST(Checksum, LargestSumsDoNotOverflow)
{
    const std::vector<std::uint8_t> ones(65535 + 1, 0xff);
    std::uint32_t sum = 0;
    for (int i = 0; i < 1000; ++i)
        sum = checksum_add(sum, ones);
    EXPECT_EQ(checksum_fold(sum), 0);
    EXPECT_EQ(checksum_fold(0xffffffff), 0);
    EXPECT_EQ(checksum_fold(0), 0xffff);
}

TEST(Checksum, PartsAddUpAtEvenBoundaries)
{
    std::mt19937 random(2);
    std::vector<std::uint8_t> bytes(101);
    for (auto& byte : bytes)
        byte = static_cast<std::uint8_t>(random());
    const std::span<const std::uint8_t> all = bytes;
    for (std::size_t cut = 0; cut <= bytes.size(); cut += 2)
        EXPECT_EQ(checksum_fold(checksum_add(checksum_add(0, all.first(cut)), all.subspan(cut))),
                  static_cast<std::uint16_t>(~model::ones_complement_sum(bytes)));
}

// The TCP checksums of the hand-made frames, worked out elsewhere, check the pseudo header.
TEST(Checksum, PseudoHeaderMakesTheSampleFramesGood)
{
    for (const auto& sample : frames::kSamples) {
        if (sample.kind != Kind::kTcp)
            continue;
        SCOPED_TRACE(sample.name);
        Packet packet;
        ASSERT_EQ(parse(sample.bytes, static_cast<std::uint32_t>(sample.bytes.size()), &packet),
                  Verdict::kOk);
        const auto segment = std::span(sample.bytes).subspan(packet.l4_offset, packet.l4_bytes);
        EXPECT_EQ(model::l4_sum(packet.src, packet.dst, 6, segment), 0xffff);
        EXPECT_EQ(checksum_fold(checksum_add(
                      checksum_pseudo(packet.src, packet.dst, 6, packet.l4_bytes), segment)),
                  0);
    }
}

// An IPv6 length above 16 bits counts with both halves.
TEST(Checksum, PseudoHeaderTakesAnUpperLengthHalf)
{
    EXPECT_EQ(checksum_fold(checksum_pseudo(Ip{6, {}}, Ip{6, {}}, 6, 0x00021000)),
              static_cast<std::uint16_t>(~(0x0002 + 0x1000 + 6)));
}

} // namespace
} // namespace devmem::wire
