#include "server/rpc/status_to_grpc.h"

#include <string>

namespace ess::rpc {
namespace {

constexpr size_t kMaxMessageBytes = 4096;

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  std::string message(status.message());
  if (message.size() > kMaxMessageBytes) {
    // Not inside a UTF-8 character: bytes 10xxxxxx continue one.
    size_t end = kMaxMessageBytes;
    while (end > 0 && (message[end] & 0xc0) == 0x80) --end;
    message.resize(end);
    message += " ...";
  }
  // The two enumerations have the same numbers.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message);
}

}  // namespace ess::rpc
