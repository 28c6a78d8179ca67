// Tensors as the Open Inference Protocol packs them: little-endian, row-major, without gaps, at any
// alignment; an element of BYTES is its length in four bytes and then itself.
//
// Reads what strangers send: everything is checked before anything is allocated. Knows no gRPC.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace ess::inference {

// The product of a shape's sizes; `tensor` names it in errors.
// Errors: kInvalidArgument  a negative size, or a product above int64.
absl::StatusOr<int64_t> ElementCount(const std::string& tensor, std::span<const int64_t> shape);

// "[2, -1]". A shape of many dimensions is cut.
std::string ShapeText(std::span<const int64_t> shape);

// The elements of a tensor of INT32 or INT64. `raw` must hold exactly `count` of them.
// Errors: kInvalidArgument  another datatype, or another number of bytes: names found and expected.
absl::StatusOr<std::vector<int64_t>> ReadIntegers(const std::string& tensor,
                                                  std::string_view datatype, int64_t count,
                                                  std::string_view raw);

// The elements of a tensor of BYTES, which refer to `raw`. Must be exactly `count`.
// Errors: kInvalidArgument  a length beyond the end, too few or too many elements: names the
//         element.
absl::StatusOr<std::vector<std::string_view>> ReadBytes(const std::string& tensor, int64_t count,
                                                        std::string_view raw);

// The other way.
std::string PackBytes(std::span<const std::string> elements);
std::string PackIntegers(std::span<const int32_t> elements);

}  // namespace ess::inference
