#include "server/rpc/trace_context.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace ess::rpc {
namespace {

constexpr size_t kMaxClientRequestId = 128;
// "00-" trace id "-" parent id "-" flags.
constexpr size_t kTraceIdAt = 3;
constexpr size_t kParentIdAt = 36;
constexpr size_t kFlagsAt = 53;
constexpr size_t kTraceparentSize = 55;

bool IsLowerHex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool IsId(std::string_view text) {
  return IsLowerHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

std::string_view Find(const grpc::CallbackServerContext& call, const char* key) {
  const auto entry = call.client_metadata().find(key);
  if (entry == call.client_metadata().end()) return {};
  return {entry->second.data(), entry->second.size()};
}

}  // namespace

bool IsTraceparent(std::string_view text) {
  if (text.size() < kTraceparentSize) return false;
  const std::string_view version = text.substr(0, 2);
  // A later version may append fields.
  const bool size =
      text.size() == kTraceparentSize ||
      (version != "00" && text.size() <= 2 * kTraceparentSize && text[kTraceparentSize] == '-');
  return size && IsLowerHex(version) && version != "ff" && text[kTraceIdAt - 1] == '-' &&
         text[kParentIdAt - 1] == '-' && text[kFlagsAt - 1] == '-' &&
         IsId(text.substr(kTraceIdAt, kParentIdAt - kTraceIdAt - 1)) &&
         IsId(text.substr(kParentIdAt, kFlagsAt - kParentIdAt - 1)) &&
         IsLowerHex(text.substr(kFlagsAt, kTraceparentSize - kFlagsAt));
}

TraceContext TraceContextOf(const grpc::CallbackServerContext& call) {
  TraceContext context;
  if (const std::string_view text = Find(call, "traceparent"); IsTraceparent(text)) {
    context.traceparent = text;
  }
  const std::string_view id = Find(call, "x-request-id");
  const bool visible =
      std::all_of(id.begin(), id.end(), [](unsigned char c) { return absl::ascii_isgraph(c); });
  if (visible && id.size() <= kMaxClientRequestId) context.client_request_id = id;
  return context;
}

}  // namespace ess::rpc
