#include "server/inference/raw_tensor.h"

#include <bit>
#include <cstring>

#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"

static_assert(std::endian::native == std::endian::little,
              "elements are copied as they lie in the message");

namespace ess::inference {
namespace {

constexpr size_t kLengthBytes = 4;     // Before each element of BYTES.
constexpr size_t kMostSizesShown = 8;  // Of a shape, in messages.

template <typename Element>
std::vector<int64_t> CopyIntegers(int64_t count, std::string_view raw) {
  std::vector<int64_t> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    Element element;  // The message may put it at any alignment.
    std::memcpy(&element, raw.data() + i * sizeof(Element), sizeof(Element));
    values[i] = element;
  }
  return values;
}

}  // namespace

absl::StatusOr<int64_t> ElementCount(const std::string& tensor, std::span<const int64_t> shape) {
  int64_t count = 1;
  bool too_many = false;
  for (const int64_t size : shape) {
    if (size < 0) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the shape {} has a negative size", tensor, ShapeText(shape)));
    }
    too_many |= __builtin_mul_overflow(count, size, &count);
  }
  if (too_many) {
    return absl::InvalidArgumentError(
        fmt::format("{}: the shape {} has more than 2^63 elements", tensor, ShapeText(shape)));
  }
  return count;
}

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size() && i < kMostSizesShown; ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : ", ", shape[i]);
  }
  if (shape.size() > kMostSizesShown) text += fmt::format(", ... {} sizes", shape.size());
  return text + "]";
}

absl::StatusOr<std::vector<int64_t>> ReadIntegers(const std::string& tensor,
                                                  std::string_view datatype, int64_t count,
                                                  std::string_view raw) {
  if (datatype != "INT32" && datatype != "INT64") {
    return absl::InvalidArgumentError(
        fmt::format("{}: the datatype is '{}'; INT32 or INT64 is expected", tensor,
                    CutText(std::string(datatype), 16)));
  }
  const int64_t element_bytes = datatype == "INT32" ? 4 : 8;
  int64_t expected = 0;
  const bool too_many = __builtin_mul_overflow(count, element_bytes, &expected);
  if (too_many || static_cast<uint64_t>(expected) != raw.size()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} bytes of raw contents; {} elements of {} take {}", tensor, raw.size(),
                    count, datatype, too_many ? "more than 2^63" : std::to_string(expected)));
  }
  return element_bytes == 4 ? CopyIntegers<int32_t>(count, raw) : CopyIntegers<int64_t>(count, raw);
}

absl::StatusOr<std::vector<std::string_view>> ReadBytes(const std::string& tensor, int64_t count,
                                                        std::string_view raw) {
  if (count < 0 || static_cast<uint64_t>(count) > raw.size() / kLengthBytes) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} bytes of raw contents; {} elements of BYTES take at least 4 each",
                    tensor, raw.size(), count));
  }
  std::vector<std::string_view> elements;
  elements.reserve(static_cast<size_t>(count));
  while (elements.size() < static_cast<size_t>(count)) {
    if (raw.size() < kLengthBytes) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the raw contents end after {} elements of BYTES; the shape has {}",
                      tensor, elements.size(), count));
    }
    uint32_t length = 0;
    std::memcpy(&length, raw.data(), sizeof(length));
    raw.remove_prefix(kLengthBytes);
    if (length > raw.size()) {
      return absl::InvalidArgumentError(
          fmt::format("{}: element {} says that it has {} bytes; {} are left of the raw contents",
                      tensor, elements.size(), length, raw.size()));
    }
    elements.push_back(raw.substr(0, length));
    raw.remove_prefix(length);
  }
  if (!raw.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {} bytes of raw contents are left after {} elements of BYTES", tensor,
                    raw.size(), count));
  }
  return elements;
}

std::string PackBytes(std::span<const std::string> elements) {
  std::string packed;
  for (const std::string& element : elements) {
    const auto length = static_cast<uint32_t>(element.size());
    packed.append(reinterpret_cast<const char*>(&length), sizeof(length));
    packed.append(element);
  }
  return packed;
}

std::string PackIntegers(std::span<const int32_t> elements) {
  return {reinterpret_cast<const char*>(elements.data()), elements.size() * sizeof(int32_t)};
}

}  // namespace ess::inference
