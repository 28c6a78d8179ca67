#include "server/checkpoint/safetensors_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "server/base/cut_text.h"
#include "server/base/json_file.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::checkpoint {
namespace {

// Of the format, and ours where the format has none.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxRank = 16;

constexpr size_t kMaxMessageBytes = 2048;  // A name and what the header says of it.

// Bits of one element, or nothing for a type the format does not have.
std::optional<uint64_t> ElementBits(const std::string& dtype) {
  static const std::map<std::string, uint64_t> kBits = {
      {"BOOL", 8},    {"U8", 8},         {"I8", 8},          {"I16", 16}, {"U16", 16},
      {"F16", 16},    {"BF16", 16},      {"I32", 32},        {"U32", 32}, {"F32", 32},
      {"I64", 64},    {"U64", 64},       {"F64", 64},        {"C64", 64}, {"F8_E4M3", 8},
      {"F8_E5M2", 8}, {"F8_E8M0", 8},    {"F8_E4M3FNUZ", 8}, {"F4", 4},   {"F6_E2M3", 6},
      {"F6_E3M2", 6}, {"F8_E5M2FNUZ", 8}};
  const auto found = kBits.find(dtype);
  if (found == kBits.end()) return std::nullopt;
  return found->second;
}

// Reads the description of one tensor. Errors lack the file's name.
absl::StatusOr<TensorEntry> ParseEntry(const std::string& name, const nlohmann::json& json) {
  auto bad = [&name](const std::string& what) {
    return absl::DataLossError(fmt::format("tensor '{}': {}", name, what));
  };
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets")) {
    return bad("needs exactly dtype, shape and data_offsets");
  }
  if (!json["dtype"].is_string() || !ElementBits(json["dtype"])) {
    return bad(fmt::format("unknown dtype {}", json["dtype"].dump()));
  }
  TensorEntry entry{.dtype = json["dtype"]};
  const nlohmann::json& shape = json["shape"];
  if (!shape.is_array() || shape.size() > kMaxRank) {
    return bad(fmt::format("shape is not a list of at most {} numbers", kMaxRank));
  }
  uint64_t bits = *ElementBits(entry.dtype);
  for (const nlohmann::json& size : shape) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > INT64_MAX) {
      return bad(fmt::format("shape {} is not made of whole numbers", shape.dump()));
    }
    if (__builtin_mul_overflow(bits, size.get<uint64_t>(), &bits)) {
      return bad(fmt::format("shape {} overflows", shape.dump()));
    }
    entry.shape.push_back(size.get<int64_t>());
  }
  const nlohmann::json& offsets = json["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return bad(fmt::format("data_offsets {} are not two whole numbers", offsets.dump()));
  }
  entry.begin = offsets[0];
  entry.end = offsets[1];
  if (entry.end < entry.begin || bits % 8 != 0 || entry.end - entry.begin != bits / 8) {
    return bad(fmt::format("{} of shape [{}] needs {} bytes, data_offsets are [{}, {}]",
                           entry.dtype, fmt::join(entry.shape, ", "), bits / 8, entry.begin,
                           entry.end));
  }
  return entry;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::filesystem::path& path, const std::string& display_name) {
  auto file = std::unique_ptr<SafetensorsFile>(new SafetensorsFile(display_name));
  absl::Status status = file->OpenDescriptor(path);
  if (status.ok()) status = file->ParseHeader();
  if (status.ok()) status = file->CheckTiling();
  if (!status.ok()) {
    return absl::DataLossError(fmt::format(
        "{}: {}", display_name, CutText(std::string(status.message()), kMaxMessageBytes)));
  }
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::Status SafetensorsFile::OpenDescriptor(const std::filesystem::path& path) {
  // O_NONBLOCK: a named pipe without a writer must not stop the load.
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) return absl::DataLossError("cannot be opened");
  struct stat info {};
  if (fstat(descriptor_, &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::DataLossError("is not a file");
  }
  if (info.st_size < 8) {
    return absl::DataLossError(
        fmt::format("{} bytes; a safetensors file has at least 8", info.st_size));
  }
  file_size_ = static_cast<uint64_t>(info.st_size);
  return absl::OkStatus();
}

absl::Status SafetensorsFile::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t count = pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::DataLossError("cannot be read");
    if (count == 0) {
      return absl::DataLossError(fmt::format(
          "ends at {} of {} bytes: it became shorter while it was read", offset, file_size_));
    }
    offset += static_cast<uint64_t>(count);
    out = out.subspan(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::ParseHeader() {
  uint64_t header_bytes = 0;
  ESS_RETURN_IF_ERROR(ReadAt(0, std::as_writable_bytes(std::span(&header_bytes, 1))));
  if (header_bytes > kMaxHeaderBytes) {
    return absl::DataLossError(
        fmt::format("the header claims {} bytes; the limit is {}", header_bytes, kMaxHeaderBytes));
  }
  if (header_bytes > file_size_ - 8) {
    return absl::DataLossError(fmt::format(
        "the header claims {} bytes; the file has {}: truncated?", header_bytes, file_size_));
  }
  data_offset_ = 8 + header_bytes;
  std::string text(header_bytes, '\0');
  ESS_RETURN_IF_ERROR(ReadAt(8, std::as_writable_bytes(std::span(text))));
  if (text.empty() || text.front() != '{') {
    return absl::DataLossError("the header does not begin with '{'");
  }
  ESS_ASSIGN_OR_RETURN(const nlohmann::json header, ParseJson(text, "header"));
  if (header.size() > kMaxTensors) {
    return absl::DataLossError(
        fmt::format("{} tensors; the limit is {}", header.size(), kMaxTensors));
  }
  for (const auto& [name, json] : header.items()) {
    if (name.size() > kMaxNameBytes) {
      return absl::DataLossError(
          fmt::format("a tensor's name has {} bytes; the limit is {}", name.size(), kMaxNameBytes));
    }
    if (name == "__metadata__") continue;
    ESS_ASSIGN_OR_RETURN(TensorEntry entry, ParseEntry(name, json));
    tensors_.emplace(name, std::move(entry));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::CheckTiling() const {
  std::vector<const std::pair<const std::string, TensorEntry>*> in_file_order;
  for (const auto& tensor : tensors_) in_file_order.push_back(&tensor);
  std::sort(in_file_order.begin(), in_file_order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t expected = 0;
  for (const auto* tensor : in_file_order) {
    if (tensor->second.begin != expected) {
      return absl::DataLossError(
          fmt::format("tensor '{}' begins at {} where {} was expected: the data has a hole or "
                      "tensors overlap",
                      tensor->first, tensor->second.begin, expected));
    }
    expected = tensor->second.end;
  }
  if (expected != file_size_ - data_offset_) {
    return absl::DataLossError(fmt::format(
        "the tensors need {} bytes of data, the file has {}{}", expected, file_size_ - data_offset_,
        expected > file_size_ - data_offset_ ? ": truncated?" : ""));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::Read(const TensorEntry& entry, std::span<std::byte> out) const {
  ESS_CHECK(out.size() == entry.end - entry.begin);
  return ReadAt(data_offset_ + entry.begin, out);
}

}  // namespace ess::checkpoint
