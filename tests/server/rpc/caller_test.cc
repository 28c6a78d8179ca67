#include "server/rpc/caller.h"

#include "gtest/gtest.h"

namespace ess::rpc {
namespace {

TEST(CallerTest, ConnectionsOfOneAddressAreOneCaller) {
  EXPECT_EQ(PeerWithoutPort("ipv4:10.0.0.1:4711"), "ipv4:10.0.0.1");
  EXPECT_EQ(PeerWithoutPort("ipv6:%5B::1%5D:4711"), "ipv6:%5B::1%5D");
}

TEST(CallerTest, AnAddressWithoutAPortStaysWhole) {
  EXPECT_EQ(PeerWithoutPort("unix:/run/a:b"), "unix:/run/a:b");
}

}  // namespace
}  // namespace ess::rpc
