// Messages as the bytes that gRPC sends.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <span>

#include "ess/v1/profiler.pb.h"

namespace ess::rpc {

// A slice whose values are still where the engine left them.
struct SliceView {
  v1::EssSlice description;  // Without values and flags.
  std::span<const float> values;
  std::span<const uint8_t> certain;  // One flag for each value, or none.
};

grpc::ByteBuffer Encode(const v1::ProfileResponse& message);

// A v1::ProfileResponse of one EssBlock, byte for byte as protobuf writes it, without a message in
// between: each value is copied once.
grpc::ByteBuffer EncodeEssBlock(std::span<const SliceView> slices);

}  // namespace ess::rpc
