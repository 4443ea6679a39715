// SPDX-License-Identifier: BSD-3-Clause
#include "apps/devmem-ncat/receiver.h"
#include "test/unit/ncat/fake_stack.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <thread>
#include <unistd.h>

namespace {

using ncat::Job;
using ncat::Options;
using ncat::Receiver;

class ReceiverTest : public testing::Test {
protected:
    ReceiverTest() { options.listen = true; }

    ~ReceiverTest() override
    {
        receiver.reset();
        EXPECT_TRUE(fake_tokens_out.empty());
        EXPECT_EQ(fake_stale_returns, 0u);
        for (const auto& [id, connection] : shard.connections)
            EXPECT_TRUE(connection.closed) << id;
    }

    void start()
    {
        job = std::make_unique<Job>(options);
        receiver = std::make_unique<Receiver>(devmem::Shard(&shard), *job);
        if (options.listen) {
            ASSERT_FALSE(receiver->listen());
        }
    }
    devmem_conn_t arrive()
    {
        const devmem_conn_t conn = shard.arrive();
        receiver->poll();
        return conn;
    }
    /// The peer's FIN, after what was delivered.
    void end(devmem_conn_t conn)
    {
        shard.connections[conn].then = 0;
        shard.raise(DEVMEM_EVENT_READABLE, conn);
        receiver->poll();
    }

    devmem_shard shard{"opaque:size=1M"};
    Options options;
    std::unique_ptr<Job> job;
    std::unique_ptr<Receiver> receiver;
};

TEST_F(ReceiverTest, LeavesTheRegionOnceEnoughHasCome)
{
    options.unbind_after = 3000;
    shard.rebind_says = -ENOTSUP;
    start();
    const devmem_conn_t conn = arrive();
    shard.deliver(conn, std::string(2999, 'x'));
    receiver->poll();
    receiver->poll();
    EXPECT_EQ(shard.unbound, 0u);
    shard.deliver(conn, "x");
    receiver->poll();
    receiver->poll();
    EXPECT_EQ(shard.unbound, 1u);
    EXPECT_TRUE(job->failed) << "it was refused";
    end(conn);
    receiver->finish();
}

TEST_F(ReceiverTest, OneConnectionToItsEnd)
{
    options.hash = options.json = true;
    start();
    const devmem_conn_t conn = arrive();
    EXPECT_FALSE(shard.listening); // the only one that was wanted is here
    shard.deliver(conn, "abc", 2);
    receiver->poll();
    EXPECT_TRUE(fake_tokens_out.empty());
    end(conn);
    // Our FIN is out, but the connection is kept until the peer has it.
    EXPECT_TRUE(shard.connections[conn].shut);
    EXPECT_FALSE(shard.connections[conn].closed);
    EXPECT_FALSE(job->stop);
    shard.raise(DEVMEM_EVENT_CLOSED, conn);
    receiver->poll();
    EXPECT_TRUE(shard.connections[conn].closed);
    EXPECT_TRUE(job->stop);
    EXPECT_FALSE(job->failed);
    // SHA-256("abc"), FIPS 180-4.
    EXPECT_EQ(job->hashes,
              (std::vector<std::string>{
                  "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}));
    EXPECT_EQ(receiver->counters().bytes, 3u);
    EXPECT_EQ(receiver->counters().tokens, 2u);
    EXPECT_EQ(receiver->counters().device_bytes, 3u);
    EXPECT_EQ(receiver->counters().host_bytes, 0u);
}

TEST_F(ReceiverTest, BytesThatCameBeforeAcceptAreTaken)
{
    start();
    const devmem_conn_t conn = shard.arrive();
    shard.deliver(conn, "early");
    shard.connections[conn].then = 0;
    receiver->poll();
    EXPECT_EQ(receiver->counters().bytes, 5u);
    EXPECT_TRUE(shard.connections[conn].shut);
}

TEST_F(ReceiverTest, AResetIsAFailureAfterWhatCameBefore)
{
    start();
    const devmem_conn_t conn = arrive();
    shard.deliver(conn, "part");
    shard.connections[conn].then = -ECONNRESET;
    shard.raise(DEVMEM_EVENT_CLOSED, conn, -ECONNRESET);
    receiver->poll();
    EXPECT_EQ(receiver->counters().bytes, 4u);
    EXPECT_TRUE(job->failed);
    EXPECT_TRUE(job->stop);
}

TEST_F(ReceiverTest, AResetAfterTheEndIsNone)
{
    start();
    const devmem_conn_t conn = arrive();
    end(conn);
    shard.raise(DEVMEM_EVENT_CLOSED, conn, -ECONNRESET);
    receiver->poll();
    EXPECT_FALSE(job->failed);
    EXPECT_TRUE(job->stop);
}

TEST_F(ReceiverTest, MoreThanWantedAreTurnedAway)
{
    options.connections = 2;
    start();
    const devmem_conn_t a = shard.arrive(), b = shard.arrive(), c = shard.arrive();
    receiver->poll();
    EXPECT_FALSE(shard.connections[a].closed);
    EXPECT_FALSE(shard.connections[b].closed);
    EXPECT_TRUE(shard.connections[c].aborted);
    EXPECT_EQ(job->connections, 2u);
    end(a);
    shard.raise(DEVMEM_EVENT_CLOSED, a);
    receiver->poll();
    EXPECT_FALSE(job->stop);
    end(b);
    shard.raise(DEVMEM_EVENT_CLOSED, b);
    receiver->poll();
    EXPECT_TRUE(job->stop);
}

TEST_F(ReceiverTest, KeepListening)
{
    options.connections = Options::kNoLimit;
    options.hash = true;
    options.json = true;
    start();
    for (int i = 0; i < 3; ++i) {
        const devmem_conn_t conn = arrive();
        end(conn);
        shard.raise(DEVMEM_EVENT_CLOSED, conn);
        receiver->poll();
    }
    EXPECT_TRUE(shard.listening);
    EXPECT_FALSE(job->stop);
    EXPECT_EQ(job->hashes.size(), 3u);
    const devmem_conn_t open = arrive();
    receiver->finish(); // Ctrl-C
    EXPECT_FALSE(shard.listening);
    EXPECT_TRUE(shard.connections[open].aborted);
    EXPECT_EQ(job->hashes.size(), 4u);
    EXPECT_FALSE(job->failed);
}

TEST_F(ReceiverTest, APeerThatNeverAcknowledgesOurFinIsLeftAfterAWhile)
{
    start();
    const devmem_conn_t conn = arrive();
    end(conn);
    receiver->poll();
    EXPECT_FALSE(job->stop);
    std::this_thread::sleep_for(std::chrono::milliseconds(2100));
    receiver->poll();
    EXPECT_TRUE(shard.connections[conn].closed);
    EXPECT_TRUE(job->stop);
}

TEST_F(ReceiverTest, TwentyWrongBytesEndIt)
{
    options.pattern = 7;
    start();
    const devmem_conn_t conn = arrive();
    shard.deliver(conn, std::string("\1\2\3\4\5\6\0\1", 8), 3);
    receiver->poll();
    EXPECT_FALSE(job->failed);
    shard.deliver(conn, "\7");
    receiver->poll();
    EXPECT_TRUE(job->failed);
    EXPECT_FALSE(job->stop);
    shard.deliver(conn, std::string(100, 'x'), 10);
    receiver->poll();
    EXPECT_TRUE(job->stop);
    receiver->finish();
}

TEST_F(ReceiverTest, WritesTheStreamOut)
{
    char name[] = "/tmp/ncat_test_XXXXXX";
    ::close(mkstemp(name));
    job = std::make_unique<Job>(options);
    ASSERT_EQ(job->output.open(name), 0);
    receiver = std::make_unique<Receiver>(devmem::Shard(&shard), *job);
    ASSERT_FALSE(receiver->listen());
    const devmem_conn_t conn = arrive();
    std::string sent;
    for (int i = 0; i < 5000; ++i)
        sent += std::to_string(i * i);
    shard.deliver(conn, sent, 777);
    end(conn);
    ASSERT_EQ(job->output.close(), 0);
    std::ifstream file(name, std::ios::binary);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), sent);
    unlink(name);
    receiver->finish();
}

TEST_F(ReceiverTest, AFullDiskIsAFailure)
{
    job = std::make_unique<Job>(options);
    ASSERT_EQ(job->output.open("/dev/full"), 0);
    receiver = std::make_unique<Receiver>(devmem::Shard(&shard), *job);
    ASSERT_FALSE(receiver->listen());
    const devmem_conn_t conn = arrive();
    shard.deliver(conn, "abc", 1);
    receiver->poll();
    EXPECT_TRUE(job->failed);
    EXPECT_TRUE(job->stop);
    receiver->finish();
}

TEST_F(ReceiverTest, ASlowConsumerKeepsTokens)
{
    options.rate = 1000;
    start();
    const devmem_conn_t conn = arrive();
    shard.deliver(conn, std::string(5000, 'x'), 1000);
    receiver->poll();
    EXPECT_EQ(receiver->counters().bytes, 5000u);
    EXPECT_EQ(fake_tokens_out.size(), 4u); // the first passes, the next is due in a second
    receiver->poll();
    EXPECT_EQ(fake_tokens_out.size(), 4u);
    end(conn);
    receiver->finish();
    EXPECT_TRUE(fake_tokens_out.empty());
}

TEST_F(ReceiverTest, HoldsTheNewestBytes)
{
    options.hold = 2500;
    start();
    const devmem_conn_t conn = arrive();
    shard.deliver(conn, std::string(5000, 'x'), 1000);
    for (int round = 0; round < 3; ++round)
        receiver->poll();
    EXPECT_EQ(receiver->counters().bytes, 5000u);
    EXPECT_EQ(fake_tokens_out.size(), 2u); // a third would be more than is to be held
    end(conn);
    receiver->finish();
    EXPECT_TRUE(fake_tokens_out.empty());
}

TEST_F(ReceiverTest, SendsAsRoomComesAndClosesAfterwards)
{
    start();
    const std::string request = "GET / HTTP/1.0\r\n\r\n";
    const auto bytes = std::as_bytes(std::span(request));
    job->to_send.assign(bytes.begin(), bytes.end());
    const devmem_conn_t conn = shard.arrive();
    shard.connections[conn].send_room = 5;
    receiver->poll();
    EXPECT_EQ(shard.connections[conn].sent, request.substr(0, 5));
    end(conn);
    EXPECT_FALSE(shard.connections[conn].shut); // there is something to say yet
    shard.connections[conn].send_room = 1000;
    shard.raise(DEVMEM_EVENT_WRITABLE, conn);
    receiver->poll();
    EXPECT_EQ(shard.connections[conn].sent, request);
    EXPECT_TRUE(shard.connections[conn].shut);
    receiver->finish();
}

TEST_F(ReceiverTest, ConnectsAndReportsARefusal)
{
    options.listen = false;
    start();
    devmem_endpoint remote{};
    EXPECT_EQ(receiver->connect(remote), std::errc::invalid_argument);
    remote.port = 80;
    options.source.port = 4321;
    ASSERT_FALSE(receiver->connect(remote));
    EXPECT_EQ(shard.from.port, 4321);
    testing::internal::CaptureStderr();
    shard.raise(DEVMEM_EVENT_RETRYING, 1);
    shard.raise(DEVMEM_EVENT_RETRYING, 1, -EHOSTUNREACH);
    receiver->poll();
    EXPECT_EQ(testing::internal::GetCapturedStderr(),
              "devmem-ncat: 0.0.0.0:80: no answer, trying on\n"
              "devmem-ncat: 0.0.0.0:80: no answer, trying on: No route to host\n");
    EXPECT_FALSE(job->failed);
    shard.connections[1].then = -ECONNREFUSED;
    shard.raise(DEVMEM_EVENT_CLOSED, 1, -ECONNREFUSED);
    receiver->poll();
    EXPECT_TRUE(job->failed);
    EXPECT_TRUE(job->stop);
}

} // namespace
