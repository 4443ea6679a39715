// SPDX-License-Identifier: BSD-3-Clause
// Receive one TCP stream into memory the CPU cannot read, and count it.
//
//     receive [EAL arguments] -- tap:dm0 10.9.0.2/24 5001
//     (give dm0 the address 10.9.0.1/24 and send:  nc -N 10.9.0.2 5001 < file)
#include <devmem/devmem.hpp>

#include <rte_eal.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <optional>

namespace {

int fail(const char* what, const std::string& why)
{
    std::fprintf(stderr, "receive: %s: %s\n", what, why.c_str());
    return EXIT_FAILURE;
}

int receive(const char* port_spec, const char* address, std::uint16_t tcp_port)
{
    std::string why;
    auto region = devmem::Region::create("opaque:size=256M", &why);
    if (!region)
        return fail("region", why);
    auto port = devmem::Port::open(port_spec, 1, &why);
    if (!port)
        return fail(port_spec, why);
    auto local = devmem::parse_addr(address);
    if (!local)
        return fail(address, local.error().message());

    devmem_stack_config config{};
    config.port_id = (*port)->port_id;
    config.region = region->get();
    config.addrs = &*local;
    config.naddrs = 1;
    auto stack = devmem::Stack::create(config, &why);
    if (!stack)
        return fail("stack", why);
    devmem::Shard shard = stack->shard(0);
    auto listener = shard.listen(tcp_port, 16);
    if (!listener)
        return fail("listen", listener.error().message());

    std::optional<devmem::Connection> connection;
    devmem::TokenBatch tokens;
    std::uint64_t bytes = 0;
    std::array<devmem_event, 16> room;
    for (;;) {
        for (const devmem_event& event : shard.poll(room)) {
            if (event.type == DEVMEM_EVENT_CLOSED && event.error != 0)
                return fail("connection", devmem::to_error(event.error).message());
            if (event.type == DEVMEM_EVENT_CLOSED) {
                std::printf("%llu bytes\n", static_cast<unsigned long long>(bytes));
                return EXIT_SUCCESS;
            }
            if (event.type == DEVMEM_EVENT_ACCEPT && !connection) {
                if (auto accepted = listener->accept())
                    connection = *std::move(accepted);
            }
        }
        if (!connection)
            continue;
        const auto received = connection->receive(tokens);
        for (const devmem::TokenView& token : tokens)
            bytes += token.length(); // here a GPU would be given token.address()
        tokens.give_back();
        if (received && *received == 0)
            connection->shutdown(); // the peer is done, and so are we: CLOSED follows
    }
}

} // namespace

int main(int argc, char** argv)
{
    const int eal = rte_eal_init(argc, argv);
    if (eal < 0)
        return fail("EAL", "refused its arguments");
    if (argc - eal != 4) {
        std::fprintf(stderr, "usage: %s [EAL arguments] -- PORT ADDR/LEN TCP_PORT\n", argv[0]);
        return 2;
    }
    const int rc =
        receive(argv[eal + 1], argv[eal + 2], static_cast<std::uint16_t>(std::atoi(argv[eal + 3])));
    rte_eal_cleanup();
    return rc;
}
