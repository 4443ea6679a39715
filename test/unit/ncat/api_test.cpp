// SPDX-License-Identifier: BSD-3-Clause
// Ownership in devmem.hpp: every token and every connection goes back exactly once.
#include "test/unit/ncat/fake_stack.h"

#include <devmem/devmem.hpp>

#include <gtest/gtest.h>

#include <type_traits>

namespace {

using devmem::Token;
using devmem::TokenBatch;

static_assert(!std::is_copy_constructible_v<Token> && !std::is_copy_assignable_v<Token>);
static_assert(!std::is_copy_constructible_v<TokenBatch>);
static_assert(!std::is_copy_constructible_v<devmem::Connection>);
static_assert(!std::is_convertible_v<devmem::DeviceAddress, std::uint64_t>);

class Api : public testing::Test {
protected:
    devmem_shard shard{"opaque:size=64K"};
    devmem::Connection accept()
    {
        const devmem_conn_t id = shard.arrive();
        return {&shard, id};
    }
};

TEST_F(Api, TokenReturnsItselfOnce)
{
    devmem::Connection connection = accept();
    shard.deliver(connection.id(), "abcdef", 2);
    TokenBatch batch;
    ASSERT_EQ(*connection.receive(batch), 3u);
    EXPECT_EQ(fake_tokens_out.size(), 3u);
    {
        Token first = batch.take();
        Token moved = std::move(first);
        EXPECT_EQ(moved->offset(), 0u);
        Token second = batch.take();
        EXPECT_EQ(second->offset(), 2u);
        moved = std::move(second); // returns the first at the latest with `second`
        EXPECT_EQ(moved->offset(), 2u);
        EXPECT_EQ(batch.size(), 1u);
    }
    EXPECT_EQ(fake_tokens_out.size(), 1u);
    EXPECT_FALSE(batch.give_back());
    EXPECT_FALSE(batch.give_back()); // nothing left to return
    EXPECT_TRUE(fake_tokens_out.empty());
    EXPECT_EQ(fake_stale_returns, 0u);
}

TEST_F(Api, BatchReturnsInOneCallAndWithItsEnd)
{
    devmem::Connection connection = accept();
    shard.deliver(connection.id(), std::string(100, 'x'), 10);
    {
        TokenBatch batch(4);
        ASSERT_EQ(*connection.receive(batch), 4u);
        EXPECT_FALSE(batch.give_back());
        EXPECT_EQ(fake_return_calls, 1u);
        ASSERT_EQ(*connection.receive(batch), 4u);
        TokenBatch moved = std::move(batch);
        EXPECT_EQ(moved.size(), 4u);
        EXPECT_TRUE(batch.empty());
    }
    EXPECT_EQ(fake_return_calls, 2u);
    EXPECT_TRUE(fake_tokens_out.empty());
    EXPECT_EQ(fake_stale_returns, 0u);
}

TEST_F(Api, ReceiveAppendsAndTellsTheEndFromAnError)
{
    devmem::Connection connection = accept();
    TokenBatch batch;
    EXPECT_EQ(connection.receive(batch).error(), std::errc::resource_unavailable_try_again);
    shard.deliver(connection.id(), "abc");
    shard.deliver(connection.id(), "def");
    ASSERT_EQ(*connection.receive(batch), 2u);
    EXPECT_EQ(batch.size(), 2u);
    std::string text(3, '\0');
    EXPECT_FALSE(batch.begin()[1].read(std::as_writable_bytes(std::span(text))));
    EXPECT_EQ(text, "def");
    EXPECT_FALSE(batch.begin()->read(std::as_writable_bytes(std::span(text).first(2)), 1));
    EXPECT_EQ(text, "bcf");
    shard.connections[connection.id()].then = 0;
    EXPECT_EQ(*connection.receive(batch), 0u);
    shard.connections[connection.id()].then = -ECONNRESET;
    EXPECT_EQ(connection.receive(batch).error(), std::errc::connection_reset);
}

TEST_F(Api, AStaleReturnIsAnError)
{
    devmem::Connection connection = accept();
    shard.deliver(connection.id(), "abc");
    TokenBatch batch;
    ASSERT_TRUE(connection.receive(batch));
    fake_tokens_out.clear(); // somebody returned it behind our back
    EXPECT_EQ(batch.give_back(), std::error_code(ESTALE, std::generic_category()));
}

TEST_F(Api, ConnectionClosesOnce)
{
    devmem_conn_t first = 0, second = 0;
    {
        devmem::Connection a = accept();
        first = a.id();
        devmem::Connection b = accept();
        second = b.id();
        devmem::Connection moved = std::move(a);
        EXPECT_FALSE(b.abort());
    }
    EXPECT_TRUE(shard.connections[first].closed);
    EXPECT_FALSE(shard.connections[first].aborted);
    EXPECT_TRUE(shard.connections[second].aborted);
}

TEST_F(Api, ListenerAcceptsAndCloses)
{
    devmem::Shard view(&shard);
    {
        auto listener = view.listen(80, 1);
        ASSERT_TRUE(listener);
        EXPECT_TRUE(shard.listening);
        EXPECT_EQ(listener->accept().error(), std::errc::resource_unavailable_try_again);
        const devmem_conn_t id = shard.arrive();
        const auto accepted = listener->accept();
        ASSERT_TRUE(accepted);
        EXPECT_EQ((*accepted).id(), id);
    }
    EXPECT_FALSE(shard.listening);
}

TEST(RegionApi, SaysWhyItRefuses)
{
    std::string why;
    const auto region = devmem::Region::create("opaque:sise=1M", &why);
    EXPECT_EQ(region.error(), std::errc::invalid_argument);
    EXPECT_NE(why.find("\"sise\""), std::string::npos);
    const auto good = devmem::Region::create("host:size=64K");
    ASSERT_TRUE(good);
    EXPECT_TRUE((*good).info().readable);
    std::byte byte;
    EXPECT_FALSE((*good).read(65535, {&byte, 1}));
    EXPECT_EQ((*good).read(65536, {&byte, 1}), std::errc::result_out_of_range);
}

} // namespace
