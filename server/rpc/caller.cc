#include "server/rpc/caller.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxClientId = 64;

}  // namespace

std::string CallerOf(const grpc::CallbackServerContext& call, const std::string& subject) {
  if (!subject.empty()) return "subject:" + subject;
  const auto id = call.client_metadata().find(kClientIdMetadata);
  if (id != call.client_metadata().end() && !id->second.empty()) {
    return "client:" + std::string(id->second.data(), std::min(id->second.size(), kMaxClientId));
  }
  return PeerWithoutPort(call.peer());
}

std::string PeerWithoutPort(std::string_view peer) {
  if (peer.starts_with("ipv4:") || peer.starts_with("ipv6:")) {
    return std::string(peer.substr(0, peer.rfind(':')));
  }
  return std::string(peer);
}

}  // namespace ess::rpc
