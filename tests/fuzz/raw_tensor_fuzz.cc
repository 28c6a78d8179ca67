// Raw tensors of the Open Inference Protocol. The first byte chooses the reader; then the number of
// sizes, the sizes, and the raw contents.
#include <cstring>

#include "server/inference/raw_tensor.h"
#include "tests/fuzz/fuzz_target.h"

namespace ess::fuzz {
namespace {

constexpr size_t kMostSizes = 4;

std::string Input(char reader, const std::vector<int64_t>& shape, const std::string& raw) {
  std::string input = {reader, static_cast<char>(shape.size())};
  input.append(reinterpret_cast<const char*>(shape.data()), shape.size() * sizeof(int64_t));
  return input + raw;
}

absl::Status ReadTensor(std::string_view input) {
  if (input.size() < 2) return absl::OkStatus();
  const int reader = static_cast<unsigned char>(input[0]) % 3;
  std::vector<int64_t> shape(static_cast<unsigned char>(input[1]) % (kMostSizes + 1));
  input.remove_prefix(2);
  const size_t shape_bytes = std::min(input.size(), shape.size() * sizeof(int64_t));
  std::memcpy(shape.data(), input.data(), shape_bytes);
  input.remove_prefix(shape_bytes);
  const absl::StatusOr<int64_t> count = inference::ElementCount("T", shape);
  if (!count.ok()) return count.status();
  if (reader < 2) {
    const auto values =
        inference::ReadIntegers("T", reader == 0 ? "INT32" : "INT64", *count, input);
    if (values.ok() && values->size() != static_cast<size_t>(*count)) std::abort();
    return values.status();
  }
  const auto elements = inference::ReadBytes("T", *count, input);
  if (!elements.ok()) return elements.status();
  // What was read is what was packed.
  const std::vector<std::string> copies(elements->begin(), elements->end());
  if (inference::PackBytes(copies) != input) std::abort();
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> Seeds() {
  using inference::PackBytes;
  using inference::PackIntegers;
  return {
      Input(0, {2, 2}, PackIntegers(std::vector<int32_t>{1, -2, 3, 4})),
      Input(1, {1, 2}, std::string(16, '\1')),
      Input(1, {-1, 4}, std::string(32, '\0')),
      Input(0, {int64_t{1} << 32, int64_t{1} << 32}, ""),
      Input(2, {3}, PackBytes(std::vector<std::string>{"", "a text", std::string(300, 'x')})),
      Input(2, {1}, std::string("\xff\xff\xff\xff", 4)),
      Input(2, {0}, ""),
  };
}

}  // namespace ess::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ess::fuzz::CheckAnswer(
      ess::fuzz::ReadTensor(std::string_view(reinterpret_cast<const char*>(data), size)),
      {absl::StatusCode::kInvalidArgument});
  return 0;
}
